//! For cores with a 32-bit multiplier and no DSP extension.

use super::units::{Pairs, Unit};
use super::words::{self, Words};
use crate::blob::Tensor;
use crate::numeric::Scale;

#[cfg(thumb1)]
use super::thumb1::nibbles;

/// Two products by one multiplication: u[0] + 2^16 u[1] times a[1] + 2^16 a[0] leaves, modulo 2^32,
/// the dot product in the high half. The low half is not used, but must neither borrow nor carry:
/// with nibbles below 16 and |a| ≤ 255 the eight products of a unit are within ±8 · 15 · 255, and
/// with 2^15 as the initial value positive and below 2^16. The dot product itself, offsets
/// subtracted, is at most 16 · 8 · 255: 16 bits with sign.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Mul32;

impl Pairs for Mul32 {
    #[inline(always)]
    fn coefficient(low: i16, high: i16) -> u32 {
        (high as u32).wrapping_add((low as u32) << 16)
    }

    #[inline(always)]
    fn start(codes: i32, bits: u32) -> u32 {
        // Codes of more bits are multiplied in two parts.
        (1u32 << 15).wrapping_sub((codes as u32) << (bits.min(4) - 1 + 16))
    }

    #[inline(always)]
    unsafe fn multiply(matrix: &Tensor<'_>, scale: Scale, units: &[Unit], out: &mut [i32]) -> bool {
        words::multiply::<Self>(matrix, scale, units, out)
    }
}

impl Words for Mul32 {
    #[inline(always)]
    fn nibbles(unit: &Unit, words: [u32; 2]) -> i32 {
        nibbles(unit, words)
    }

    /// The lower part is offset as the upper one, so that the same initial value serves both.
    #[inline(always)]
    fn bytes<const SHIFT: u32>(unit: &Unit, upper: [u32; 2], lower: [u32; 2]) -> i32 {
        let lower = lower.map(|word| word | 0x8888_8888);
        (Self::nibbles(unit, upper) << SHIFT) + Self::nibbles(unit, lower)
    }
}

/// See [`Words::nibbles`]. Outlined on Cortex-M3, where the call costs nothing since it relieves
/// register pressure.
#[cfg(not(thumb1))]
#[cfg_attr(thumb2, inline(never))]
#[cfg_attr(not(thumb2), inline(always))]
fn nibbles(unit: &Unit, words: [u32; 2]) -> i32 {
    const MASK: u32 = 0x000f_000f;
    let parts = words.into_iter().zip([&unit.first, &unit.second]);
    let sum = parts.fold(unit.start, |sum, (word, &[[a, b], [c, d]])| {
        let parts = [(word, a), (word >> 8, b), (word >> 4, c), (word >> 12, d)];
        parts.into_iter().fold(sum, |sum, (word, coefficient)| {
            sum.wrapping_add((word & MASK).wrapping_mul(coefficient))
        })
    });
    sum as i32 >> 16
}
