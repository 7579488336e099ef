//! The portable kernels for hosts that multiply many vectors by the same matrix: each row is decoded
//! once for the whole batch.
//!
//! An INT4 weight times its group scale is at most 8 · 15 = 120 and fits the same 16 bits as an
//! INT8 code, so both become one row of `i16` and one exact sum. FP16 keeps its eight lanes.

use super::Vectors;
use super::portable::{self, LANES, batch, finish, group_scale, half_to_f32, high_code, low_code};
use crate::blob::{Precision, Tensor, pair_u16};

/// Longest row that is decoded on the stack; longer ones go vector by vector.
const LONGEST: usize = 1024;

/// As [`portable::matmul`], bit for bit.
#[inline(always)]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    if x.scales.len() < 2 || matrix.cols > LONGEST || matrix.codes.is_empty() {
        return portable::matmul(matrix, x, out);
    }
    match matrix.precision {
        Precision::Fp16 => fp16(matrix, x, out),
        Precision::Int8 => integer(matrix, x, out, |_, row, weights| {
            for (weight, &code) in weights.iter_mut().zip(row) {
                *weight = (code as i8) as i16;
            }
        }),
        Precision::Int4 if matrix.group == 32 && matrix.cols.is_multiple_of(32) => {
            integer(matrix, x, out, decode_by_32)
        }
        Precision::Int4 => integer(matrix, x, out, |scales, row, weights| {
            decode(matrix.group, scales, row, weights);
        }),
    }
}

/// `decode` turns a row's scales and codes into weights.
#[inline(always)]
fn integer(
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
    decode: impl Fn(&[u8], &[u8], &mut [i16]),
) {
    let layout = matrix.layout();
    let mut buffer = [0i16; LONGEST];
    let weights = &mut buffer[..matrix.cols];
    let rows = matrix.codes.chunks_exact(layout.row_codes);
    for (r, (row, scales)) in rows.zip(matrix.scales.chunks_exact(layout.row_scales)).enumerate() {
        decode(scales, row, weights);
        let mantissa = pair_u16(scales, 0);
        for (b, codes, scale) in batch(x, matrix.cols) {
            let acc: i32 = weights.iter().zip(codes).map(|(&w, &a)| w as i32 * a as i32).sum();
            out[b * matrix.rows + r] = finish(matrix, r, acc, mantissa, scale);
        }
    }
}

#[inline(always)]
fn decode_by_32(scales: &[u8], row: &[u8], weights: &mut [i16]) {
    let groups = row.as_chunks::<16>().0.iter().zip(weights.as_chunks_mut::<32>().0);
    for (g, (packed, weights)) in groups.enumerate() {
        let scale = group_scale(scales, g) as i16;
        for j in 0..16 {
            weights[j] = scale * ((packed[j] << 4) as i8 >> 4) as i16;
            weights[j + 16] = scale * (packed[j] as i8 >> 4) as i16;
        }
    }
}

#[inline(always)]
fn decode(group: usize, scales: &[u8], row: &[u8], weights: &mut [i16]) {
    let mut packed = row;
    for (g, weights) in weights.chunks_mut(group).enumerate() {
        let scale = group_scale(scales, g);
        let (low, high) = weights.split_at_mut(weights.len().div_ceil(2));
        let (bytes, rest) = packed.split_at(low.len());
        packed = rest;
        for (weight, &p) in low.iter_mut().zip(bytes) {
            *weight = (scale * low_code(p)) as i16;
        }
        for (weight, &p) in high.iter_mut().zip(bytes) {
            *weight = (scale * high_code(p)) as i16;
        }
    }
}

#[inline(always)]
fn fp16(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let mut buffer = [0f32; LONGEST];
    let weights = &mut buffer[..matrix.cols];
    for (r, row) in matrix.codes.chunks_exact(2 * matrix.cols).enumerate() {
        for (weight, half) in weights.iter_mut().zip(row.as_chunks::<2>().0) {
            *weight = half_to_f32(*half);
        }
        for (b, codes, scale) in batch(x, matrix.cols) {
            let mut lanes = [0f32; LANES];
            let (blocks, rest) = weights.as_chunks::<LANES>();
            let (code_blocks, code_rest) = codes.as_chunks::<LANES>();
            for (weights, codes) in blocks.iter().zip(code_blocks) {
                for j in 0..LANES {
                    lanes[j] += weights[j] * codes[j] as f32;
                }
            }
            for (j, (weight, &code)) in rest.iter().zip(code_rest).enumerate() {
                lanes[j] += weight * code as f32;
            }
            out[b * matrix.rows + r] =
                portable::finish_fp16(matrix, r, portable::sum_lanes(lanes), scale);
        }
    }
}
