//! Kernels for Cortex-M cores that always have the DSP extension (M4, M7): two products an instruction.
//!
//! A 16-bit half of a word of weights is one signed number, the sum of its codes in their places (the
//! stored form offsets all but the uppermost), and is multiplied as it is: that takes the uppermost code
//! for nothing, and what its coefficient adds for the codes below is taken off their coefficients. For INT8
//! with bytes b1 above b0, the latter offset to u0 = b0 + 128,
//!
//! ```text
//! (256 b1 + u0) · a1 + u0 · (256 a0 − a1) = 256 · (b1 · a1 + u0 · a0)
//! ```
//!
//! and for INT4 the same goes on from nibble to nibble, 16 times smaller each. A vector becomes such
//! coefficients once, in the order in which they are used, with what the offsets add to each sum; sums are
//! exact modulo 2^32 and end within 31 bits.
//!
//! One row is a straight run of instructions, and the end of a row, where the sum becomes an output, is
//! `finish!`. All registers are in use, so that what a row's end needs waits on the stack.
//!
//! [`planes`] has the rows of the other precisions and groups, whose vectors [`super::planes`] prepares.
#![allow(unsafe_code)]

#[macro_use]
mod row;
pub(super) mod finish;
mod int4;
mod int8;
pub(super) mod planes;

use core::mem::MaybeUninit;

use super::Vectors;
use super::choice::{self, BLOCK, LONGEST};
use super::portable::{self, batch};
use crate::blob::{Precision, Tensor, pair_u16};
use crate::numeric::Scale;
use row::Rows;

/// Words that coefficients take at most.
const WORDS: usize = int4::WORDS * (LONGEST / BLOCK);

/// Coefficients of a vector.
type Coefficients = [MaybeUninit<u32>; WORDS];

/// Multiplies where there is a kernel for the matrix; says whether there was. Not a part of its
/// caller, whose stack would have room for every kernel's vector at once.
#[inline(never)]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    if choice::dsp(matrix).is_err() {
        return false;
    }
    let int8 = matrix.precision == Precision::Int8;
    let layout = matrix.layout();
    assert!(matrix.rows > 0 && matrix.codes.len() >= matrix.rows * layout.row_codes);
    assert!(matrix.scales.len() >= matrix.rows * layout.row_scales);
    assert!(matrix.biases.len() >= 2 * matrix.rows);
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
            // What may saturate behind a ReLU is too rare for code of its own.
            return false;
        }
        let mut rows = rows.unwrap_or_else(|| Rows::raw(matrix, out));
        rows.coefficients = memory.as_ptr().cast();
        // SAFETY: the coefficients are those of a vector of as many codes as the matrix has columns; that its
        // parts have all rows and its codes their alignment was checked above.
        unsafe {
            match int8 {
                true => int8::run(matrix, rows, keep),
                false => int4::run(matrix, rows, keep),
            }
        }
        if keep {
            keep_outputs(matrix, scale, range.0, out);
        }
    }
    true
}

/// Turns sums with `fraction` bits more than the portable kernel's into outputs, whatever those are.
#[inline(never)]
fn keep_outputs(matrix: &Tensor<'_>, scale: Scale, fraction: u32, out: &mut [i32]) {
    let scales = matrix.scales.chunks_exact(matrix.layout().row_scales);
    for (row, (out, scales)) in out.iter_mut().zip(scales).enumerate() {
        *out = portable::finish(matrix, row, *out >> fraction, pair_u16(scales, 0), scale);
    }
}

/// Two numbers of 16 bits as a register holds them.
#[inline(always)]
fn pair(low: i32, high: i32) -> u32 {
    low as u16 as u32 | (high as u32) << 16
}
