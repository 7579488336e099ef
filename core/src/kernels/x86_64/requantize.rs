//! Requantization with AVX2: sums to outputs in Q15.16, eight rows at a time.

use core::arch::x86_64::*;

use half::f16;

use super::registers::{add_saturating, eight_words, load, put, store};
use crate::blob::{Tensor, pair_u16};
use crate::kernels::batched::{Portable, ROWS, Rescale, Scales};
use crate::kernels::portable;
use crate::numeric::{RESIDUAL_FRAC, Scale};

/// Constants of the requantization of a vector's sums.
#[derive(Clone, Copy, Default)]
pub(super) struct Requantizer {
    /// Scale of the vector, packed.
    pub(super) scale: u32,
    /// Mantissa of the scale if nothing can saturate, else negative and the other constants unused.
    mantissa: i32,
    /// Rounding constant.
    half: i64,
    /// Left shift of sums, so that products are shifted right by at least 32.
    raise: i64,
    /// Right shift beyond 32.
    drop: i64,
}

impl Requantizer {
    /// For sums below `bound` in magnitude.
    #[inline(always)]
    pub(super) fn new(matrix: &Tensor<'_>, scale: u32, bound: u64) -> Self {
        let Scale { mantissa, exponent } = Scale::unpack(scale);
        let exact = matrix.exponent - exponent as i32 - RESIDUAL_FRAC as i32;
        let shift = exact.clamp(1, 62);
        let raise = (32 - shift).max(0);
        let output = ((bound * ((mantissa as u64) << 16)) >> shift) + 1;
        let biased = !matrix.biases.is_empty() as u64;
        let bias = biased << (15 + RESIDUAL_FRAC - matrix.bias_exponent);
        let fits = shift == exact && bound << raise < 1 << 31 && output + bias < 1 << 31;
        Self {
            scale,
            mantissa: if fits { mantissa as i32 } else { -1 },
            half: 1 << (shift + raise - 1),
            raise: raise as i64,
            drop: (shift + raise - 32) as i64,
        }
    }

    /// Whether nothing can saturate, so that [`Requantizer::requantize`] may be used.
    #[inline(always)]
    pub(super) fn fits(&self) -> bool {
        self.mantissa >= 0
    }

    /// Requantizes sums of eight rows. Raised sums are below 2^31, products of mantissas below
    /// 2^31, their products below 2^62: neither adding the rounding constant nor the result
    /// overflows.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn requantize(&self, sums: __m256i, mantissas: __m256i, biases: __m256i) -> __m256i {
        let sums = _mm256_sll_epi32(sums, _mm_cvtsi64_si128(self.raise));
        let multipliers = _mm256_mullo_epi32(mantissas, _mm256_set1_epi32(self.mantissa));
        let half = _mm256_set1_epi64x(self.half);
        let even = _mm256_add_epi64(_mm256_mul_epi32(sums, multipliers), half);
        let (sums, multipliers) =
            (_mm256_srli_epi64::<32>(sums), _mm256_srli_epi64::<32>(multipliers));
        let odd = _mm256_add_epi64(_mm256_mul_epi32(sums, multipliers), half);
        let upper = _mm256_blend_epi32::<0b1010_1010>(_mm256_srli_epi64::<32>(even), odd);
        _mm256_add_epi32(_mm256_sra_epi32(upper, _mm_cvtsi64_si128(self.drop)), biases)
    }
}

/// `shift_round` and a saturating addition for a panel's sums. Products are below 2^62 in
/// magnitude, so that adding the rounding constant cannot overflow 64 bits. Results beyond `i32`,
/// and shifts beyond 1 to 62, take the portable path.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn requantize_panel(sums: __m256i, scales: &Scales, rescale: &Rescale) -> [i32; ROWS] {
    // Rows 0, 2, 4, 6 are the low halves of 64-bit lanes, the others the high halves.
    let (even, even_fits) = biased_half(sums, &scales.mantissas[0], &scales.biases[0], rescale);
    let odd = _mm256_srli_epi64::<32>(sums);
    let (odd, odd_fits) = biased_half(odd, &scales.mantissas[1], &scales.biases[1], rescale);
    let upper = _mm256_srli_epi64::<32>(_mm256_or_si256(even_fits, odd_fits));
    let fits = _mm256_cmpeq_epi64(upper, _mm256_setzero_si256());
    if _mm256_movemask_pd(_mm256_castsi256_pd(fits)) != 15 || !(1..=62).contains(&rescale.shift) {
        return requantize_panel_portably(sums, scales, rescale);
    }
    let both = _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd));
    store(_mm256_xor_si256(both, _mm256_set1_epi32(i32::MIN)))
}

