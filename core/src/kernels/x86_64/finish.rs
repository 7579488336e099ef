//! From sums to outputs with AVX2, eight rows at a time.

use core::arch::x86_64::*;

use half::f16;

use super::tile::Finish;
use crate::blob::{Tensor, pair_u16};
use crate::kernels::batched::{Plain, ROWS, Rescale, Scales};
use crate::kernels::portable;

use crate::numeric::RESIDUAL_FRAC;

/// `shift_round` and a saturating addition for a panel's sums. The products are below 2^62 in magnitude,
/// so that adding half of what is shifted out cannot overflow 64 bits; what leaves the range of `i32`,
/// and shifts beyond 1 to 62, are left to the plain way.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn finish(sums: __m256i, scales: &Scales, rescale: &Rescale) -> [i32; ROWS] {
    // Of rows 0, 2, 4, 6 the sums are the lower halves of lanes of 64 bits, of the others the upper.
    let (even, even_fits) = finish_half(sums, &scales.mantissas[0], &scales.biases[0], rescale);
    let odd = _mm256_srli_epi64::<32>(sums);
    let (odd, odd_fits) = finish_half(odd, &scales.mantissas[1], &scales.biases[1], rescale);
    let upper = _mm256_srli_epi64::<32>(_mm256_or_si256(even_fits, odd_fits));
    let fits = _mm256_cmpeq_epi64(upper, _mm256_setzero_si256());
    if _mm256_movemask_pd(_mm256_castsi256_pd(fits)) != 15 || !(1..=62).contains(&rescale.shift) {
        return plain_finish(sums, scales, rescale);
    }
    let both = _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd));
    store(_mm256_xor_si256(both, _mm256_set1_epi32(i32::MIN)))
}

/// Puts the outputs of a block from the sums and the mantissas (below 2^16) of its rows: as [`finish`] for
/// what does not come again. The shift is from 1 to 62.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn finish_block(
    matrix: &Tensor<'_>,
    first: usize,
    sums: __m256i,
    mantissas: __m256i,
    rescale: &Rescale,
    out: &mut [i32],
) {
    let biases = block_biases(matrix, first);
    put(finish_eight(sums, mantissas, biases, rescale), first, out);
}

/// Outputs from sums, mantissas (below 2^16) and biases of eight rows. The shift is from 1 to 62.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn finish_eight(
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
        return plain_finish_eight([sums, mantissas, biases], rescale);
    }
    let both = _mm256_blend_epi32::<0b1010_1010>(even, _mm256_slli_epi64::<32>(odd));
    let rounded = _mm256_xor_si256(both, _mm256_set1_epi32(i32::MIN));
    add_saturating(rounded, biases)
}

#[cold]
#[inline(never)]
#[target_feature(enable = "avx2")]
fn plain_finish_eight([sums, mantissas, biases]: [__m256i; 3], rescale: &Rescale) -> __m256i {
    let (sums, mantissas, biases) = (store(sums), store(mantissas), store(biases));
    let values: [i32; ROWS] =
        core::array::from_fn(|j| Plain::output(sums[j], mantissas[j] as i64, biases[j], rescale));
    load_values(&values)
}

/// Mantissas of eight rows, whose scales are `row_scales` bytes apart.
///
/// # Safety
///
/// Two bytes are readable at each of the eight.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn mantissas(scales: *const u8, row_scales: usize) -> __m256i {
    let mut lanes = _mm_setzero_si128();
    macro_rules! insert {
        ($($j:literal)*) => {$(
            // SAFETY: as the caller says; the read asks for no alignment.
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
    // SAFETY: the 16 bytes of the array are readable, and the load asks for no alignment.
    let biases = _mm256_cvtepi16_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) });
    let shift = _mm_cvtsi32_si128((RESIDUAL_FRAC - matrix.bias_exponent) as i32);
    _mm256_sll_epi32(biases, shift)
}

/// Turns the sums of all rows, each of `row_scales` bytes of scales, into outputs. In a pass of its own, for
/// behind the products of a few rows it would wait for them and hold up those that follow.
#[target_feature(enable = "avx2")]
pub(super) fn finish_rows(
    matrix: &Tensor<'_>,
    row_scales: usize,
    finish: &Finish,
    rescale: &Rescale,
    out: &mut [i32],
) {
    let (blocks, rest) = out.as_chunks_mut::<ROWS>();
    assert!(matrix.scales.len() >= blocks.len() * ROWS * row_scales && row_scales >= 4);
    let mut first = 0;
    for block in blocks.iter_mut() {
        // SAFETY: by the assertion a row's scales are four bytes or more, and those of eight rows are there.
        let mantissas =
            unsafe { eight_words(matrix.scales.as_ptr().add(first * row_scales), row_scales) };
        let mantissas = _mm256_and_si256(mantissas, _mm256_set1_epi32(0xffff));
        let (sums, biases) = (load_values(block), block_biases(matrix, first));
        let values = if finish.narrows() {
            finish.narrow(sums, mantissas, biases)
        } else {
            finish_eight(sums, mantissas, biases, rescale)
        };
        *block = store(values);
        first += ROWS;
    }
    for (r, out) in (first..).zip(rest) {
        let mantissa = pair_u16(&matrix.scales[r * row_scales..], 0);
        *out = Plain::output(*out, mantissa as i64, portable::bias(matrix, r), rescale);
    }
}

