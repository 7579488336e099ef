//! Several vectors with AVX2, by panels of rows.

use core::arch::x86_64::*;

use super::decode::decode;
use super::detect::Avx2;
use super::registers::{load_i16 as load, transpose};
use super::requantize::requantize_panel;
use super::shapes::fits_bytes;
use super::{fp16_panels, int4_panels};
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::{self, LONGEST, PANEL, Pair, Products, ROWS, Rescale, Scales};
use crate::kernels::matrix::Matrix;
use crate::kernels::vectors::{Vectors, not_negative};

/// See [`crate::kernels::kernel::Kernel::run`]; takes any several vectors: bytes of INT4 and FP16
/// by panels of their own, the others by panels of 16-bit weights.
#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let Some(avx2) = Avx2::detect() else { return false };
    if x.scales.len() < 2 {
        return false;
    }
    let relu = matrix.max_code > 127;
    // A matrix without codes has no rows, or nothing but biases, which `batched` handles.
    if matrix.precision == Precision::Fp16 && !matrix.codes.is_empty() {
        fp16_panels::matmul(matrix, x, out);
    } else if !fits_bytes(matrix) || matrix.codes.is_empty() || relu && !not_negative(x.codes) {
        batched::matmul(avx2, matrix, x, out);
    } else if relu {
        int4_panels::matmul::<true>(matrix, x, out);
    } else {
        int4_panels::matmul::<false>(matrix, x, out);
    }
    true
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
    fn interleave(self, rows: &[[i16; LONGEST]; PANEL], panel: &mut [Pair]) {
        // SAFETY: `self` is proof of the instruction set.
        unsafe { interleave(rows, panel) }
    }
}

/// Interleaves eight pairs of eight rows at a time: a transposition of 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn interleave(rows: &[[i16; LONGEST]; PANEL], panel: &mut [Pair]) {
    for (half, rows) in rows.as_chunks::<ROWS>().0.iter().enumerate() {
        for (c, pairs) in panel.chunks_mut(ROWS).enumerate() {
            let rows = rows.each_ref().map(|row| load(&row.as_chunks().0[c]));
            for (pair, lanes) in pairs.iter_mut().zip(transpose(rows)) {
                // SAFETY: the 32 bytes of the array are writable, and the store needs no alignment.
                unsafe { _mm256_storeu_si256(pair[half].as_mut_ptr().cast(), lanes) };
            }
        }
    }
}

/// Four vectors at a time share the loads of the panel. Weights are below 2^9 and codes below 2^8
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
        // Padded with the last vector.
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
            put(
                first + b,
                [
                    requantize_panel(low, &scales[0], rescale),
                    requantize_panel(high, &scales[1], rescale),
                ],
            );
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
