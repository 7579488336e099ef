//! The half chain with NEON: four potentials at a time, products in lanes of 64 bits.
//!
//! The same steps as in `layers::bk`, on numbers of an admitted format: none exceeds 31 bits, so
//! that only features saturate.

use core::arch::aarch64::*;

use crate::blob::{
    CODE_PER_POTENTIAL, ChainFormat, ChainParameters, FEATURE_LIMIT, POTENTIAL_LIMIT,
};
use crate::numeric::RESIDUAL_FRAC;

use super::requantize::{load, store};

/// As `layers::bk::half_step` for whole fours of potentials, in a format that admits them.
pub(super) fn half_step(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    features: &mut [i32],
) {
    let (state_re, state_im) = state.split_at_mut(potentials.len());
    let (feature_re, feature_im) = features.split_at_mut(potentials.len());
    let states = state_re.as_chunks_mut::<4>().0.iter_mut().zip(state_im.as_chunks_mut::<4>().0);
    let features =
        feature_re.as_chunks_mut::<4>().0.iter_mut().zip(feature_im.as_chunks_mut::<4>().0);
    let fours = potentials.as_chunks::<4>().0;
    // Diagonal and η of four potentials.
    let parameters = parameters.bytes.as_chunks::<{ 4 * ChainParameters::BYTES }>().0;
    for (((v, parameters), (re, im)), (feature_re, feature_im)) in
        fours.iter().zip(parameters).zip(states).zip(features)
    {
        // SAFETY: NEON is part of the target; the 32 bytes of the array are loaded, by bytes.
        let (l_re, l_im) = unsafe {
            let first = vreinterpretq_s32_u8(vld1q_u8(parameters.as_ptr()));
            let last = vreinterpretq_s32_u8(vld1q_u8(parameters.as_ptr().add(16)));
            let (diagonal, eta) = (vuzp1q_s32(first, last), vuzp2q_s32(first, last));
            let alpha = alpha(format, diagonal, load(v));
            (
                vsubq_s32(alpha, back(format, load(re))),
                vsubq_s32(vnegq_s32(eta), back(format, load(im))),
            )
        };
        let [g_re, g_im] = invert(format, l_re, l_im);
        (*re, *im) = (store(g_re), store(g_im));
        (*feature_re, *feature_im) = (store(feature(format, g_re)), store(feature(format, g_im)));
    }
}

/// See `ChainFormat::alpha`.
#[inline(always)]
fn alpha(format: ChainFormat, diagonal: int32x4_t, v: int32x4_t) -> int32x4_t {
    let v = clamp(v, POTENTIAL_LIMIT);
    // SAFETY: NEON is part of the target.
    unsafe {
        let potential = if format.int8 {
            let factor = vdupq_n_s32(const { CODE_PER_POTENTIAL as i32 });
            let low = vrshrn_n_s64::<32>(vmull_s32(vget_low_s32(v), vget_low_s32(factor)));
            let codes = vrshrn_high_n_s64::<32>(low, vmull_high_s32(v, factor));
            vmulq_n_s32(codes, format.code_step())
        } else {
            // A negative count shifts right.
            vshlq_s32(v, vdupq_n_s32(format.frac as i32 - RESIDUAL_FRAC as i32))
        };
        vaddq_s32(diagonal, potential)
    }
}

/// β times a part of the neighbour's inverse, truncated.
#[inline(always)]
fn back(format: ChainFormat, part: int32x4_t) -> int32x4_t {
    // SAFETY: NEON is part of the target.
    unsafe {
        let factor = vdupq_n_s32(format.off_diagonal as i32);
        let low = vshrn_n_s64::<16>(vmull_s32(vget_low_s32(part), vget_low_s32(factor)));
        vshrn_high_n_s64::<16>(low, vmull_high_s32(part, factor))
    }
}

