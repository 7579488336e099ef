//! The batched kernels with AVX2, chosen at run time.
//!
//! Integer sums are exact in any order. An FP16 weight (11 bits) times a code (8 bits) is exact in
//! f32, so a fused multiply-add rounds once where the contract rounds once, and register lane j is
//! the contract's lane j.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::Vectors;
use super::batched::{self, Eight, LONGEST, PANEL, Pair, Plain, Products, ROWS, Rescale, Scales};
use super::portable::{LANES, for_each_plane, group_scale};
use crate::blob::{Plane, Tensor};

/// Multiplies where the processor has AVX2; says whether it did.
#[inline]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let Some(avx2) = Avx2::detect() else { return false };
    // SAFETY: an `Avx2` exists only where the processor has the instructions.
    unsafe { matmul_avx2(avx2, matrix, x, out) };
    true
}

/// See [`super::wide`].
#[inline(always)]
pub(super) fn wide<R>(loops: impl FnOnce() -> R) -> R {
    if Avx2::detect().is_none() {
        return loops();
    }
    // SAFETY: the only requirement of `with_avx2` is the instruction set, checked just above.
    unsafe { with_avx2(loops) }
}

#[target_feature(enable = "avx2,lzcnt,bmi1,bmi2")]
fn with_avx2<R>(loops: impl FnOnce() -> R) -> R {
    loops()
}

/// Compiled as a whole for the instruction set, so that decoding profits too.
#[target_feature(enable = "avx2,fma")]
fn matmul_avx2(avx2: Avx2, matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    batched::matmul(avx2, matrix, x, out);
}

/// Proof that this processor has AVX2 and what came with it: FMA, LZCNT, BMI.
#[derive(Clone, Copy)]
struct Avx2(());

impl Avx2 {
    #[inline(always)]
    fn detect() -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("lzcnt")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2");
        found.then_some(Self(()))
    }
}

impl Products for Avx2 {
    #[inline(always)]
    fn decode(self, matrix: &Tensor<'_>, scales: &[u8], row: &[u8], weights: &mut [i16]) {
        // SAFETY: `self` is proof of the instruction set.
        unsafe { decode(matrix, scales, row, weights) }
    }

    #[inline(always)]
    fn integer(
        self,
        panel: &[Pair],
        codes: &[i16],
        cols: usize,
        scales: &[Scales; 2],
        rescales: &[Rescale],
        put: impl FnMut(usize, [[i32; ROWS]; 2]),
    ) {
        // SAFETY: `self` is proof of the instruction set.
        unsafe { integer(panel, codes, cols, scales, rescales, put) }
    }

    #[inline(always)]
    fn halves(
        self,
        panel: &[Eight],
        codes: &[i16],
        cols: usize,
        biases: &[i32; ROWS],
        units: &[f32],
        put: impl FnMut(usize, [i32; ROWS]),
    ) {
        // SAFETY: `self` is proof of the instruction set.
        unsafe { halves(panel, codes, cols, biases, units, put) }
    }

    #[inline(always)]
    fn interleave(self, rows: &[[i16; LONGEST]; PANEL], panel: &mut [Pair]) {
        // SAFETY: `self` is proof of the instruction set.
        unsafe { interleave(rows, panel) }
    }
}

/// Groups of 16, 32 or 64 inputs that divide the row; others take the plain way.
#[inline]
#[target_feature(enable = "avx2")]
fn decode(matrix: &Tensor<'_>, scales: &[u8], row: &[u8], weights: &mut [i16]) {
    let group = matrix.group;
    if !matches!(group, 16 | 32 | 64) || !matrix.cols.is_multiple_of(group) {
        return batched::decode(matrix, scales, row, weights);
    }
    for_each_plane(matrix, row, |plane, packed| match (plane.bits, plane.bytes(group)) {
        (4, 8) => decode_plane::<4, 8>(plane, scales, packed, weights),
        (4, 16) => decode_plane::<4, 16>(plane, scales, packed, weights),
        (4, _) => decode_plane::<4, 32>(plane, scales, packed, weights),
        (2, 4) => decode_plane::<2, 4>(plane, scales, packed, weights),
        (2, 8) => decode_plane::<2, 8>(plane, scales, packed, weights),
        (2, _) => decode_plane::<2, 16>(plane, scales, packed, weights),
        (_, 2) => decode_plane::<1, 2>(plane, scales, packed, weights),
        (_, 4) => decode_plane::<1, 4>(plane, scales, packed, weights),
        (_, _) => decode_plane::<1, 8>(plane, scales, packed, weights),
    });
}

