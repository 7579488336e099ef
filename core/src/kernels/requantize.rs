//! Requantization for cores without the DSP extension: sums of rows to outputs in Q15.16.

use super::portable;
use crate::blob::{Precision, Tensor, pair_u16};
use crate::numeric::{RESIDUAL_FRAC, Scale, high_by_halves};

/// Requantizes the sums of a vector in place, as [`portable::requantize`] does.
///
/// Where at least 33 bits are shifted out, the rounding constant is a multiple of 2^32, so that the
/// high word of the product alone decides. Sums are far below 2^30: smaller shifts are raised to 33
/// by shifting the sum left first.
#[inline(never)]
pub(super) fn requantize(matrix: &Tensor<'_>, scale: Scale, out: &mut [i32]) {
    let shift = matrix.exponent - scale.exponent as i32 - RESIDUAL_FRAC as i32;
    let bias_shift = RESIDUAL_FRAC - matrix.bias_exponent;
    let row_scales = matrix.layout().row_scales;
    let left = (33 - shift).max(0);
    if left > headroom(matrix) || shift > 62 || bias_shift > 14 {
        for ((r, out), scales) in
            out.iter_mut().enumerate().zip(matrix.scales.chunks_exact(row_scales))
        {
            *out = portable::requantize(matrix, r, *out, pair_u16(scales, 0), scale);
        }
        return;
    }
    let right = shift + left - 32;
    let row = Row { left, half: 1 << (right - 1), right, bias_shift, scale: scale.mantissa as u32 };
    let scales = bytemuck::try_cast_slice::<u8, u16>(matrix.scales);
    let biases = bytemuck::try_cast_slice::<u8, i16>(matrix.biases);
    match (scales, biases) {
        (Ok(scales), Ok(biases)) if row_scales.is_multiple_of(2) => {
            let scales = scales.chunks_exact(row_scales / 2).map(|scales| u16::from_le(scales[0]));
            row.requantize_all(out, scales, biases.iter().map(|&bias| i16::from_le(bias)));
        }
        // By bytes on cores without unaligned loads.
        _ => {
            let scales = matrix.scales.chunks_exact(row_scales).map(|scales| pair_u16(scales, 0));
            let biases = matrix.biases.as_chunks().0.iter().map(|&bias| i16::from_le_bytes(bias));
            row.requantize_all(out, scales, biases);
        }
    }
}

/// Bits by which any row's sum can be shifted left and stay at most 2^30 in magnitude.
fn headroom(matrix: &Tensor<'_>) -> i32 {
    let scale = if matrix.precision == Precision::Int8 { 1 } else { 15 };
    let largest = scale << (matrix.precision.bits() - 1);
    let sum = matrix.cols as u32 * matrix.max_code * largest;
    sum.leading_zeros() as i32 - 2
}

/// Constants of a vector's requantization. The product is at most 2^61 in magnitude, its high word
/// 2^29, and so is the bias: nothing saturates.
#[derive(Clone, Copy)]
struct Row {
    left: i32,
    half: i32,
    right: i32,
    bias_shift: u32,
    scale: u32,
}

impl Row {
    #[inline(always)]
    fn requantize_all(
        self,
        out: &mut [i32],
        mantissas: impl Iterator<Item = u16>,
        biases: impl Iterator<Item = i16>,
    ) {
        for ((out, mantissa), bias) in out.iter_mut().zip(mantissas).zip(biases) {
            let product = high_word(*out << self.left, mantissa as u32 * self.scale);
            *out = ((product + self.half) >> self.right) + ((bias as i32) << self.bias_shift);
        }
    }
}

/// `⌊a · b / 2^32⌋` for `b` below 2^31, as products of mantissas are.
#[inline(always)]
fn high_word(a: i32, b: u32) -> i32 {
    if cfg!(thumb1) {
        high_by_halves(a, b as i32, 0)
    } else {
        ((a as i64 * b as i32 as i64) >> 32) as i32
    }
}
