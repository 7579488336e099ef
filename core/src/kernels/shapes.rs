//! The conditions of the kernels for microcontrollers on storage, shape and alignment: one
//! predicate per kernel, and nowhere else.
//!
//! They look at a tensor's description and address alone, so that a host can answer for a device
//! ([`crate::Model::kernels_on`]).

use super::choice::Reason;
use super::portable::LANES;
use crate::blob::{Precision, Tensor};

/// Longest row whose vector the integer kernels of microcontrollers keep on the stack.
pub(super) const LONGEST: usize = 512;
/// Longest row whose vector is kept as floats on the stack.
pub(super) const LONGEST_FP16: usize = 256;
/// Inputs per step of the integer kernels: a group of INT4.
pub(super) const BLOCK: usize = 32;
/// Alignment of codes, in bytes, that loads of words need.
const WORD: usize = align_of::<u32>();

/// For `dsp`: INT8, or INT4 in groups of 32; rows of whole blocks.
#[inline(always)]
pub(super) fn dsp(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if !is_int8_or_int4_by_32(matrix) {
        return Err(Reason::Storage);
    }
    by_words(matrix, (1..=LONGEST).contains(&matrix.cols) && matrix.cols.is_multiple_of(BLOCK))
}

/// For `swar`: as [`dsp`], but at least two groups of INT4.
#[inline(always)]
pub(super) fn swar(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if !is_int8_or_int4_by_32(matrix) || matrix.max_code > 255 {
        return Err(Reason::Storage);
    }
    let least = if matrix.precision == Precision::Int8 { BLOCK } else { 2 * BLOCK };
    by_words(matrix, (least..=LONGEST).contains(&matrix.cols) && matrix.cols.is_multiple_of(BLOCK))
}

/// For `planes`: INT2 to INT6 in groups of whole units, rows of whole groups and words. INT4 in
/// groups of 32 has kernels of its own.
#[inline(always)]
pub(super) fn planes(matrix: &Tensor<'_>) -> Result<(), Reason> {
    use Precision::{Int2, Int3, Int4, Int5, Int6};
    let known = matches!(
        (matrix.precision, matrix.group),
        (Int2 | Int3 | Int4, 16) | (Int2 | Int3 | Int5 | Int6, 32) | (Int4, 64)
    );
    if !known || matrix.max_code > 255 || matrix.biases.is_empty() {
        return Err(Reason::Storage);
    }
    by_words(
        matrix,
        (1..=LONGEST).contains(&matrix.cols) && matrix.cols.is_multiple_of(matrix.group.max(BLOCK)),
    )
}

/// For `fpu`: FP16, rows of whole rounds of eight lanes.
#[inline(always)]
pub(super) fn fpu(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if matrix.precision != Precision::Fp16 {
        return Err(Reason::Storage);
    }
    by_words(matrix, (1..=LONGEST_FP16).contains(&matrix.cols) && matrix.cols.is_multiple_of(LANES))
}

/// INT8, or INT4 in groups of 32; of a linear layer, which has biases.
#[inline(always)]
fn is_int8_or_int4_by_32(matrix: &Tensor<'_>) -> bool {
    let int4 = matrix.precision == Precision::Int4 && matrix.group == BLOCK;
    (matrix.precision == Precision::Int8 || int4) && !matrix.biases.is_empty()
}

/// The rest of a condition where the storage is right: `fits`, and codes aligned to words.
#[inline(always)]
fn by_words(matrix: &Tensor<'_>, fits: bool) -> Result<(), Reason> {
    if !fits || matrix.codes.is_empty() {
        return Err(Reason::Shape);
    }
    if !matrix.codes.as_ptr().addr().is_multiple_of(WORD) {
        return Err(Reason::Alignment);
    }
    Ok(())
}
