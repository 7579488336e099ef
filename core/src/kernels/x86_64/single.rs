//! Single vectors with AVX2.

use core::arch::x86_64::*;

use super::decode::decode;
use super::int4::{self, int4};
use super::int8;
use super::registers::{add_saturating, join_eight, load_i16 as load, padded, put, sum_lanes};
use super::requantize::{block_biases, mantissas, requantize_block, to_residual};
use super::shapes::few;
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::{LONGEST, ROWS, Rescale};
use crate::kernels::matrix::Matrix;
use crate::kernels::portable::{LANES, fp16_unit};
use crate::kernels::single::Block;
use crate::kernels::vectors::{Vectors, not_negative};
use crate::numeric::Scale;

/// See [`crate::kernels::kernel::Kernel::run`]; takes one vector, or a few one by one, unless a
/// code of INT4 behind a ReLU is negative or a scale is extreme.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    few(matrix, x.scales.len())
        && x.one_by_one(matrix, out, |codes, scale, out| matmul(matrix, codes, scale, out))
}

/// One vector; returns whether it was taken.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn matmul(matrix: &Tensor<'_>, codes: &[i16], packed: u32, out: &mut [i32]) -> bool {
    let scale = Scale::unpack(packed);
    let rescale = &Rescale::new(matrix, scale);
    let relu = matrix.max_code > 127;
    // Halves are not rescaled by shifts.
    let shifts = matrix.precision == Precision::Fp16 || (1..=62).contains(&rescale.shift);
    if !shifts {
        return false;
    }
    match matrix.precision {
        Precision::Int4 if int4::fits(matrix) => {
            if !relu {
                int4::<false>(matrix, codes, packed, rescale, out);
            } else if not_negative(codes) {
                int4::<true>(matrix, codes, packed, rescale, out);
            } else {
                return false;
            }
        }
        Precision::Fp16 => halves(matrix, codes, fp16_unit(matrix, scale), out),
        Precision::Int8 if !relu && int8::fits(matrix) => int8::matmul(matrix, codes, rescale, out),
        Precision::Int8 => int8(matrix, codes, rescale, out),
        _ => grouped(matrix, codes, rescale, out),
    }
    true
}

/// A matrix of INT8 and any codes: at most 2^14 inputs times 2^7 · 2^8.
#[target_feature(enable = "avx2")]
fn int8(matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]) {
    let layout = matrix.layout();
    let (chunks, rest) = codes.as_chunks::<16>();
    for start in (0..matrix.rows).step_by(ROWS) {
        let block = Block::<ROWS>::new(matrix, &layout, start);
        assert!(block.codes.len() == ROWS * codes.len());
        // SAFETY: the assertion above is what `int8_sums` needs.
        let mut sums = unsafe { int8_sums(block.codes.as_ptr(), codes.len(), chunks) };
        if !rest.is_empty() {
            let x = load(&padded(rest));
            for (j, sum) in sums.iter_mut().enumerate() {
                let weights = load_int8(&padded(
                    &block.codes[j * layout.row_codes..][..layout.row_codes][16 * chunks.len()..],
                ));
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, x));
            }
        }
        // SAFETY: a block has the scales of eight rows, each with a mantissa.
        let mantissas = unsafe { mantissas(block.scales.as_ptr(), layout.row_scales) };
        requantize_block(matrix, block.first, join_eight(sums), mantissas, rescale, out);
    }
}

/// Eight lanes for each of eight rows of `row` bytes; their sum is the row's sum over the chunks.
///
/// # Safety
///
/// There are eight rows, none shorter than the chunks.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn int8_sums(codes: *const u8, row: usize, chunks: &[[i16; 16]]) -> [__m256i; ROWS] {
    let mut sums = [_mm256_setzero_si256(); ROWS];
    for (i, x) in chunks.iter().enumerate() {
        let x = load(x);
        for (j, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 16 bytes of one of eight rows, in a chunk that the row has.
            let weights = load_int8(unsafe { &*codes.add(j * row + 16 * i).cast() });
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, x));
        }
    }
    sums
}

