//! The half chain with AVX2: four potentials at a time, in lanes of 64 bits.
//!
//! The same steps as in `layers::bk`, on numbers of an admitted format: none exceeds 31 bits, so
//! that only features saturate.

use core::arch::x86_64::*;

use crate::blob::{
    CODE_PER_POTENTIAL, ChainFormat, ChainParameters, FEATURE_LIMIT, POTENTIAL_LIMIT,
};
use crate::numeric::RESIDUAL_FRAC;

/// Constants of all potentials.
struct Constants {
    format: ChainFormat,
    off_diagonal: __m256i,
    /// 3/127 in units of the format.
    step: __m128i,
}

/// As `layers::bk::half_step` for whole fours of potentials, in a format that admits them.
#[target_feature(enable = "avx2")]
pub(super) fn half_step(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    features: &mut [i32],
) {
    let constants = Constants {
        format,
        off_diagonal: _mm256_set1_epi64x(format.off_diagonal as i64),
        step: _mm_set1_epi32(format.code_step()),
    };
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
        // SAFETY: the 32 bytes of the array are readable, and the load needs no alignment.
        let parameters = unsafe { _mm256_loadu_si256(parameters.as_ptr().cast()) };
        let alpha = constants.alpha(lower(parameters), load(v));
        // The high 32 bits of a lane are ignored.
        let eta = _mm256_srli_epi64::<32>(parameters);
        let l_re = _mm256_sub_epi64(_mm256_cvtepi32_epi64(alpha), constants.back(load(re)));
        let l_im = _mm256_sub_epi64(_mm256_setzero_si256(), eta);
        let l_im = _mm256_sub_epi64(l_im, constants.back(load(im)));
        let g = constants.invert(l_re, l_im);
        (*re, *im) = (store(g[0]), store(g[1]));
        (*feature_re, *feature_im) =
            (store(constants.feature(g[0])), store(constants.feature(g[1])));
    }
}

impl Constants {
    /// See `ChainFormat::alpha`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn alpha(&self, diagonal: __m128i, v: __m128i) -> __m128i {
        let limit = POTENTIAL_LIMIT;
        let v = _mm_max_epi32(_mm_min_epi32(v, _mm_set1_epi32(limit)), _mm_set1_epi32(-limit));
        let potential = if self.format.int8 {
            let v = _mm256_cvtepi32_epi64(v);
            let product = _mm256_mul_epi32(v, _mm256_set1_epi64x(CODE_PER_POTENTIAL));
            let rounded = _mm256_add_epi64(product, _mm256_set1_epi64x(1 << 31));
            _mm_mullo_epi32(lower(_mm256_srli_epi64::<32>(rounded)), self.step)
        } else if self.format.frac >= RESIDUAL_FRAC {
            _mm_sll_epi32(v, count(self.format.frac - RESIDUAL_FRAC))
        } else {
            _mm_sra_epi32(v, count(RESIDUAL_FRAC - self.format.frac))
        };
        _mm_add_epi32(diagonal, potential)
    }

    /// β times a part of the neighbour's inverse, truncated, in the low 32 bits of a lane. The high
    /// bits are ignored, so that a logical shift will do.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn back(&self, part: __m128i) -> __m256i {
        let product = _mm256_mul_epi32(_mm256_cvtepi32_epi64(part), self.off_diagonal);
        _mm256_srli_epi64::<16>(product)
    }

    /// See `ChainFormat::invert`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn invert(&self, re: __m256i, im: __m256i) -> [__m128i; 2] {
        let square = _mm256_add_epi64(_mm256_mul_epi32(re, re), _mm256_mul_epi32(im, im));
        let zeros = leading_zeros(square);
        let mantissa = _mm256_srli_epi64::<32>(_mm256_sllv_epi64(square, zeros));
        let reciprocal = reciprocal(mantissa);
        let places = _mm256_set1_epi64x(95 - 2 * self.format.frac as i64);
        // Lanes whose high halves are zero before and after.
        let shift = _mm256_sub_epi32(places, zeros);
        let shift = _mm256_max_epi32(shift, _mm256_set1_epi64x(1));
        let shift = _mm256_min_epi32(shift, _mm256_set1_epi64x(63));
        let product = |part: __m256i| {
            // Interpreted as signed, the reciprocal, at least 2^31, is 2^32 too small.
            let product = _mm256_mul_epi32(part, reciprocal);
            _mm256_add_epi64(product, _mm256_slli_epi64::<32>(part))
        };
        let re = shift_right(product(re), shift);
        let im = shift_right(product(_mm256_sub_epi64(_mm256_setzero_si256(), im)), shift);
        [lower(re), lower(im)]
    }

    /// See `ChainFormat::feature`.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn feature(&self, part: __m128i) -> __m128i {
        let clamp = |part, limit| {
            _mm_max_epi32(_mm_min_epi32(part, _mm_set1_epi32(limit)), _mm_set1_epi32(-limit))
        };
        if self.format.frac >= RESIDUAL_FRAC {
            let drop = self.format.frac - RESIDUAL_FRAC;
            let half = _mm_set1_epi32((1 << drop) >> 1);
            clamp(_mm_sra_epi32(_mm_add_epi32(part, half), count(drop)), FEATURE_LIMIT)
        } else {
            // The limit is a multiple of what is shifted to.
            let gain = RESIDUAL_FRAC - self.format.frac;
            _mm_sll_epi32(clamp(part, FEATURE_LIMIT >> gain), count(gain))
        }
    }
}

