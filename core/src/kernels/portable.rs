//! The kernels that every target can run, and that define what every other kernel returns.
//!
//! ```text
//! INT8   acc = Σ_c code[r,c] · x[c]                         exact in i32
//! INT4   acc = Σ_g scale[r,g] · Σ_{c in g} code[r,c] · x[c]   exact in i32
//!        y   = round(acc · m[r] · X · 2^−shift) + bias[r]
//! FP16   eight f32 lanes, lane j summing c ≡ j (mod 8) in order, then
//!        ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7));  y = round(acc · X / max_code) + bias[r]
//! ```
//!
//! with X the scale of the vector. The accumulators cannot overflow: 2^14 inputs times codes of at
//! most 2^7 (INT8) or 2^3 · 15 (INT4, with its group scale) times activations below 2^8 stay below
//! 2^30.

use super::Vectors;
use crate::blob::{Precision, Tensor, pair_i16, pair_u16};
use crate::numeric::{RESIDUAL_FRAC, Scale, f32_to_residual, shift_round};

/// Partial sums of an FP16 row.
pub(super) const LANES: usize = 8;

/// See [`super::matmul`].
#[inline(always)]
pub fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    if matrix.codes.is_empty() {
        return;
    }
    match matrix.precision {
        Precision::Int4 if matrix.group == 32 && matrix.cols.is_multiple_of(32) => {
            int4_by_32(matrix, x, out)
        }
        Precision::Int4 => int4(matrix, x, out),
        Precision::Int8 => int8(matrix, x, out),
        Precision::Fp16 => fp16(matrix, x, out),
    }
}

/// The vectors of a batch with their scales.
#[inline(always)]
pub(super) fn batch<'a>(
    x: Vectors<'a>,
    cols: usize,
) -> impl Iterator<Item = (usize, &'a [i16], Scale)> {
    x.codes
        .chunks_exact(cols)
        .zip(x.scales)
        .enumerate()
        .map(|(b, (codes, &scale))| (b, codes, Scale::unpack(scale)))
}

/// Accumulator to output: row mantissa, vector scale, rounding shift, bias.
#[inline(always)]
pub(super) fn finish(
    matrix: &Tensor<'_>,
    row: usize,
    acc: i32,
    mantissa: u16,
    scale: Scale,
) -> i32 {
    let multiplier = (mantissa as u32 * scale.mantissa as u32) as i64;
    let shift = matrix.exponent - scale.exponent as i32 - RESIDUAL_FRAC as i32;
    shift_round(acc as i64 * multiplier, shift).saturating_add(bias(matrix, row))
}

/// Bias of a row in Q15.16; zero for a matrix without biases.
#[inline(always)]
fn bias(matrix: &Tensor<'_>, row: usize) -> i32 {
    if matrix.biases.is_empty() {
        return 0;
    }
    (pair_i16(matrix.biases, row) as i32) << (RESIDUAL_FRAC - matrix.bias_exponent)
}

#[inline(always)]
fn int8(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    for (r, row) in matrix.codes.chunks_exact(matrix.cols).enumerate() {
        let mantissa = pair_u16(matrix.scales, r);
        for (b, codes, scale) in batch(x, matrix.cols) {
            let acc: i32 = row.iter().zip(codes).map(|(&w, &a)| (w as i8) as i32 * a as i32).sum();
            out[b * matrix.rows + r] = finish(matrix, r, acc, mantissa, scale);
        }
    }
}

/// Groups of 32 that divide the row: the layout that policies choose.
#[inline(always)]
fn int4_by_32(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let layout = matrix.layout();
    let rows = matrix.codes.chunks_exact(layout.row_codes);
    let scales = matrix.scales.chunks_exact(layout.row_scales);
    for (r, (row, row_scales)) in rows.zip(scales).enumerate() {
        let mantissa = pair_u16(row_scales, 0);
        for (b, codes, scale) in batch(x, matrix.cols) {
            let mut acc = 0i32;
            let groups = row.as_chunks::<16>().0.iter().zip(codes.as_chunks::<32>().0);
            for (g, (packed, activations)) in groups.enumerate() {
                acc += group_scale(row_scales, g) * dot_group_of_32(packed, activations);
            }
            out[b * matrix.rows + r] = finish(matrix, r, acc, mantissa, scale);
        }
    }
}

#[inline(always)]
fn dot_group_of_32(packed: &[u8; 16], activations: &[i16; 32]) -> i32 {
    let mut sum = 0i32;
    for j in 0..16 {
        let low = ((packed[j] << 4) as i8 >> 4) as i32;
        let high = (packed[j] as i8 >> 4) as i32;
        sum += low * activations[j] as i32 + high * activations[j + 16] as i32;
    }
    sum
}

/// Any group size, the last group of a row possibly shorter.
#[inline(always)]
fn int4(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let layout = matrix.layout();
    let rows = matrix.codes.chunks_exact(layout.row_codes);
    let scales = matrix.scales.chunks_exact(layout.row_scales);
    for (r, (row, row_scales)) in rows.zip(scales).enumerate() {
        let mantissa = pair_u16(row_scales, 0);
        for (b, codes, scale) in batch(x, matrix.cols) {
            let mut acc = 0i32;
            let mut packed = row;
            for (g, activations) in codes.chunks(matrix.group).enumerate() {
                let half = activations.len().div_ceil(2);
                let (bytes, rest) = packed.split_at(half);
                packed = rest;
                let (low, high) = activations.split_at(half);
                let low: i32 = bytes.iter().zip(low).map(|(&p, &a)| low_code(p) * a as i32).sum();
                let high: i32 =
                    bytes.iter().zip(high).map(|(&p, &a)| high_code(p) * a as i32).sum();
                acc += group_scale(row_scales, g) * (low + high);
            }
            out[b * matrix.rows + r] = finish(matrix, r, acc, mantissa, scale);
        }
    }
}