/// Sixteen weights of a row of INT8.
#[inline]
#[target_feature(enable = "avx2")]
fn load_int8(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: the 16 bytes of the array are readable, and the load needs no alignment.
    let stored = unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) };
    // Bytes at even places are offset by 128.
    _mm256_cvtepi8_epi16(_mm_xor_si128(stored, _mm_set1_epi16(0x80)))
}

/// A matrix of any planes and groups: a decoded weight is below 2^9 in magnitude.
#[target_feature(enable = "avx2")]
fn grouped(matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]) {
    let mut row = [0i16; LONGEST];
    let layout = matrix.layout();
    let (chunks, rest) = codes.as_chunks::<16>();
    for start in (0..matrix.rows).step_by(ROWS) {
        let block = Block::<ROWS>::new(matrix, &layout, start);
        let mut sums = [_mm256_setzero_si256(); ROWS];
        for (j, sum) in sums.iter_mut().enumerate() {
            let scales = &block.scales[j * layout.row_scales..];
            let packed = &block.codes[j * layout.row_codes..][..layout.row_codes];
            decode(matrix, scales, packed, &mut row[..codes.len()]);
            for (weights, x) in row.as_chunks().0.iter().zip(chunks) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(load(weights), load(x)));
            }
            if !rest.is_empty() {
                // Weights beyond the row are multiplied by zeros.
                let weights = load(&row.as_chunks().0[chunks.len()]);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, load(&padded(rest))));
            }
        }
        // SAFETY: a block has the scales of eight rows, each with a mantissa.
        let mantissas = unsafe { mantissas(block.scales.as_ptr(), layout.row_scales) };
        requantize_block(matrix, block.first, join_eight(sums), mantissas, rescale, out);
    }
}

/// A matrix of FP16; `unit` is the value of one unit of the codes. Register lane j is the
/// contract's lane j.
#[target_feature(enable = "avx2,fma,f16c")]
fn halves(matrix: &Tensor<'_>, codes: &[i16], unit: f32, out: &mut [i32]) {
    let layout = matrix.layout();
    let (eights, rest) = codes.as_chunks::<LANES>();
    for start in (0..matrix.rows).step_by(ROWS) {
        let block = Block::<ROWS>::new(matrix, &layout, start);
        assert!(block.codes.len() == ROWS * 2 * codes.len());
        // SAFETY: the assertion above is what `half_sums` needs.
        let mut sums = unsafe { half_sums(block.codes.as_ptr(), 2 * codes.len(), eights) };
        if !rest.is_empty() {
            let x = load_codes(&padded(rest));
            for (j, sum) in sums.iter_mut().enumerate() {
                let halves = load_halves(&padded(
                    &block.codes[j * layout.row_codes..][..layout.row_codes]
                        [2 * LANES * eights.len()..],
                ));
                *sum = _mm256_fmadd_ps(x, halves, *sum);
            }
        }
        let values = to_residual(_mm256_mul_ps(sum_lanes(sums), _mm256_set1_ps(unit)));
        put(add_saturating(values, block_biases(matrix, block.first)), block.first, out);
    }
}

/// The lanes of eight rows of `row` bytes.
///
/// # Safety
///
/// There are eight rows, each with as many halves as `eights` has codes, or more.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn half_sums(codes: *const u8, row: usize, eights: &[[i16; LANES]]) -> [__m256; ROWS] {
    let mut sums = [_mm256_setzero_ps(); ROWS];
    for (i, x) in eights.iter().enumerate() {
        let x = load_codes(x);
        for (j, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 16 bytes of one of eight rows, in eight inputs that the row has.
            let halves = load_halves(unsafe { &*codes.add(j * row + 2 * LANES * i).cast() });
            *sum = _mm256_fmadd_ps(x, halves, *sum);
        }
    }
    sums
}

/// Eight finite halves as floats, exactly.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn load_halves(halves: &[u8; 16]) -> __m256 {
    // SAFETY: the 16 bytes of the array are readable, and the load needs no alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load_codes(codes: &[i16; LANES]) -> __m256 {
    // SAFETY: the 16 bytes of the array are readable, and the load needs no alignment.
    let codes = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
    _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(codes))
}
