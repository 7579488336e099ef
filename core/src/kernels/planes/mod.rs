//! INT2 to INT6 in the groups that policies choose: sixteen inputs at a time, as two words of
//! nibbles.
//!
//! A unit is the m-th word of a group's 2-bit plane, or words m and m + n/2 of its 4-bit plane of n
//! words. With q a quarter of a group, it holds inputs 4m to 4m + 3 and those q, 2q and 3q further,
//! and one mask splits it into two words of nibbles:
//!
//! ```text
//! nibble       7    6    5    4    3    2    1    0
//! first word   3+2q 3    2+2q 2    1+2q 1    2q   0        of inputs 4m + …
//! second word  3+3q 3+q  2+3q 2+q  1+3q 1+q  3q   q
//! ```
//!
//! The lower plane has the same inputs in the same places. INT3 joins its planes in the nibbles.
//! INT5 and INT6 either join theirs in bytes or multiply both by the same vector, whichever is
//! faster on the processor ([`Pairs`]). The 16-bit lanes hold every fourth nibble: the vector is
//! prepared, once for all rows, as pairs of inputs 4m + i and 4m + i + 2.
//!
//! Unless joined in bytes, codes are multiplied offset by half their range, hence not negative; the
//! initial value of a unit's sum cancels the offset.

#![allow(unsafe_code)]

#[cfg(any(swar, test))]
mod mul32;
#[cfg(arm_dsp)]
mod rows_dsp;
#[cfg(any(arm_dsp, test))]
mod smlad;
#[cfg(thumb1)]
mod thumb1;
mod units;
#[cfg(not(arm_dsp))]
mod words;

use core::mem::MaybeUninit;

use super::matrix::Matrix;
use super::portable::batch;
use super::vectors::Vectors;
#[cfg(any(swar, test))]
pub(super) use mul32::Mul32;
#[cfg(any(arm_dsp, test))]
pub(super) use smlad::Smlad;
use units::{Pairs, UNITS, Units, prepare};

/// See [`super::kernel::Kernel::run`]; with the DSP extension, leaves vectors to the portable
/// kernel whose outputs may saturate. Outlined: inlined, the caller's frame would hold the vectors
/// of all kernels at once.
///
/// # Safety
///
/// [`super::shapes::planes`] admits the matrix.
#[inline(never)]
pub(super) unsafe fn run<P: Pairs>(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let mut memory: Units = [const { MaybeUninit::uninit() }; UNITS];
    batch(x, matrix.cols).all(|(b, vector, scale)| {
        let units = prepare::<P>(matrix, vector, &mut memory);
        let out = &mut out[b * matrix.rows..][..matrix.rows];
        // SAFETY: a matrix holds codes, scales and biases of all its rows; the caller vouches for
        // the rest. The vector has a code for each column.
        unsafe { P::multiply(matrix, scale, units, out) }
    })
}