#[inline(always)]
pub(super) fn low_code(packed: u8) -> i32 {
    ((packed << 4) as i8 >> 4) as i32
}

#[inline(always)]
pub(super) fn high_code(packed: u8) -> i32 {
    (packed as i8 >> 4) as i32
}

/// Scale of group `g` of a row whose scales begin with the row's mantissa.
#[inline(always)]
pub(super) fn group_scale(row_scales: &[u8], g: usize) -> i32 {
    ((row_scales[2 + g / 2] >> (4 * (g % 2))) & 15) as i32
}

#[inline(always)]
fn fp16(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    for (r, row) in matrix.codes.chunks_exact(2 * matrix.cols).enumerate() {
        for (b, codes, scale) in batch(x, matrix.cols) {
            let sum = dot_fp16(row, codes);
            out[b * matrix.rows + r] = finish_fp16(matrix, r, sum, scale);
        }
    }
}

/// Sum of an FP16 row to output.
#[inline(always)]
pub(super) fn finish_fp16(matrix: &Tensor<'_>, row: usize, sum: f32, scale: Scale) -> i32 {
    let unit = 1.0 / matrix.max_code as f32;
    f32_to_residual(sum * (scale.to_f32() * unit)).saturating_add(bias(matrix, row))
}

/// Each product is exact in f32 (11 + 8 bits); only the additions round, in a fixed order.
#[inline(always)]
fn dot_fp16(row: &[u8], codes: &[i16]) -> f32 {
    let mut lanes = [0f32; LANES];
    let (row_blocks, row_rest) = row.as_chunks::<16>();
    let (code_blocks, code_rest) = codes.as_chunks::<8>();
    for (weights, activations) in row_blocks.iter().zip(code_blocks) {
        for j in 0..8 {
            let weight = half_to_f32([weights[2 * j], weights[2 * j + 1]]);
            lanes[j] += weight * activations[j] as f32;
        }
    }
    for (j, (weight, &activation)) in row_rest.as_chunks::<2>().0.iter().zip(code_rest).enumerate()
    {
        lanes[j] += half_to_f32(*weight) * activation as f32;
    }
    sum_lanes(lanes)
}

/// The lanes of an FP16 row, in the contract's order.
#[inline(always)]
pub(super) fn sum_lanes([l0, l1, l2, l3, l4, l5, l6, l7]: [f32; LANES]) -> f32 {
    ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7))
}

/// A finite IEEE half as an f32, without a branch: moving the bits gives the number times 2^−112,
/// subnormals included, and the multiplication by 2^112 is exact.
#[inline(always)]
pub(super) fn half_to_f32(bytes: [u8; 2]) -> f32 {
    const TWO_112: f32 = f32::from_bits((112 + 127) << 23);
    let bits = u16::from_le_bytes(bytes) as u32;
    f32::from_bits((bits & 0x8000) << 16 | (bits & 0x7fff) << 13) * TWO_112
}

/// One row of an embedding in Q15.16: `out[c] = weight[row, c]`, rounded to nearest, saturating.
///
/// Shapes: `matrix` is `[rows, cols]`, `out` is `[cols]`; `row` is below `rows`.
pub fn row(matrix: &Tensor<'_>, row: usize, out: &mut [i32]) {
    for_each_weight(matrix, row, out, |out, weight| *out = weight);
}

/// Adds a row of an embedding: `out[c] = out[c] + weight[row, c]`, saturating. Shapes as in [`row`].
pub fn add_row(matrix: &Tensor<'_>, row: usize, out: &mut [i32]) {
    for_each_weight(matrix, row, out, |out, weight| *out = out.saturating_add(weight));
}

#[inline(always)]
fn for_each_weight(matrix: &Tensor<'_>, row: usize, out: &mut [i32], each: impl Fn(&mut i32, i32)) {
    let layout = matrix.layout();
    let codes = &matrix.codes[row * layout.row_codes..][..layout.row_codes];
    let scales = &matrix.scales[row * layout.row_scales..][..layout.row_scales];
    let shift = matrix.exponent - RESIDUAL_FRAC as i32;
    match matrix.precision {
        Precision::Fp16 => {
            for (out, half) in out.iter_mut().zip(codes.as_chunks::<2>().0) {
                each(out, f32_to_residual(half_to_f32(*half)));
            }
        }
        Precision::Int8 => {
            let mantissa = pair_u16(scales, 0) as i64;
            for (out, &code) in out.iter_mut().zip(codes) {
                each(out, shift_round((code as i8) as i64 * mantissa, shift));
            }
        }
        Precision::Int4 => {
            let mantissa = pair_u16(scales, 0) as i64;
            let mut packed = codes;
            for (g, out) in out.chunks_mut(matrix.group).enumerate() {
                let unit = mantissa * group_scale(scales, g) as i64;
                let half = out.len().div_ceil(2);
                let (bytes, rest) = packed.split_at(half);
                packed = rest;
                let (low, high) = out.split_at_mut(half);
                for (out, &p) in low.iter_mut().zip(bytes) {
                    each(out, shift_round(low_code(p) as i64 * unit, shift));
                }
                for (out, &p) in high.iter_mut().zip(bytes) {
                    each(out, shift_round(high_code(p) as i64 * unit, shift));
                }
            }
        }
    }
}