/// A plane with `BYTES` bytes per group: sixteen inputs are a part of a lane or several lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn decode_plane<const BITS: usize, const BYTES: usize>(
    plane: &Plane,
    scales: &[u8],
    packed: &[u8],
    weights: &mut [i16],
) {
    let first = load(const { &lifts::<BITS, BYTES>() });
    let groups = packed.as_chunks::<BYTES>().0.iter();
    for (g, (bytes, weights)) in groups.zip(weights.chunks_exact_mut(BYTES * 8 / BITS)).enumerate()
    {
        let scale = (group_scale(scales, g) << plane.shift) as i16;
        for (t, weights) in weights.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let mut sixteen = [0; 16];
            for (j, byte) in sixteen.iter_mut().enumerate() {
                // A group has an even number of bytes.
                *byte = bytes[(16 * t + j) % BYTES] ^ plane.offsets[j % 2];
            }
            // Later lanes lie higher by the bits of those that went before.
            let before = _mm_cvtsi32_si128((16 * t / BYTES * BITS) as i32);
            let top = _mm256_mullo_epi16(load_bytes(&sixteen), _mm256_srl_epi16(first, before));
            put_fields::<BITS>(plane, top, scale, weights);
        }
    }
}

/// What lifts lane by lane of `BYTES` inputs to the top of 16 bits.
const fn lifts<const BITS: usize, const BYTES: usize>() -> [i16; 16] {
    let mut lifts = [0; 16];
    let mut j = 0;
    while j < 16 {
        lifts[j] = (1u16 << (16 - BITS - j / BYTES * BITS)) as i16;
        j += 1;
    }
    lifts
}

/// Takes the upper `BITS` of 16 bits, signed or not, times the scale: the first plane of a row sets the
/// weights, a lower one adds to them.
#[inline]
#[target_feature(enable = "avx2")]
fn put_fields<const BITS: usize>(plane: &Plane, top: __m256i, scale: i16, weights: &mut [i16; 16]) {
    let drop = _mm_cvtsi32_si128(16 - BITS as i32);
    let scale = _mm256_set1_epi16(scale);
    let value = if plane.signed {
        _mm256_mullo_epi16(_mm256_sra_epi16(top, drop), scale)
    } else {
        _mm256_add_epi16(load(weights), _mm256_mullo_epi16(_mm256_srl_epi16(top, drop), scale))
    };
    // SAFETY: the 32 bytes of the array are writable, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(weights.as_mut_ptr().cast(), value) };
}

/// Bytes as 16 bits each.
#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: the 16 bytes of the array are readable, and the load asks for no alignment.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Eight pairs of eight rows at a time: a transposition of 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn interleave(rows: &[[i16; LONGEST]; PANEL], panel: &mut [Pair]) {
    for (half, rows) in rows.as_chunks::<ROWS>().0.iter().enumerate() {
        for (c, pairs) in panel.chunks_mut(ROWS).enumerate() {
            let rows = rows.each_ref().map(|row| load(&row.as_chunks().0[c]));
            for (pair, lanes) in pairs.iter_mut().zip(transpose(rows)) {
                // SAFETY: the 32 bytes of the array are writable, and the store asks for no alignment.
                unsafe { _mm256_storeu_si256(pair[half].as_mut_ptr().cast(), lanes) };
            }
        }
    }
}

