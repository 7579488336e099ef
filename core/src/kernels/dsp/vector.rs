//! A vector as coefficients, prepared once for all rows.

use core::mem::MaybeUninit;

use crate::kernels::shapes::{BLOCK, LONGEST};

/// Words of coefficients per group of INT4, which takes the most.
pub(super) const GROUP_WORDS: usize = 18;

/// Room for the coefficients of the longest vector.
pub(super) const WORDS: usize = GROUP_WORDS * (LONGEST / BLOCK);

/// Coefficients of a vector.
pub(super) type Coefficients = [MaybeUninit<u32>; WORDS];

/// Two 16-bit numbers in one register.
#[inline(always)]
pub(super) fn pair(low: i32, high: i32) -> u32 {
    low as u16 as u32 | (high as u32) << 16
}