/// Four bytes of each of eight rows.
///
/// # Safety
///
/// They are readable at each of eight multiples of `row_scales`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn eight_words(scales: *const u8, row_scales: usize) -> __m256i {
    if row_scales == 4 {
        // SAFETY: as the caller says: those of the eight are next to each other; no read asks for alignment.
        return unsafe { _mm256_loadu_si256(scales.cast()) };
    }
    // SAFETY: as the caller says.
    let (low, high) = unsafe {
        (four_words(scales, row_scales), four_words(scales.add(4 * row_scales), row_scales))
    };
    _mm256_set_m128i(high, low)
}

/// Four bytes of each of four rows.
///
/// # Safety
///
/// They are readable at each of four multiples of `row_scales`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn four_words(scales: *const u8, row_scales: usize) -> __m128i {
    // SAFETY: as the caller says; no read asks for alignment.
    unsafe {
        let first = _mm_cvtsi32_si128(scales.cast::<i32>().read_unaligned());
        let two = scales.add(row_scales).cast::<i32>().read_unaligned();
        let three = scales.add(2 * row_scales).cast::<i32>().read_unaligned();
        let four = scales.add(3 * row_scales).cast::<i32>().read_unaligned();
        let words = _mm_insert_epi32::<2>(_mm_insert_epi32::<1>(first, two), three);
        _mm_insert_epi32::<3>(words, four)
    }
}

/// Puts numbers of four rows from each of two places on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn put_four(values: __m256i, a: usize, b: usize, out: &mut [i32]) {
    let low = &mut out[a..][..ROWS / 2];
    // SAFETY: the slice has the 16 bytes that are written, and the store asks for no alignment.
    unsafe { _mm_storeu_si128(low.as_mut_ptr().cast(), _mm256_castsi256_si128(values)) };
    let high = &mut out[b..][..ROWS / 2];
    // SAFETY: as above.
    unsafe { _mm_storeu_si128(high.as_mut_ptr().cast(), _mm256_extracti128_si256::<1>(values)) };
}

/// Puts the outputs of a block where they belong.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn put(values: __m256i, first: usize, out: &mut [i32]) {
    out[first..][..ROWS].copy_from_slice(&store(values));
}

/// Sums of the lanes of eight rows.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn join(low: [__m256i; 4], high: [__m256i; 4]) -> __m256i {
    let (low, high) = (join_four(low), join_four(high));
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(low, high),
        _mm256_permute2x128_si256::<0x31>(low, high),
    )
}

/// As [`join`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn join_eight([a, b, c, d, e, f, g, h]: [__m256i; ROWS]) -> __m256i {
    join([a, b, c, d], [e, f, g, h])
}

/// Of four rows: sums of the lower four lanes, then of the upper.
#[inline]
#[target_feature(enable = "avx2")]
fn join_four([a, b, c, d]: [__m256i; 4]) -> __m256i {
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
}

/// What there is, then zeros.
#[inline(always)]
pub(super) fn padded<T: Copy + Default, const N: usize>(rest: &[T]) -> [T; N] {
    let mut padded = [T::default(); N];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

/// Outputs plus 2^31 in lanes of 64 bits, and lanes whose upper halves are 0 where neither they nor the
/// products before the bias leave the range of `i32`.
#[inline]
#[target_feature(enable = "avx2")]
fn finish_half(
    sums: __m256i,
    mantissas: &[i64; ROWS / 2],
    biases: &[i64; ROWS / 2],
    rescale: &Rescale,
) -> (__m256i, __m256i) {
    let rounded = round_half(sums, load_wide(mantissas), rescale);
    let biased = _mm256_add_epi64(rounded, load_wide(biases));
    (biased, _mm256_or_si256(rounded, biased))
}

/// Products shifted and rounded, plus 2^31, of the lower halves of lanes of 64 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn round_half(sums: __m256i, mantissas: __m256i, rescale: &Rescale) -> __m256i {
    // Below 2^16 · 2^15: not negative as 32 bits.
    let multipliers = _mm256_mul_epu32(mantissas, _mm256_set1_epi64x(rescale.mantissa));
    let products = _mm256_mul_epi32(sums, multipliers);
    // There is no arithmetic shift of 64 bits: shift what is offset by 2^63, then change that offset
    // for one of 2^31, with which the range of i32 is what has no upper 32 bits.
    let raised = _mm256_add_epi64(products, _mm256_set1_epi64x(rescale.raise));
    let shifted = _mm256_srlv_epi64(raised, _mm256_set1_epi64x(rescale.shift));
    _mm256_sub_epi64(shifted, _mm256_set1_epi64x(rescale.lower))
}

