//! Registers of 256 bits: loads, stores and rearrangements that the kernels with AVX2 share.

use core::arch::x86_64::*;

use crate::kernels::batched::ROWS;

/// Loads eight elements of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load<T: bytemuck::NoUninit>(half: &[T; ROWS]) -> __m256i {
    const { assert!(size_of::<[T; ROWS]>() == 32) };
    // SAFETY: the array has as many bytes as are read, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(half.as_ptr().cast()) }
}

/// Stores eight elements of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn set<T: bytemuck::Pod>(half: &mut [T; ROWS], lanes: __m256i) {
    const { assert!(size_of::<[T; ROWS]>() == 32) };
    // SAFETY: the array has as many bytes as are written, all of which it may hold; the store asks
    // for no alignment.
    unsafe { _mm256_storeu_si256(half.as_mut_ptr().cast(), lanes) };
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_i16(block: &[i16; 16]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_bytes(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load needs no alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store(lanes: __m256i) -> [i32; ROWS] {
    let mut values = [0; ROWS];
    // SAFETY: the 32 bytes of the array are writable, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), lanes) };
    values
}

/// Elements padded with zeros.
#[inline(always)]
pub(super) fn padded<T: Copy + Default, const N: usize>(rest: &[T]) -> [T; N] {
    let mut padded = [T::default(); N];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

/// Four bytes of each of four rows, `row_scales` apart.
///
/// # Safety
///
/// Four bytes are readable at each of four multiples of `row_scales`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn four_words(scales: *const u8, row_scales: usize) -> __m128i {
    // SAFETY: as the caller says; no read needs alignment.
    unsafe {
        let first = _mm_cvtsi32_si128(scales.cast::<i32>().read_unaligned());
        let two = scales.add(row_scales).cast::<i32>().read_unaligned();
        let three = scales.add(2 * row_scales).cast::<i32>().read_unaligned();
        let four = scales.add(3 * row_scales).cast::<i32>().read_unaligned();
        let words = _mm_insert_epi32::<2>(_mm_insert_epi32::<1>(first, two), three);
        _mm_insert_epi32::<3>(words, four)
    }
}

/// Four bytes of each of eight rows, `row_scales` apart.
///
/// # Safety
///
/// Four bytes are readable at each of eight multiples of `row_scales`.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn eight_words(scales: *const u8, row_scales: usize) -> __m256i {
    if row_scales == 4 {
        // SAFETY: as the caller says: those of the eight are next to each other; no read needs
        // alignment.
        return unsafe { _mm256_loadu_si256(scales.cast()) };
    }
    // SAFETY: as the caller says.
    let (low, high) = unsafe {
        (four_words(scales, row_scales), four_words(scales.add(4 * row_scales), row_scales))
    };
    _mm256_set_m128i(high, low)
}

/// Stores the outputs of eight rows.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn put(values: __m256i, first: usize, out: &mut [i32]) {
    out[first..][..ROWS].copy_from_slice(&store(values));
}

/// Stores the numbers of four rows from each of two rows on.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn put_four(values: __m256i, a: usize, b: usize, out: &mut [i32]) {
    let low = &mut out[a..][..ROWS / 2];
    // SAFETY: the slice has the 16 bytes that are written, and the store needs no alignment.
    unsafe { _mm_storeu_si128(low.as_mut_ptr().cast(), _mm256_castsi256_si128(values)) };
    let high = &mut out[b..][..ROWS / 2];
    // SAFETY: as above.
    unsafe { _mm_storeu_si128(high.as_mut_ptr().cast(), _mm256_extracti128_si256::<1>(values)) };
}

/// Transposes words of four registers: element s has words s of the four, and words s + 4 in its
/// high half.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn fours([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let [ab, cd] =
        [(a, b), (c, d)].map(|(a, b)| [_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)]);
    [
        _mm256_unpacklo_epi64(ab[0], cd[0]),
        _mm256_unpackhi_epi64(ab[0], cd[0]),
        _mm256_unpacklo_epi64(ab[1], cd[1]),
        _mm256_unpackhi_epi64(ab[1], cd[1]),
    ]
}

/// Transposes eight rows of eight 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transpose([r0, r1, r2, r3, r4, r5, r6, r7]: [__m256i; ROWS]) -> [__m256i; ROWS] {
    // Columns 0 and 1, or 2 and 3, of rows a and b, and the columns four further; then of four
    // rows.
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

/// For four rows: sums of the low four lanes, then of the high four.
#[inline]
#[target_feature(enable = "avx2")]
fn join_four([a, b, c, d]: [__m256i; 4]) -> __m256i {
    let ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
}

/// Sums of the lanes of eight rows, in the contract's order: ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)).
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn sum_lanes([s0, s1, s2, s3, s4, s5, s6, s7]: [__m256; ROWS]) -> __m256 {
    // Lanes 0 to 3 plus lanes 4 to 7: row a's four, then row b's.
    let [p0, p1, p2, p3] = [[s0, s4], [s1, s5], [s2, s6], [s3, s7]].map(|[a, b]| {
        let low = _mm256_permute2f128_ps::<0x20>(a, b);
        _mm256_add_ps(low, _mm256_permute2f128_ps::<0x31>(a, b))
    });
    // For four rows (l0+l4)+(l2+l6) and (l1+l5)+(l3+l7).
    let [q0, q1] = [[p0, p1], [p2, p3]].map(|[a, b]| {
        let [a, b] = [_mm256_castps_pd(a), _mm256_castps_pd(b)];
        let low = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
        _mm256_add_ps(low, _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)))
    });
    _mm256_add_ps(_mm256_shuffle_ps::<0x88>(q0, q1), _mm256_shuffle_ps::<0xdd>(q0, q1))
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn add_saturating(a: __m256i, b: __m256i) -> __m256i {
    let sum = _mm256_add_epi32(a, b);
    // Overflow: the sum's sign differs from both.
    let overflow = _mm256_and_si256(_mm256_xor_si256(a, sum), _mm256_xor_si256(b, sum));
    let limit = _mm256_xor_si256(_mm256_srai_epi32::<31>(a), _mm256_set1_epi32(i32::MAX));
    let [sum, limit, overflow] = [sum, limit, overflow].map(|v| _mm256_castsi256_ps(v));
    _mm256_castps_si256(_mm256_blendv_ps(sum, limit, overflow))
}