/// Rows of eight lanes of 32 bits to columns.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose([r0, r1, r2, r3, r4, r5, r6, r7]: [__m256i; ROWS]) -> [__m256i; ROWS] {
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

/// Four vectors at a time share what is loaded of the panel. Weights are below 2^9 and codes below 2^8
/// in magnitude, and at most 1024 columns are summed: 2^27.
#[inline]
#[target_feature(enable = "avx2")]
fn integer(
    panel: &[Pair],
    codes: &[i16],
    cols: usize,
    scales: &[Scales; 2],
    rescales: &[Rescale],
    mut put: impl FnMut(usize, [[i32; ROWS]; 2]),
) {
    for (first, rescales) in rescales.chunks(4).enumerate().map(|(q, r)| (4 * q, r)) {
        // The last vector of a batch takes empty places.
        let vector = |j: usize| &codes[(first + j.min(rescales.len() - 1)) * cols..][..cols];
        let [x0, x1, x2, x3] = [vector(0), vector(1), vector(2), vector(3)];
        let mut sums = [[_mm256_setzero_si256(); 2]; 4];
        let pairs = x0.as_chunks::<2>().0.iter().zip(x1.as_chunks::<2>().0);
        let pairs = pairs.zip(x2.as_chunks::<2>().0).zip(x3.as_chunks::<2>().0);
        for (pair, (((x0, x1), x2), x3)) in panel.iter().zip(pairs) {
            let weights = [load(&pair[0]), load(&pair[1])];
            sums[0] = add(sums[0], weights, *x0);
            sums[1] = add(sums[1], weights, *x1);
            sums[2] = add(sums[2], weights, *x2);
            sums[3] = add(sums[3], weights, *x3);
        }
        if cols % 2 == 1 {
            let [low, high] = &panel[cols / 2];
            let weights = [load(low), load(high)];
            for (sums, x) in sums.iter_mut().zip([x0, x1, x2, x3]) {
                *sums = add(*sums, weights, [x[cols - 1], 0]);
            }
        }
        for ((b, [low, high]), rescale) in sums.into_iter().enumerate().zip(rescales) {
            put(first + b, [finish(low, &scales[0], rescale), finish(high, &scales[1], rescale)]);
        }
    }
}

/// Adds two columns' products to the sums of a panel.
#[inline]
#[target_feature(enable = "avx2")]
fn add(
    [low, high]: [__m256i; 2],
    weights: [__m256i; 2],
    [first, second]: [i16; 2],
) -> [__m256i; 2] {
    let codes = _mm256_set1_epi32((first as u16 as u32 | (second as u16 as u32) << 16) as i32);
    [
        _mm256_add_epi32(low, _mm256_madd_epi16(weights[0], codes)),
        _mm256_add_epi32(high, _mm256_madd_epi16(weights[1], codes)),
    ]
}

/// `shift_round` and a saturating addition for a panel's sums. The products are below 2^62 in magnitude,
/// so that adding half of what is shifted out cannot overflow 64 bits; what leaves the range of `i32`,
/// and shifts beyond 1 to 62, are left to the plain way.
#[inline]
#[target_feature(enable = "avx2")]
fn finish(sums: __m256i, scales: &Scales, rescale: &Rescale) -> [i32; ROWS] {
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
    // Below 2^16 · 2^15: not negative as 32 bits.
    let multipliers = _mm256_mul_epu32(load_wide(mantissas), _mm256_set1_epi64x(rescale.mantissa));
    let products = _mm256_mul_epi32(sums, multipliers);
    // There is no arithmetic shift of 64 bits: shift what is offset by 2^63, then change that offset
    // for one of 2^31, with which the range of i32 is what has no upper 32 bits.
    let raised = _mm256_add_epi64(products, _mm256_set1_epi64x(rescale.raise));
    let shifted = _mm256_srlv_epi64(raised, _mm256_set1_epi64x(rescale.shift));
    let rounded = _mm256_sub_epi64(shifted, _mm256_set1_epi64x(rescale.lower));
    let biased = _mm256_add_epi64(rounded, load_wide(biases));
    (biased, _mm256_or_si256(rounded, biased))
}