/// Requantizes and stores a block of eight rows, given sums and mantissas (below 2^16). The shift
/// is from 1 to 62.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn requantize_block(
    matrix: &Tensor<'_>,
    first: usize,
    sums: __m256i,
    mantissas: __m256i,
    rescale: &Rescale,
    out: &mut [i32],
) {
    let biases = block_biases(matrix, first);
    put(requantize_eight(sums, mantissas, biases, rescale), first, out);
}

/// Requantizes the sums of eight rows, given mantissas (below 2^16) and biases. The shift is from 1
/// to 62.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn requantize_eight(
    sums: __m256i,
    mantissas: __m256i,
    biases: __m256i,
    rescale: &Rescale,
) -> __m256i {
    let even = round_half(sums, mantissas, rescale);
    let odd = _mm256_srli_epi64::<32>(mantissas);
    let odd = round_half(_mm256_srli_epi64::<32>(sums), odd, rescale);
    let upper = _mm256_srli_epi64::<32>(_mm256_or_si256(even, odd));
    if _mm256_testz_si256(upper, upper) == 0 {
        return requantize_eight_portably([sums, mantissas, biases], rescale);
    }
    let both = _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd));
    let rounded = _mm256_xor_si256(both, _mm256_set1_epi32(i32::MIN));
    add_saturating(rounded, biases)
}

#[cold]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn requantize_eight_portably(
    [sums, mantissas, biases]: [__m256i; 3],
    rescale: &Rescale,
) -> __m256i {
    let (sums, mantissas, biases) = (store(sums), store(mantissas), store(biases));
    let values: [i32; ROWS] = core::array::from_fn(|j| {
        Portable::requantize(sums[j], mantissas[j] as i64, biases[j], rescale)
    });
    load(&values)
}

/// Mantissas of eight rows, whose scales are `row_scales` bytes apart.
///
/// # Safety
///
/// Two bytes are readable at each of eight multiples of `row_scales`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn mantissas(scales: *const u8, row_scales: usize) -> __m256i {
    let mut lanes = _mm_setzero_si128();
    macro_rules! insert {
        ($($j:literal)*) => {$(
            // SAFETY: as the caller says; the read needs no alignment.
            let mantissa = unsafe { scales.add($j * row_scales).cast::<u16>().read_unaligned() };
            lanes = _mm_insert_epi16::<$j>(lanes, mantissa as i32);
        )*};
    }
    insert!(0 1 2 3 4 5 6 7);
    _mm256_cvtepu16_epi32(lanes)
}

/// Biases of a block in Q15.16.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn block_biases(matrix: &Tensor<'_>, first: usize) -> __m256i {
    let bytes = matrix.biases.get(2 * first..).and_then(|biases| biases.first_chunk::<16>());
    let Some(bytes) = bytes else { return _mm256_setzero_si256() };
    // SAFETY: the 16 bytes of the array are readable, and the load needs no alignment.
    let biases = _mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
    let shift = _mm_cvtsi32_si128((RESIDUAL_FRAC - matrix.bias_exponent) as i32);
    _mm256_sll_epi32(biases, shift)
}

/// Requantizes the sums of all rows in place; each row has `row_scales` bytes of scales. A pass of
/// its own: after the products of a few rows it would wait for them and delay the next ones.
#[target_feature(enable = "avx2")]
pub(super) fn requantize_rows(
    matrix: &Tensor<'_>,
    row_scales: usize,
    requantizer: &Requantizer,
    rescale: &Rescale,
    out: &mut [i32],
) {
    let (blocks, rest) = out.as_chunks_mut::<ROWS>();
    assert!(matrix.scales.len() >= blocks.len() * ROWS * row_scales && row_scales >= 4);
    let mut first = 0;
    for block in blocks.iter_mut() {
        // SAFETY: by the assertion a row's scales are four bytes or more, and those of eight rows
        // are there.
        let mantissas =
            unsafe { eight_words(matrix.scales.as_ptr().add(first * row_scales), row_scales) };
        let mantissas = _mm256_and_si256(mantissas, _mm256_set1_epi32(0xffff));
        let (sums, biases) = (load(block), block_biases(matrix, first));
        let values = if requantizer.fits() {
            requantizer.requantize(sums, mantissas, biases)
        } else {
            requantize_eight(sums, mantissas, biases, rescale)
        };
        *block = store(values);
        first += ROWS;
    }
    for (r, out) in (first..).zip(rest) {
        let mantissa = pair_u16(&matrix.scales[r * row_scales..], 0);
        *out = Portable::requantize(*out, mantissa as i64, portable::bias(matrix, r), rescale);
    }
}

