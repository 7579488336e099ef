//! Sums to outputs.

use crate::blob::{Tensor, pair_u16};
use crate::kernels::portable;
use crate::numeric::{RESIDUAL_FRAC, Scale};

/// Turns the sums of a vector, below 2^24 in magnitude, into outputs, as [`portable`] does.
///
/// Shifts are of 33 bits and more as a rule. Half of what is shifted out is then a multiple of 2^32, so that
/// the upper word of the product alone decides: it is below 2^23 in magnitude, the output below 2^22, and a
/// bias below 2^30 cannot make it saturate.
pub(super) fn finish(matrix: &Tensor<'_>, scale: Scale, out: &mut [i32]) {
    let shift = matrix.exponent - scale.exponent as i32 - RESIDUAL_FRAC as i32;
    let bias_shift = RESIDUAL_FRAC - matrix.bias_exponent;
    let row_scales = matrix.layout().row_scales;
    let numbers = (
        bytemuck::try_cast_slice::<u8, u16>(matrix.scales),
        bytemuck::try_cast_slice::<u8, i16>(matrix.biases),
    );
    if let ((Ok(scales), Ok(biases)), 33..=62, 0..=14) = (numbers, shift, bias_shift)
        && row_scales.is_multiple_of(2)
    {
        let half = (1 << (shift - 32)) >> 1;
        let scales = scales.chunks_exact(row_scales / 2);
        for ((out, scales), &bias) in out.iter_mut().zip(scales).zip(biases) {
            let multiplier = u16::from_le(scales[0]) as u32 * scale.mantissa as u32;
            let value = (high_word(*out, multiplier) + half) >> (shift - 32);
            *out = value + ((i16::from_le(bias) as i32) << bias_shift);
        }
        return;
    }
    for (r, out) in out.iter_mut().enumerate() {
        let mantissa = pair_u16(&matrix.scales[r * row_scales..], 0);
        *out = portable::finish(matrix, r, *out, mantissa, scale);
    }
}

/// `a · b / 2^32`, rounded down, of an `a` below 2^29 in magnitude and a `b` below 2^31.
#[inline(always)]
fn high_word(a: i32, b: u32) -> i32 {
    if cfg!(armv6m) { by_halves(a, b) } else { ((a as i64 * b as i32 as i64) >> 32) as i32 }
}

/// For cores whose products have 32 bits. With the low half of `a` signed, no sum leaves 32 bits: of the terms
/// in the middle one is at most 2^15 · 2^15, one 2^13 · 2^16, one 2^15.
#[inline(always)]
fn by_halves(a: i32, b: u32) -> i32 {
    let a_low = a as i16 as i32;
    let a_high = (a - a_low) >> 16;
    let (b_high, b_low) = ((b >> 16) as i32, (b & 0xffff) as i32);
    let middle = a_high * b_low + a_low * b_high + ((a_low * b_low) >> 16);
    a_high * b_high + (middle >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn halves_give_the_high_word(a in -(1i32 << 29) + 1..1 << 29, b in 0u32..1 << 31) {
            for (a, b) in [(a, b), (a, (1 << 31) - 1), (a | 0x8000, b | 0xffff), (a & !0x7fff, b)] {
                prop_assert_eq!(by_halves(a, b), ((a as i64 * b as i64) >> 32) as i32);
            }
        }
    }
}