/// Leading zeros of nonzero lanes: from the float exponent of a number with the same leading bit
/// and a zero next to it, so that rounding cannot carry into the exponent.
#[inline]
#[target_feature(enable = "avx2")]
fn leading_zeros(lanes: __m256i) -> __m256i {
    let first = _mm256_andnot_si256(_mm256_srli_epi64::<1>(lanes), lanes);
    // Each half becomes the mantissa of a float with the exponent of 2^84 or 2^52.
    let high = _mm256_or_si256(_mm256_srli_epi64::<32>(first), _mm256_set1_epi64x(0x4530 << 48));
    let low = _mm256_blend_epi32::<0b1010_1010>(first, _mm256_set1_epi64x(0x4330 << 48));
    let offset = _mm256_set1_pd(f64::from_bits(0x4530_0000_0010_0000));
    let high = _mm256_sub_pd(_mm256_castsi256_pd(high), offset);
    let float = _mm256_add_pd(high, _mm256_castsi256_pd(low));
    let exponent = _mm256_srli_epi64::<52>(_mm256_castpd_si256(float));
    _mm256_sub_epi64(_mm256_set1_epi64x(1023 + 63), exponent)
}

/// See [`crate::numeric::reciprocal_mantissa`], for mantissas from 2^31 on.
///
/// The float quotient minus a half, rounded to nearest, is the floor or next to it. r · m and (r +
/// 1) · m are too large exactly if they exceed 2^63 − 1, which sets their highest bit.
#[inline]
#[target_feature(enable = "avx2")]
fn reciprocal(mantissa: __m256i) -> __m256i {
    let whole = _mm256_set1_pd((1u64 << 52) as f64);
    let float = _mm256_or_si256(mantissa, _mm256_castpd_si256(whole));
    let float = _mm256_sub_pd(_mm256_castsi256_pd(float), whole);
    let quotient = _mm256_div_pd(_mm256_set1_pd((1u64 << 63) as f64), float);
    let rounded = _mm256_add_pd(quotient, _mm256_set1_pd((1u64 << 52) as f64 - 0.5));
    let estimate = _mm256_xor_si256(_mm256_castpd_si256(rounded), _mm256_castpd_si256(whole));
    // 2^32, the quotient for 2^31, does not fit.
    let estimate = _mm256_sub_epi64(estimate, _mm256_srli_epi64::<32>(estimate));
    let product = _mm256_mul_epu32(estimate, mantissa);
    let next = _mm256_add_epi64(product, mantissa);
    let above = _mm256_add_epi64(_mm256_srli_epi64::<63>(product), _mm256_srli_epi64::<63>(next));
    _mm256_sub_epi64(_mm256_add_epi64(estimate, _mm256_set1_epi64x(1)), above)
}

/// An arithmetic shift of 64-bit lanes by less than 64: a logical shift of lanes offset by 2^63,
/// offset removed.
#[inline]
#[target_feature(enable = "avx2")]
fn shift_right(lanes: __m256i, shift: __m256i) -> __m256i {
    let offset = _mm256_set1_epi64x(i64::MIN);
    let shifted = _mm256_srlv_epi64(_mm256_xor_si256(lanes, offset), shift);
    _mm256_sub_epi64(shifted, _mm256_srlv_epi64(offset, shift))
}

/// The lower halves of lanes of 64 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn lower(lanes: __m256i) -> __m128i {
    let order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(lanes, order))
}

#[inline]
#[target_feature(enable = "avx2")]
fn count(bits: u32) -> __m128i {
    _mm_cvtsi32_si128(bits as i32)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(four: &[i32; 4]) -> __m128i {
    // SAFETY: the 16 bytes of the array are readable, and the load needs no alignment.
    unsafe { _mm_loadu_si128(four.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(lanes: __m128i) -> [i32; 4] {
    let mut four = [0; 4];
    // SAFETY: the 16 bytes of the array are writable, and the store needs no alignment.
    unsafe { _mm_storeu_si128(four.as_mut_ptr().cast(), lanes) };
    four
}
