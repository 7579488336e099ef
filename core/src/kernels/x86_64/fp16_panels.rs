//! FP16 for several vectors with AVX2.
//!
//! Eight rows per register, and the contract's eight lanes one after the other: a lane of all rows
//! needs one register per vector, and lanes are added without shuffling. With two fused
//! multiply-adds of eight products per cycle, 16 products per cycle are the most that the
//! contract's floats allow.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::registers::{add_saturating, load, padded, set, transpose};
use super::requantize::to_residual;
use super::single::{load_codes, load_halves};
use super::tile::{Both, Rows, Step, VECTORS, WORD, Words, broadcast, side_by_side};
use crate::blob::Tensor;
use crate::kernels::batched::{BLOCK, PANEL, ROWS};
use crate::kernels::portable::{LANES, fp16_unit};
use crate::kernels::vectors::Vectors;
use crate::numeric::Scale;

/// A lane of sixteen rows for each of four vectors.
type Lane = [[__m256; 2]; VECTORS];

/// As [`crate::kernels::portable::matmul`], bit for bit.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    // Steps are sorted by lanes; rows are padded with zeros, which change no sum.
    let eights = matrix.cols.div_ceil(LANES);
    let mut panel = alloc::vec![Both([[[0; WORD]; ROWS]; 2]); eights * LANES];
    let fours = BLOCK.min(x.scales.len()).div_ceil(VECTORS);
    let mut words = alloc::vec![[[0; WORD]; VECTORS]; fours * eights * LANES];
    let mut units = Vec::with_capacity(BLOCK);
    let blocks = x.codes.chunks(BLOCK * matrix.cols).zip(x.scales.chunks(BLOCK));
    for ((codes, scales), out) in blocks.zip(out.chunks_mut(BLOCK * matrix.rows)) {
        let vectors = codes.chunks(VECTORS * matrix.cols);
        for (words, codes) in words.chunks_exact_mut(eights * LANES).zip(vectors) {
            to_floats(codes, matrix.cols, words);
        }
        units.clear();
        units.extend(scales.iter().map(|&scale| fp16_unit(matrix, Scale::unpack(scale))));
        for first in (0..matrix.rows).step_by(PANEL) {
            let rows = Rows::new(matrix, first);
            decode(matrix, &rows, &mut panel);
            let vectors = words.chunks_exact(eights * LANES).zip(units.chunks(VECTORS));
            for ((words, units), out) in vectors.zip(out.chunks_mut(VECTORS * matrix.rows)) {
                let sums = sums(&panel, words).into_iter().zip(units);
                for ((sums, &unit), out) in sums.zip(out.chunks_mut(matrix.rows)) {
                    let unit = _mm256_set1_ps(unit);
                    let [low, high] = sums.map(|half| to_residual(_mm256_mul_ps(half, unit)));
                    let biases = rows.biases();
                    let values = [add_saturating(low, biases[0]), add_saturating(high, biases[1])];
                    rows.put(values, out);
                }
            }
        }
    }
}

/// Sums of sixteen rows with four vectors, in the contract's order.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn sums(panel: &[Step], words: &[Words]) -> Lane {
    let eights = panel.len() / LANES;
    let mut lanes = [[[_mm256_setzero_ps(); 2]; VECTORS]; LANES / 2];
    let pairs = [(0, 4), (2, 6), (1, 5), (3, 7)];
    for (both, pair) in lanes.iter_mut().zip(pairs) {
        let lane = |j: usize| {
            let (panel, words) = (&panel[j * eights..][..eights], &words[j * eights..][..eights]);
            lane(panel, words)
        };
        let one = lane(pair.0);
        *both = add(one, lane(pair.1));
    }
    let [a, b, c, d] = lanes;
    add(add(a, b), add(c, d))
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn lane(panel: &[Step], words: &[Words]) -> Lane {
    let mut sums = [[_mm256_setzero_ps(); 2]; VECTORS];
    for (step, words) in panel.iter().zip(words) {
        let [low, high] = &step.0;
        let weights = [_mm256_castsi256_ps(load(low)), _mm256_castsi256_ps(load(high))];
        for (sums, &word) in sums.iter_mut().zip(words) {
            let x = _mm256_castsi256_ps(broadcast(word));
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = _mm256_fmadd_ps(x, weights, *sum);
            }
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: Lane, b: Lane) -> Lane {
    let mut sums = a;
    for (sum, b) in sums.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        *sum = _mm256_add_ps(*sum, *b);
    }
    sums
}

/// Weights of a panel, by lanes.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn decode(matrix: &Tensor<'_>, rows: &Rows, panel: &mut [Step]) {
    let eights = panel.len() / LANES;
    for half in 0..2 {
        // Padded with the last row.
        let row = |j: usize| {
            let row = rows.first + (half * ROWS + j).min(rows.count - 1);
            &matrix.codes[2 * row * matrix.cols..][..2 * matrix.cols]
        };
        for c in 0..eights {
            let mut eight = [_mm256_setzero_si256(); ROWS];
            for (j, eight) in eight.iter_mut().enumerate() {
                let halves = &row(j)[2 * LANES * c..];
                let floats = match halves.first_chunk::<{ 2 * LANES }>() {
                    Some(halves) => load_halves(halves),
                    None => load_halves(&padded(halves)),
                };
                *eight = _mm256_castps_si256(floats);
            }
            for (lane, floats) in transpose(eight).into_iter().enumerate() {
                set(&mut panel[lane * eights + c].0[half], floats);
            }
        }
    }
}

/// Codes of up to four vectors as floats, by lanes; padded with zero vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn to_floats(codes: &[i16], cols: usize, words: &mut [Words]) {
    let eights = words.len() / LANES;
    for c in 0..eights {
        let mut floats = [_mm256_setzero_si256(); VECTORS];
        for (floats, codes) in floats.iter_mut().zip(codes.chunks(cols)) {
            let codes = &codes[LANES * c..];
            let eight = match codes.first_chunk() {
                Some(codes) => load_codes(codes),
                None => load_codes(&padded(codes)),
            };
            *floats = _mm256_castps_si256(eight);
        }
        let mut lanes = [[[0; WORD]; VECTORS]; LANES];
        side_by_side(floats, &mut lanes);
        for (lane, four) in lanes.into_iter().enumerate() {
            words[lane * eights + c] = four;
        }
    }
}