#[cold]
#[target_feature(enable = "avx2")]
fn plain_finish(sums: __m256i, scales: &Scales, rescale: &Rescale) -> [i32; ROWS] {
    Plain::finish(store(sums), scales, rescale)
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(lanes: __m256i) -> [i32; ROWS] {
    let mut values = [0; ROWS];
    // SAFETY: the 32 bytes of the array are writable, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), lanes) };
    values
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_values(values: &[i32; ROWS]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(block: &[i16; 16]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_wide(values: &[i64; ROWS / 2]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// The lanes of eight rows, each in the contract's order: ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)).
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_lanes([s0, s1, s2, s3, s4, s5, s6, s7]: [__m256; ROWS]) -> __m256 {
    // Lanes 0 to 3 plus lanes 4 to 7: row a's four, then row b's.
    let [p0, p1, p2, p3] = [[s0, s4], [s1, s5], [s2, s6], [s3, s7]].map(|[a, b]| {
        let low = _mm256_permute2f128_ps::<0x20>(a, b);
        _mm256_add_ps(low, _mm256_permute2f128_ps::<0x31>(a, b))
    });
    // Of four rows (l0+l4)+(l2+l6) and (l1+l5)+(l3+l7).
    let [q0, q1] = [[p0, p1], [p2, p3]].map(|[a, b]| {
        let [a, b] = [_mm256_castps_pd(a), _mm256_castps_pd(b)];
        let low = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
        _mm256_add_ps(low, _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)))
    });
    _mm256_add_ps(_mm256_shuffle_ps::<0x88>(q0, q1), _mm256_shuffle_ps::<0xdd>(q0, q1))
}

/// `f32_to_residual` of numbers: what is cut off is exact, and so is its double, which is cut to 0 or to
/// one away from zero. Sums of finite halves times a finite scale are never NaN.
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

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_saturating(a: __m256i, b: __m256i) -> __m256i {
    let sum = _mm256_add_epi32(a, b);
    // Overflow is where the sum's sign differs from both.
    let overflow = _mm256_and_si256(_mm256_xor_si256(a, sum), _mm256_xor_si256(b, sum));
    let limit = _mm256_xor_si256(_mm256_srai_epi32::<31>(a), _mm256_set1_epi32(i32::MAX));
    let [sum, limit, overflow] = [sum, limit, overflow].map(|v| _mm256_castsi256_ps(v));
    _mm256_castps_si256(_mm256_blendv_ps(sum, limit, overflow))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_bytes(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Rows of eight lanes of 32 bits to columns.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transpose([r0, r1, r2, r3, r4, r5, r6, r7]: [__m256i; ROWS]) -> [__m256i; ROWS] {
    // Of rows a and b columns 0, 1 or 2, 3, with the columns four further beside them; then of four rows.
    let twos = [[r0, r1], [r2, r3], [r4, r5], [r6, r7]];
    let low = twos.map(|[a, b]| _mm256_unpacklo_epi32(a, b));
    let high = twos.map(|[a, b]| _mm256_unpackhi_epi32(a, b));
    let [[p0, p1], [p2, p3]] = [low, high].map(|[a, b, c, d]| {
        let even = [_mm256_unpacklo_epi64(a, b), _mm256_unpacklo_epi64(c, d)];
        [even, [_mm256_unpackhi_epi64(a, b), _mm256_unpackhi_epi64(c, d)]]
    });
    let fours = [p0, p1, p2, p3];
    let [c0, c1, c2, c3] = fours.map(|[a, b]| _mm256_permute2x128_si256::<0x20>(a, b));
    let [c4, c5, c6, c7] = fours.map(|[a, b]| _mm256_permute2x128_si256::<0x31>(a, b));
    [c0, c1, c2, c3, c4, c5, c6, c7]
}

/// See [`crate::kernels::to_halves`]: both conversions round to nearest even.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn to_halves(values: &[i32], halves: &mut [f16]) {
    for (values, halves) in values.chunks(ROWS).zip(halves.chunks_mut(ROWS)) {
        let Some(eight) = values.first_chunk::<ROWS>() else {
            return portable::to_halves(values, halves);
        };
        // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
        let lanes = unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) };
        let unit = _mm256_set1_ps(1.0 / (1u32 << RESIDUAL_FRAC) as f32);
        let floats = _mm256_mul_ps(_mm256_cvtepi32_ps(lanes), unit);
        let converted = _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(floats);
        let halves = &mut halves[..ROWS];
        // SAFETY: the slice has as many bytes as are written, and the store asks for no alignment.
        unsafe { _mm_storeu_si128(halves.as_mut_ptr().cast(), converted) };
    }
}
