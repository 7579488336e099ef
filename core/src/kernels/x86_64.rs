//! The batched kernels with AVX2, chosen at run time.
//!
//! Integer sums are exact in any order. An FP16 weight (11 bits) times a code (8 bits) is exact in
//! f32, so a fused multiply-add rounds once where the contract rounds once, and register lane j is
//! the contract's lane j.
#![allow(unsafe_code)]

use core::arch::x86_64::*;

use super::Vectors;
use super::batched::{self, PANEL, Pair, Plain, Products, ROWS, Rescale, Scales, add_floats};
use super::portable::{LANES, group_scale};
use crate::blob::Tensor;
use crate::numeric::Scale;

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
    fn decode_by_32(self, scales: &[u8], row: &[u8], weights: &mut [i16]) {
        // SAFETY: `self` is proof of the instruction set.
        unsafe { decode_by_32(scales, row, weights) }
    }

    #[inline(always)]
    fn integer(
        self,
        panel: &[Pair],
        codes: &[i16],
        cols: usize,
        scales: &Scales,
        rescales: &[Rescale],
        put: impl FnMut(usize, [i32; PANEL]),
    ) {
        // SAFETY: `self` is proof of the instruction set.
        unsafe { integer(panel, codes, cols, scales, rescales, put) }
    }

    #[inline(always)]
    fn halves(
        self,
        rows: [&[f32]; ROWS],
        x: Vectors<'_>,
        biases: &[i64; ROWS],
        unit: f32,
        put: impl FnMut(usize, [i32; ROWS]),
    ) {
        // SAFETY: `self` is proof of the instruction set.
        unsafe { halves(rows, x, biases, unit, put) }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn decode_by_32(scales: &[u8], row: &[u8], weights: &mut [i16]) {
    let groups = row.as_chunks::<16>().0.iter().zip(weights.as_chunks_mut::<32>().0);
    for (g, (packed, weights)) in groups.enumerate() {
        let scale = _mm256_set1_epi16(group_scale(scales, g) as i16);
        // SAFETY: the 16 bytes of the array are readable, and the load asks for no alignment.
        let packed = _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(packed.as_ptr().cast()) });
        // A nibble to the top of its 16 bits and, with its sign, back to the bottom.
        let low = _mm256_srai_epi16::<12>(_mm256_slli_epi16::<12>(packed));
        let high = _mm256_srai_epi16::<12>(_mm256_slli_epi16::<8>(packed));
        let to: *mut __m256i = weights.as_mut_ptr().cast();
        // SAFETY: the 64 bytes of the array are writable, and the stores ask for no alignment.
        unsafe {
            _mm256_storeu_si256(to, _mm256_mullo_epi16(low, scale));
            _mm256_storeu_si256(to.add(1), _mm256_mullo_epi16(high, scale));
        }
    }
}

/// Four vectors at a time share what is loaded of the panel. Weights are below 2^9 and codes below 2^8
/// in magnitude, and at most 1024 columns are summed: 2^27.
#[inline]
#[target_feature(enable = "avx2")]
fn integer(
    panel: &[Pair],
    codes: &[i16],
    cols: usize,
    scales: &Scales,
    rescales: &[Rescale],
    mut put: impl FnMut(usize, [i32; PANEL]),
) {
    for (first, rescales) in rescales.chunks(4).enumerate().map(|(q, r)| (4 * q, r)) {
        // The last vector of a batch takes empty places.
        let vector = |j: usize| &codes[(first + j.min(rescales.len() - 1)) * cols..][..cols];
        let [x0, x1, x2, x3] = [vector(0), vector(1), vector(2), vector(3)];
        let mut sums = [_mm256_setzero_si256(); 4];
        let fours = x0.as_chunks::<4>().0.iter().zip(x1.as_chunks::<4>().0);
        let fours = fours.zip(x2.as_chunks::<4>().0).zip(x3.as_chunks::<4>().0);
        for (pairs, (((x0, x1), x2), x3)) in panel.as_chunks::<2>().0.iter().zip(fours) {
            for (pair, c) in pairs.iter().zip([0, 2]) {
                let weights = load(pair);
                sums[0] = add(sums[0], weights, [x0[c], x0[c + 1]]);
                sums[1] = add(sums[1], weights, [x1[c], x1[c + 1]]);
                sums[2] = add(sums[2], weights, [x2[c], x2[c + 1]]);
                sums[3] = add(sums[3], weights, [x3[c], x3[c + 1]]);
            }
        }
        // One to three columns; the last pair of an odd row has zeros in its second place.
        for c in (cols / 4 * 4..cols).step_by(2) {
            let weights = load(&panel[c / 2]);
            let code = |x: &[i16]| [x[c], x.get(c + 1).copied().unwrap_or(0)];
            for (sum, x) in sums.iter_mut().zip([x0, x1, x2, x3]) {
                *sum = add(*sum, weights, code(x));
            }
        }
        for ((b, sums), rescale) in sums.into_iter().enumerate().zip(rescales) {
            put(first + b, finish(sums, scales, rescale));
        }
    }
}