#[cold]
#[target_feature(enable = "avx2")]
fn plain_finish(sums: __m256i, scales: &Scales, rescale: &Rescale) -> [i32; ROWS] {
    Plain::finish(store(sums), scales, rescale)
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(lanes: __m256i) -> [i32; ROWS] {
    let mut values = [0; ROWS];
    // SAFETY: the 32 bytes of the array are writable, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), lanes) };
    values
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(block: &[i16; 16]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_wide(values: &[i64; ROWS / 2]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// Eight rows at a time share what is loaded of a vector.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn halves(
    panel: &[Eight],
    codes: &[i16],
    cols: usize,
    biases: &[i32; ROWS],
    units: &[f32],
    mut put: impl FnMut(usize, [i32; ROWS]),
) {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    let biases = unsafe { _mm256_loadu_si256(biases.as_ptr().cast()) };
    for (b, (codes, &unit)) in codes.chunks_exact(cols).zip(units).enumerate() {
        let mut sums = [_mm256_setzero_ps(); ROWS];
        let (codes, rest) = codes.as_chunks::<LANES>();
        for (eight, codes) in panel.iter().zip(codes) {
            sums = add_eight(sums, eight, codes);
        }
        if !rest.is_empty() {
            let mut last = [0; LANES];
            last[..rest.len()].copy_from_slice(rest);
            sums = add_eight(sums, &panel[panel.len() - 1], &last);
        }
        let values = to_residual(_mm256_mul_ps(sum_lanes(sums), _mm256_set1_ps(unit)));
        put(b, store(add_saturating(values, biases)));
    }
}

/// Adds eight columns to the lanes of eight rows.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_eight(sums: [__m256; ROWS], eight: &Eight, codes: &[i16; LANES]) -> [__m256; ROWS] {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
    let [w0, w1, w2, w3, w4, w5, w6, w7] = eight;
    // SAFETY: the 16 bytes of the array are readable, and the load asks for no alignment.
    let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
    let codes = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(codes));
    [
        _mm256_fmadd_ps(codes, load_floats(w0), s0),
        _mm256_fmadd_ps(codes, load_floats(w1), s1),
        _mm256_fmadd_ps(codes, load_floats(w2), s2),
        _mm256_fmadd_ps(codes, load_floats(w3), s3),
        _mm256_fmadd_ps(codes, load_floats(w4), s4),
        _mm256_fmadd_ps(codes, load_floats(w5), s5),
        _mm256_fmadd_ps(codes, load_floats(w6), s6),
        _mm256_fmadd_ps(codes, load_floats(w7), s7),
    ]
}

/// The lanes of eight rows, each in the contract's order: ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)).
#[inline]
#[target_feature(enable = "avx2")]
fn sum_lanes([s0, s1, s2, s3, s4, s5, s6, s7]: [__m256; ROWS]) -> __m256 {
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
fn to_residual(values: __m256) -> __m256i {
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
fn add_saturating(a: __m256i, b: __m256i) -> __m256i {
    let sum = _mm256_add_epi32(a, b);
    // Overflow is where the sum's sign differs from both.
    let overflow = _mm256_and_si256(_mm256_xor_si256(a, sum), _mm256_xor_si256(b, sum));
    let limit = _mm256_xor_si256(_mm256_srai_epi32::<31>(a), _mm256_set1_epi32(i32::MAX));
    let [sum, limit, overflow] = [sum, limit, overflow].map(|v| _mm256_castsi256_ps(v));
    _mm256_castps_si256(_mm256_blendv_ps(sum, limit, overflow))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_floats(block: &[f32; LANES]) -> __m256 {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_ps(block.as_ptr()) }
}