/// See `ChainFormat::invert`.
#[inline(always)]
fn invert(format: ChainFormat, re: int32x4_t, im: int32x4_t) -> [int32x4_t; 2] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let square = vmull_s32(vget_low_s32(re), vget_low_s32(re));
        let low = vmlal_s32(square, vget_low_s32(im), vget_low_s32(im));
        let high = vmlal_high_s32(vmull_high_s32(re, re), im, im);
        let squares = [vreinterpretq_u64_s64(low), vreinterpretq_u64_s64(high)];
        let zeros = [leading_zeros(squares[0]), leading_zeros(squares[1])];
        let mantissas = vuzp2q_u32(
            vreinterpretq_u32_u64(vshlq_u64(squares[0], zeros[0])),
            vreinterpretq_u32_u64(vshlq_u64(squares[1], zeros[1])),
        );
        let reciprocals = vreinterpretq_s32_u32(reciprocals(mantissas));
        // Negated places, as many as the shift to the right.
        let places = 2 * format.frac as i64 - 95;
        let shift = |zeros| vaddq_s64(zeros, vdupq_n_s64(places));
        // From −63 to −1: what is beyond comes of squares that no admitted chain has.
        let shifts = vuzp1q_s32(
            vreinterpretq_s32_s64(shift(zeros[0])),
            vreinterpretq_s32_s64(shift(zeros[1])),
        );
        let shifts = vmaxq_s32(vminq_s32(shifts, vdupq_n_s32(-1)), vdupq_n_s32(-63));
        let shifts = [vmovl_s32(vget_low_s32(shifts)), vmovl_high_s32(shifts)];
        let part = |part: int32x4_t| {
            let zero = vdupq_n_s32(0);
            // Interpreted as signed, the reciprocal, at least 2^31, is 2^32 too small.
            let raised = [vzip1q_s32(zero, part), vzip2q_s32(zero, part)];
            let low = vmlal_s32(
                vreinterpretq_s64_s32(raised[0]),
                vget_low_s32(part),
                vget_low_s32(reciprocals),
            );
            let high = vmlal_high_s32(vreinterpretq_s64_s32(raised[1]), part, reciprocals);
            let low = vreinterpretq_s32_s64(vshlq_s64(low, shifts[0]));
            vuzp1q_s32(low, vreinterpretq_s32_s64(vshlq_s64(high, shifts[1])))
        };
        [part(re), part(vnegq_s32(im))]
    }
}

/// Leading zeros of nonzero lanes: from the float exponent of a number with the same leading bit
/// and a zero next to it, so that rounding cannot carry into the exponent.
#[inline(always)]
fn leading_zeros(lanes: uint64x2_t) -> int64x2_t {
    // SAFETY: NEON is part of the target.
    unsafe {
        let first = vbicq_u64(lanes, vshrq_n_u64::<1>(lanes));
        let exponent = vshrq_n_u64::<52>(vreinterpretq_u64_f64(vcvtq_f64_u64(first)));
        vsubq_s64(vdupq_n_s64(1023 + 63), vreinterpretq_s64_u64(exponent))
    }
}

/// See [`crate::numeric::reciprocal_mantissa`], for mantissas from 2^31 on: the truncated float
/// quotient is the floor or one more. It is one more exactly if its product with the mantissa
/// exceeds 2^63 − 1, which sets the highest bit. 2^32, the quotient for 2^31, saturates.
#[inline(always)]
fn reciprocals(mantissas: uint32x4_t) -> uint32x4_t {
    // SAFETY: NEON is part of the target.
    unsafe {
        let quotient = |mantissas: uint32x2_t| {
            let float = vcvtq_f64_u64(vmovl_u32(mantissas));
            vcvtq_u64_f64(vdivq_f64(vdupq_n_f64((1u64 << 63) as f64), float))
        };
        let low = vqmovn_u64(quotient(vget_low_u32(mantissas)));
        let estimates = vqmovn_high_u64(low, quotient(vget_high_u32(mantissas)));
        let products = vuzp2q_s32(
            vreinterpretq_s32_u64(vmull_u32(low, vget_low_u32(mantissas))),
            vreinterpretq_s32_u64(vmull_high_u32(estimates, mantissas)),
        );
        vreinterpretq_u32_s32(vsraq_n_s32::<31>(vreinterpretq_s32_u32(estimates), products))
    }
}

/// See `ChainFormat::feature`.
#[inline(always)]
fn feature(format: ChainFormat, part: int32x4_t) -> int32x4_t {
    // SAFETY: NEON is part of the target.
    unsafe {
        if format.frac >= RESIDUAL_FRAC {
            // A rounding shift to the right.
            let drop = vdupq_n_s32(RESIDUAL_FRAC as i32 - format.frac as i32);
            clamp(vrshlq_s32(part, drop), FEATURE_LIMIT)
        } else {
            // The limit is a multiple of what is shifted to.
            let gain = RESIDUAL_FRAC - format.frac;
            vshlq_s32(clamp(part, FEATURE_LIMIT >> gain), vdupq_n_s32(gain as i32))
        }
    }
}

#[inline(always)]
fn clamp(lanes: int32x4_t, limit: i32) -> int32x4_t {
    // SAFETY: NEON is part of the target.
    unsafe { vmaxq_s32(vminq_s32(lanes, vdupq_n_s32(limit)), vdupq_n_s32(-limit)) }
}