/// Adds two columns' products to the sums of a panel.
#[inline]
#[target_feature(enable = "avx2")]
fn add(sums: __m256i, weights: __m256i, [first, second]: [i16; 2]) -> __m256i {
    let codes = _mm256_set1_epi32((first as u16 as u32 | (second as u16 as u32) << 16) as i32);
    _mm256_add_epi32(sums, _mm256_madd_epi16(weights, codes))
}

/// `shift_round` and a saturating addition for a panel's sums. The products are below 2^62 in magnitude,
/// so that adding half of what is shifted out cannot overflow 64 bits; what leaves the range of `i32`,
/// and shifts beyond 1 to 62, are left to the plain way.
#[inline]
#[target_feature(enable = "avx2")]
fn finish(sums: __m256i, scales: &Scales, rescale: &Rescale) -> [i32; PANEL] {
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
    mantissas: &[i64; PANEL / 2],
    biases: &[i64; PANEL / 2],
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
fn plain_finish(sums: __m256i, scales: &Scales, rescale: &Rescale) -> [i32; PANEL] {
    Plain::finish(store(sums), scales, rescale)
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(lanes: __m256i) -> [i32; PANEL] {
    let mut values = [0; PANEL];
    // SAFETY: the 32 bytes of the array are writable, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(values.as_mut_ptr().cast(), lanes) };
    values
}

/// Adds biases to lanes within the range of `i32`, saturating.
#[inline]
#[target_feature(enable = "avx2")]
fn add_biases(values: __m256i, biases: &[i64; ROWS]) -> [i32; ROWS] {
    let biased = saturate(_mm256_add_epi64(values, load_wide(biases)));
    let even = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    let packed = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(biased, even));
    let mut values = [0; ROWS];
    // SAFETY: the 16 bytes of the array are writable, and the store asks for no alignment.
    unsafe { _mm_storeu_si128(values.as_mut_ptr().cast(), packed) };
    values
}

/// Clamps lanes of 64 bits to the range of `i32`.
#[inline]
#[target_feature(enable = "avx2")]
fn saturate(values: __m256i) -> __m256i {
    let (low, high) = (_mm256_set1_epi64x(i32::MIN as i64), _mm256_set1_epi64x(i32::MAX as i64));
    let values = _mm256_blendv_epi8(values, high, _mm256_cmpgt_epi64(values, high));
    _mm256_blendv_epi8(values, low, _mm256_cmpgt_epi64(low, values))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(block: &[i16; 16]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_wide(values: &[i64; ROWS]) -> __m256i {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_si256(values.as_ptr().cast()) }
}

/// Two vectors at a time, as [`integer`].
#[inline]
#[target_feature(enable = "avx2,fma")]
fn halves(
    rows: [&[f32]; ROWS],
    x: Vectors<'_>,
    biases: &[i64; ROWS],
    unit: f32,
    mut put: impl FnMut(usize, [i32; ROWS]),
) {
    let cols = rows[0].len();
    let [r0, r1, r2, r3] = rows.map(|row| row.as_chunks::<LANES>().0);
    let tails = rows.map(|row| row.as_chunks::<LANES>().1);
    for (pair, codes) in x.codes.chunks(2 * cols).enumerate() {
        // The last vector of an odd batch is its own partner.
        let (x_blocks, x_rest) = codes[..cols].as_chunks::<LANES>();
        let (y_blocks, y_rest) = codes[codes.len() - cols..].as_chunks::<LANES>();
        let [mut x0, mut x1, mut x2, mut x3] = [_mm256_setzero_ps(); ROWS];
        let [mut y0, mut y1, mut y2, mut y3] = [_mm256_setzero_ps(); ROWS];
        let blocks = x_blocks.iter().zip(y_blocks);
        for (((((x, y), r0), r1), r2), r3) in blocks.zip(r0).zip(r1).zip(r2).zip(r3) {
            let (x, y) = (load_codes(x), load_codes(y));
            let (r0, r1, r2, r3) =
                (load_floats(r0), load_floats(r1), load_floats(r2), load_floats(r3));
            x0 = _mm256_fmadd_ps(x, r0, x0);
            y0 = _mm256_fmadd_ps(y, r0, y0);
            x1 = _mm256_fmadd_ps(x, r1, x1);
            y1 = _mm256_fmadd_ps(y, r1, y1);
            x2 = _mm256_fmadd_ps(x, r2, x2);
            y2 = _mm256_fmadd_ps(y, r2, y2);
            x3 = _mm256_fmadd_ps(x, r3, x3);
            y3 = _mm256_fmadd_ps(y, r3, y3);
        }
        let mut lanes = [[x0, x1, x2, x3], [y0, y1, y2, y3]];
        if !x_rest.is_empty() {
            add_tails(&mut lanes[0], tails, x_rest);
            add_tails(&mut lanes[1], tails, y_rest);
        }
        for (b, lanes) in lanes.into_iter().enumerate().take(codes.len() / cols) {
            let vector = 2 * pair + b;
            let factor = _mm_set1_ps(Scale::unpack(x.scales[vector]).to_f32() * unit);
            let values = to_residual(_mm_mul_ps(sum_lanes(lanes), factor));
            put(vector, add_biases(values, biases));
        }
    }
}

/// What is left of the columns.
#[cold]
#[target_feature(enable = "avx2")]
fn add_tails(sums: &mut [__m256; ROWS], tails: [&[f32]; ROWS], codes: &[i16]) {
    for (sum, tail) in sums.iter_mut().zip(tails) {
        let mut lanes = [0f32; LANES];
        // SAFETY: the 32 bytes of the array are writable and readable, and neither asks for
        // alignment.
        unsafe {
            _mm256_storeu_ps(lanes.as_mut_ptr(), *sum);
            add_floats(tail, codes, &mut lanes);
            *sum = _mm256_loadu_ps(lanes.as_ptr());
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_codes(codes: &[i16; LANES]) -> __m256 {
    // SAFETY: the 16 bytes of the array are readable, and the load asks for no alignment.
    let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(codes))
}

/// The lanes of four rows, each in the contract's order: ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)).
#[inline]
#[target_feature(enable = "avx2")]
fn sum_lanes([s0, s1, s2, s3]: [__m256; ROWS]) -> __m128 {
    // Of each row: (l0+l4)+(l2+l6) and (l1+l5)+(l3+l7) in the lower two places.
    let [p0, p1, p2, p3] = [s0, s1, s2, s3].map(|sum| {
        let four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
        _mm_add_ps(four, _mm_movehl_ps(four, four))
    });
    let (a, b) = (_mm_unpacklo_ps(p0, p1), _mm_unpacklo_ps(p2, p3));
    _mm_add_ps(_mm_movelh_ps(a, b), _mm_movehl_ps(b, a))
}

/// `f32_to_residual` in lanes of 64 bits: in f64 the number, its half and its range are exact.
#[inline]
#[target_feature(enable = "avx2")]
fn to_residual(values: __m128) -> __m256i {
    let scaled = _mm256_cvtps_pd(_mm_mul_ps(values, _mm_set1_ps(65536.0)));
    let sign = _mm256_and_pd(scaled, _mm256_set1_pd(-0.0));
    let half = _mm256_or_pd(sign, _mm256_set1_pd(0.5));
    let low = _mm256_set1_pd(i32::MIN as f64);
    let high = _mm256_set1_pd(i32::MAX as f64);
    let clamped = _mm256_max_pd(_mm256_min_pd(_mm256_add_pd(scaled, half), high), low);
    _mm256_cvtepi32_epi64(_mm256_cvttpd_epi32(clamped))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_floats(block: &[f32; LANES]) -> __m256 {
    // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
    unsafe { _mm256_loadu_ps(block.as_ptr()) }
}
