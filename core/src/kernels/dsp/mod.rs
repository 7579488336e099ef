//! Kernels for Cortex-M cores with the DSP extension (M4, M7, most M33): two products per
//! instruction.
//!
//! A 16-bit half of a word of weights is one signed number, the sum of its codes in their places
//! (the stored form offsets all codes but the highest), and is multiplied without unpacking. This
//! yields the product of the highest code for free; what its coefficient contributes for the lower
//! codes is subtracted from theirs. For INT8 with bytes b1 above b0, the latter offset to u0 = b0 +
//! 128,
//!
//! ```text
//! (256 b1 + u0) · a1 + u0 · (256 a0 − a1) = 256 · (b1 · a1 + u0 · a0)
//! ```
//!
//! and likewise from nibble to nibble for INT4, each 16 times smaller. A vector is turned into such
//! coefficients once, in the order of their use, with the contribution of the offsets to each sum.
//! Sums are exact modulo 2^32 and end within 31 bits.
//!
//! A row is straight-line code and ends in `requantize_row!`. All registers are in use; what the
//! end of a row needs is on the stack.
//!
//! The other precisions and groups are in [`super::planes`], which shares [`row`].
#![allow(unsafe_code)]

#[macro_use]
pub(super) mod row;
pub(super) mod codes;
pub(super) mod depthwise;
mod int4;
mod int8;
pub(super) mod sums;
mod vector;

use core::mem::MaybeUninit;

use super::matrix::Matrix;
use super::portable::batch;
use super::vectors::Vectors;
use crate::blob::Precision;
use row::{Rows, requantize_portably};
use vector::{Coefficients, WORDS};

/// See [`super::kernel::Kernel::run`]; leaves vectors to the portable kernel whose outputs behind a
/// ReLU may saturate. Outlined: inlined, the caller's frame would hold the vectors of all kernels
/// at once.
///
/// # Safety
///
/// [`super::shapes::dsp`] admits the matrix.
#[inline(never)]
pub(super) unsafe fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let int8 = matrix.precision == Precision::Int8;
    let mut memory: Coefficients = [MaybeUninit::uninit(); WORDS];
    let range = if int8 { int8::range(matrix) } else { int4::range(matrix) };
    for (b, codes, scale) in batch(x, matrix.cols) {
        let out = &mut out[b * matrix.rows..][..matrix.rows];
        match int8 {
            true => int8::prepare(matrix, codes, &mut memory),
            false => int4::prepare(codes, &mut memory),
        }
        let rows = Rows::new(matrix, scale, range, out);
        let keep = rows.is_none();
        if keep && int8 && !int8::is_small(matrix) {
            // Too rare for code of its own.
            return false;
        }
        let mut rows = rows.unwrap_or_else(|| Rows::raw(matrix, out));
        rows.coefficients = memory.as_ptr().cast();
        // SAFETY: the coefficients are those of a vector with a code per column. A matrix holds
        // codes, scales and biases of all its rows, and by the caller's promise there are rows and
        // the codes are aligned.
        unsafe {
            match int8 {
                true => int8::run(matrix, rows, keep),
                false => int4::run(matrix, rows, keep),
            }
        }
        if keep {
            requantize_portably(matrix, scale, range.0, out);
        }
    }
    true
}
