//! FP16 for several vectors with NEON.
//!
//! Four rows per register, and the contract's eight lanes one after the other: lanes are added
//! without shuffling, and a register of four vectors' codes multiplies by element.

use alloc::vec::Vec;
use core::arch::aarch64::*;

use super::codes::{floats, padded};
use super::fp16::to_residual;
use super::halves::widen;
use super::requantize::{FOUR, Four};
use super::tile::VECTORS;
use super::transpose::four_by_four;
use crate::blob::Tensor;
use crate::kernels::batched::BLOCK;
use crate::kernels::portable::{LANES, fp16_unit};
use crate::kernels::vectors::Vectors;
use crate::numeric::Scale;

/// Registers of rows.
const FOURS: usize = 4;

/// A column of sixteen rows.
type Column = [float32x4_t; FOURS];
/// A lane of sixteen rows with each of four vectors.
type Lane = [Column; VECTORS];

/// As [`crate::kernels::portable::matmul`], bit for bit, for a matrix of at least four rows and one
/// column.
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let Tensor { rows, cols, .. } = *matrix;
    // Columns are sorted by lanes; rows are padded with zeros, which change no sum.
    let eights = cols.div_ceil(LANES);
    // SAFETY: NEON is part of the target.
    let zero = unsafe { vdupq_n_f32(0.0) };
    let mut panel = alloc::vec![[zero; FOURS]; eights * LANES];
    let fours = BLOCK.min(x.scales.len()).div_ceil(VECTORS);
    let mut words = alloc::vec![zero; fours * eights * LANES];
    let mut units = Vec::with_capacity(BLOCK.min(x.scales.len()));
    let layout = matrix.layout();
    let blocks = x.codes.chunks(BLOCK * cols).zip(x.scales.chunks(BLOCK));
    for ((codes, scales), out) in blocks.zip(out.chunks_mut(BLOCK * rows)) {
        let vectors = codes.chunks(VECTORS * cols);
        for (words, codes) in words.chunks_exact_mut(eights * LANES).zip(vectors) {
            by_lanes(codes, cols, words);
        }
        units.clear();
        units.extend(scales.iter().map(|&scale| fp16_unit(matrix, Scale::unpack(scale))));
        for first in (0..rows).step_by(FOURS * FOUR) {
            let rows_of: [Four<'_>; FOURS] =
                core::array::from_fn(|f| Four::new(matrix, &layout, first + FOUR * f));
            for (f, four) in rows_of.iter().enumerate() {
                decode(four, cols, f, &mut panel);
            }
            let biases = rows_of.each_ref().map(|four| four.biases(matrix));
            let vectors = words.chunks_exact(eights * LANES).zip(units.chunks(VECTORS));
            for ((words, units), out) in vectors.zip(out.chunks_mut(VECTORS * rows)) {
                let sums = sums(&panel, words).into_iter().zip(units);
                for ((sums, &unit), out) in sums.zip(out.chunks_mut(rows)) {
                    for ((four, sums), biases) in rows_of.iter().zip(sums).zip(biases) {
                        // SAFETY: NEON is part of the target.
                        let values =
                            unsafe { vqaddq_s32(to_residual(vmulq_n_f32(sums, unit)), biases) };
                        four.set(values, out);
                    }
                }
            }
        }
    }
}

/// Sums of sixteen rows with four vectors, in the contract's order.
#[inline(always)]
fn sums(panel: &[Column], words: &[float32x4_t]) -> Lane {
    let eights = panel.len() / LANES;
    let both = |one: usize, other: usize| {
        let lane = |j: usize| lane(&panel[j * eights..][..eights], &words[j * eights..][..eights]);
        let one = lane(one);
        add(one, lane(other))
    };
    let even = add(both(0, 4), both(2, 6));
    add(even, add(both(1, 5), both(3, 7)))
}

/// Not inlined, to have all registers.
#[inline(never)]
fn lane(panel: &[Column], words: &[float32x4_t]) -> Lane {
    // SAFETY: NEON is part of the target.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); FOURS]; VECTORS];
        for (column, &x) in panel.iter().zip(words) {
            for f in 0..FOURS {
                sums[0][f] = vfmaq_laneq_f32::<0>(sums[0][f], column[f], x);
                sums[1][f] = vfmaq_laneq_f32::<1>(sums[1][f], column[f], x);
                sums[2][f] = vfmaq_laneq_f32::<2>(sums[2][f], column[f], x);
                sums[3][f] = vfmaq_laneq_f32::<3>(sums[3][f], column[f], x);
            }
        }
        sums
    }
}

#[inline(always)]
fn add(mut a: Lane, b: Lane) -> Lane {
    for (a, b) in a.as_flattened_mut().iter_mut().zip(b.as_flattened()) {
        // SAFETY: NEON is part of the target.
        *a = unsafe { vaddq_f32(*a, *b) };
    }
    a
}

/// Weights of four rows of a panel, by lanes.
#[inline(always)]
fn decode(four: &Four<'_>, cols: usize, f: usize, panel: &mut [Column]) {
    let eights = panel.len() / LANES;
    for c in 0..eights {
        let row = |r: usize| {
            let halves = &four.codes[2 * r * cols..][..2 * cols][2 * LANES * c..];
            match halves.first_chunk() {
                Some(halves) => widen(halves),
                None => widen(&padded(halves)),
            }
        };
        let [one, two, three, last] = [row(0), row(1), row(2), row(3)];
        for half in 0..2 {
            let lanes = transposed([one[half], two[half], three[half], last[half]]);
            for (j, lanes) in lanes.into_iter().enumerate() {
                panel[(half * LANES / 2 + j) * eights + c][f] = lanes;
            }
        }
    }
}

/// Codes of up to four vectors, by lanes; padded with zero vectors.
fn by_lanes(codes: &[i16], cols: usize, words: &mut [float32x4_t]) {
    let eights = words.len() / LANES;
    for c in 0..eights {
        // SAFETY: NEON is part of the target.
        let mut vectors = [[unsafe { vdupq_n_f32(0.0) }; 2]; VECTORS];
        for (vector, codes) in vectors.iter_mut().zip(codes.chunks(cols)) {
            let codes = &codes[LANES * c..];
            *vector = match codes.first_chunk() {
                Some(codes) => floats(codes),
                None => floats(&padded(codes)),
            };
        }
        for half in 0..2 {
            let [one, two, three, last] = vectors;
            let lanes = transposed([one[half], two[half], three[half], last[half]]);
            for (j, lanes) in lanes.into_iter().enumerate() {
                words[(half * LANES / 2 + j) * eights + c] = lanes;
            }
        }
    }
}

#[inline(always)]
fn transposed([a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let words = |lanes| vreinterpretq_u32_f32(lanes);
        let [a, b, c, d] = four_by_four([words(a), words(b), words(c), words(d)]);
        let floats = |lanes| vreinterpretq_f32_u32(lanes);
        [floats(a), floats(b), floats(c), floats(d)]
    }
}