/// Outputs plus 2^31 in 64-bit lanes, and lanes whose high halves are 0 if neither the output nor
/// the product before the bias exceeds `i32`.
#[inline]
#[target_feature(enable = "avx2")]
fn biased_half(
    sums: __m256i,
    mantissas: &[i64; ROWS / 2],
    biases: &[i64; ROWS / 2],
    rescale: &Rescale,
) -> (__m256i, __m256i) {
    let rounded = round_half(sums, load_wide(mantissas), rescale);
    let biased = _mm256_add_epi64(rounded, load_wide(biases));
    (biased, _mm256_or_si256(rounded, biased))
}

/// Rounded and shifted products plus 2^31, of the low halves of 64-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn round_half(sums: __m256i, mantissas: __m256i, rescale: &Rescale) -> __m256i {
    // Below 2^16 · 2^15: not negative as 32 bits.
    let multipliers = _mm256_mul_epu32(mantissas, _mm256_set1_epi64x(rescale.mantissa));
    let products = _mm256_mul_epi32(sums, multipliers);
    // There is no arithmetic shift of 64 bits: shift lanes offset by 2^63, then change the offset
    // to 2^31, so that numbers within `i32` have zero high halves.
    let raised = _mm256_add_epi64(products, _mm256_set1_epi64x(rescale.raise));
    let shifted = _mm256_srlv_epi64(raised, _mm256_set1_epi64x(rescale.shift));
    _mm256_sub_epi64(shifted, _mm256_set1_epi64x(rescale.lower))
}

#[cold]
#[target_feature(enable = "avx2")]
fn requantize_panel_portably(sums: __m256i, scales: &Scales, rescale: &Rescale) -> [i32; ROWS] {
    Portable::requantize_panel(store(sums), scales, rescale)
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_wide(values: &[i64; ROWS / 2]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// `f32_to_residual` for finite numbers: the truncated fraction is exact, and so is its double,
/// which truncates to 0 or ±1. Sums of finite halves times a finite scale are never NaN.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn to_residual(values: __m256) -> __m256i {
    let limit = _mm256_set1_ps(-(i32::MIN as f32));
    let scaled = _mm256_mul_ps(values, _mm256_set1_ps(65536.0));
    let scaled = _mm256_max_ps(scaled, _mm256_sub_ps(_mm256_setzero_ps(), limit));
    let whole = _mm256_cvttps_epi32(scaled);
    let rest = _mm256_sub_ps(scaled, _mm256_cvtepi32_ps(whole));
    let rounded = _mm256_add_epi32(whole, _mm256_cvttps_epi32(_mm256_add_ps(rest, rest)));
    let beyond = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_GE_OQ>(scaled, limit));
    _mm256_blendv_epi8(rounded, _mm256_set1_epi32(i32::MAX), beyond)
}

/// See [`crate::kernels::dispatch::to_halves`]: both conversions round to nearest even.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn to_halves(values: &[i32], halves: &mut [f16]) {
    for (values, halves) in values.chunks(ROWS).zip(halves.chunks_mut(ROWS)) {
        let Some(eight) = values.first_chunk::<ROWS>() else {
            return portable::to_halves(values, halves);
        };
        let lanes = load(eight);
        let unit = _mm256_set1_ps(1.0 / (1u32 << RESIDUAL_FRAC) as f32);
        let floats = _mm256_mul_ps(_mm256_cvtepi32_ps(lanes), unit);
        let converted = _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(floats);
        let halves = &mut halves[..ROWS];
        // SAFETY: the slice has as many bytes as are written, and the store needs no alignment.
        unsafe { _mm_storeu_si128(halves.as_mut_ptr().cast(), converted) };
    }
}
