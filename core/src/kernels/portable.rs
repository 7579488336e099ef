//! The portable kernels: they run on every target and define what every other kernel returns.
//!
//! ```text
//! INT8         acc = Σ_c code[r,c] · x[c]                           exact in i32
//! INT2 to 6    acc = Σ_g scale[r,g] · Σ_{c in g} code[r,c] · x[c]   exact in i32
//!              y   = round(acc · m[r] · X · 2^−shift) + bias[r]
//! FP16   eight f32 lanes, lane j summing c ≡ j (mod 8) in order, then
//!        ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7));  y = round(acc · X / max_code) + bias[r]
//! ```
//!
//! with X the scale of the vector. The accumulators cannot overflow: 2^14 inputs times codes of at
//! most 2^7 (INT8) or 2^5 · 15 (INT6, with its group scale) times activations below 2^8 are below
//! 2^31, in each plane and in their sum.

use half::f16;

use super::vectors::Vectors;
use crate::blob::{INT8_OFFSETS, Plane, Precision, Tensor, pair_i16, pair_u16};
use crate::numeric::{
    RESIDUAL_FRAC, Scale, f32_to_residual, residual_to_f32, residual_to_half, shift_round,
};

/// Partial sums of an FP16 row.
pub(super) const LANES: usize = 8;

/// See [`super::dispatch::matmul`].
#[inline(always)]
pub fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    if matrix.codes.is_empty() {
        return;
    }
    match matrix.precision {
        // Not on cores whose own kernel leaves only odd cases to this one.
        Precision::Int4
            if matrix.group == 32 && matrix.cols.is_multiple_of(32) && cfg!(not(arm_dsp)) =>
        {
            int4_by_32(matrix, x, out)
        }
        Precision::Int8 => int8(matrix, x, out),
        Precision::Fp16 => fp16(matrix, x, out),
        _ => grouped(matrix, x, out),
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

/// Requantizes an accumulator to Q15.16: row mantissa, vector scale, rounding shift, bias.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
pub(super) fn requantize(
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
pub(super) fn bias(matrix: &Tensor<'_>, row: usize) -> i32 {
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
            let products = row.iter().enumerate().zip(codes);
            let acc: i32 = products.map(|((c, &w), &a)| int8_code(w, c) as i32 * a as i32).sum();
            out[b * matrix.rows + r] = requantize(matrix, r, acc, mantissa, scale);
        }
    }
}

/// Code of input `c` of an INT8 row from its stored byte.
#[inline(always)]
pub(super) fn int8_code(stored: u8, c: usize) -> i8 {
    (stored ^ INT8_OFFSETS[c % 2]) as i8
}

/// INT4 in groups of 32 that divide the row.
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
            out[b * matrix.rows + r] = requantize(matrix, r, acc, mantissa, scale);
        }
    }
}

#[inline(always)]
fn dot_group_of_32(packed: &[u8; 16], activations: &[i16; 32]) -> i32 {
    let [Plane { offsets, .. }] = Precision::Int4.planes() else { return 0 };
    let mut sum = 0i32;
    for j in 0..16 {
        let byte = packed[j] ^ offsets[j % 2];
        let low = ((byte << 4) as i8 >> 4) as i32;
        let high = (byte as i8 >> 4) as i32;
        sum += low * activations[j] as i32 + high * activations[j + 16] as i32;
    }
    sum
}

/// Any planes and any group size, the last group of a row possibly shorter.
#[inline(always)]
fn grouped(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let layout = matrix.layout();
    let rows = matrix.codes.chunks_exact(layout.row_codes);
    let scales = matrix.scales.chunks_exact(layout.row_scales);
    for (r, (row, row_scales)) in rows.zip(scales).enumerate() {
        let mantissa = pair_u16(row_scales, 0);
        for (b, codes, scale) in batch(x, matrix.cols) {
            let mut acc = 0i32;
            for_each_plane(matrix, row, |plane, packed| {
                let mut sum = 0i32;
                for_each_chunk(*plane, matrix.group, packed, codes, |g, lane, bytes, codes| {
                    let products = bytes.iter().enumerate().zip(codes);
                    let part: i32 =
                        products.map(|((j, &p), &a)| field(*plane, p, j, lane) * a as i32).sum();
                    sum += group_scale(row_scales, g) * part;
                });
                acc += sum << plane.shift;
            });
            out[b * matrix.rows + r] = requantize(matrix, r, acc, mantissa, scale);
        }
    }
}

/// Calls `each` with every plane of a row and its bytes.
#[inline(always)]
pub(super) fn for_each_plane<'a>(
    matrix: &Tensor<'_>,
    mut row: &'a [u8],
    mut each: impl FnMut(&'static Plane, &'a [u8]),
) {
    for plane in matrix.precision.planes() {
        let (packed, rest) = row.split_at(plane.row_bytes(matrix.cols, matrix.group));
        row = rest;
        each(plane, packed);
    }
}

/// Walks a plane's row along an array with one element per input. Calls `each` with the group, the
/// lane (which bits of a byte), the bytes, and the elements that these bits of these bytes belong
/// to.
#[inline(always)]
pub(super) fn for_each_chunk<T>(
    plane: Plane,
    group: usize,
    mut packed: &[u8],
    elements: &[T],
    mut each: impl FnMut(usize, usize, &[u8], &[T]),
) {
    for (g, elements) in elements.chunks(group).enumerate() {
        let (bytes, rest) = packed.split_at(plane.bytes(elements.len()));
        packed = rest;
        for (lane, elements) in elements.chunks(bytes.len()).enumerate() {
            each(g, lane, bytes, elements);
        }
    }
}

/// The bits of a code in lane `lane` of byte `j` of a plane's group.
#[inline(always)]
pub(super) fn field(plane: Plane, packed: u8, j: usize, lane: usize) -> i32 {
    let unused = 8 - plane.bits;
    let top = (packed ^ plane.offsets[j % 2]) << (unused - plane.bits * lane as u32);
    if plane.signed { (top as i8 >> unused) as i32 } else { (top >> unused) as i32 }
}

/// Scale of group `g`; a row's scales begin with its mantissa.
#[inline(always)]
pub(super) fn group_scale(row_scales: &[u8], g: usize) -> i32 {
    ((row_scales[2 + g / 2] >> (4 * (g % 2))) & 15) as i32
}

#[inline(always)]
fn fp16(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    for (r, row) in matrix.codes.chunks_exact(2 * matrix.cols).enumerate() {
        for (b, codes, scale) in batch(x, matrix.cols) {
            let sum = dot_fp16(row, codes);
            out[b * matrix.rows + r] = requantize_fp16(matrix, r, sum, scale);
        }
    }
}

/// As [`requantize`] for the sum of an FP16 row.
#[inline(always)]
fn requantize_fp16(matrix: &Tensor<'_>, row: usize, sum: f32, scale: Scale) -> i32 {
    f32_to_residual(sum * fp16_unit(matrix, scale)).saturating_add(bias(matrix, row))
}

/// Value of one unit of a vector's codes, for an FP16 matrix.
#[inline(always)]
pub(super) fn fp16_unit(matrix: &Tensor<'_>, scale: Scale) -> f32 {
    scale.to_f32() * (1.0 / matrix.max_code as f32)
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

/// Sum of an FP16 row's lanes, in the contract's order.
#[inline(always)]
pub(super) fn sum_lanes([l0, l1, l2, l3, l4, l5, l6, l7]: [f32; LANES]) -> f32 {
    ((l0 + l4) + (l2 + l6)) + ((l1 + l5) + (l3 + l7))
}

/// A finite IEEE half as an f32, by integer operations alone. Every nonzero half is a normal f32,
/// so that no float operation sees a subnormal, which some FPU settings and soft-float libraries
/// flush to zero.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
pub(super) fn half_to_f32(bytes: [u8; 2]) -> f32 {
    let half = u16::from_le_bytes(bytes) as u32;
    let (sign, magnitude) = (half & 0x8000, half & 0x7fff);
    let magnitude = match magnitude {
        0 => 0,
        // Subnormal, in units of 2^−24: its highest bit becomes the leading one, which adds to the
        // exponent.
        1..0x400 => {
            let zeros = magnitude.leading_zeros();
            ((133 - zeros) << 23) + (magnitude << (zeros - 8))
        }
        // Exponent bias 127 instead of 15.
        _ => (magnitude << 13) + (112 << 23),
    };
    f32::from_bits(sign << 16 | magnitude)
}

/// See [`super::dispatch::to_halves`].
pub fn to_halves(values: &[i32], halves: &mut [f16]) {
    for (half, &value) in halves.iter_mut().zip(values) {
        // Targets without `std` have no FPU, or a kernel of their own for it.
        *half = if cfg!(feature = "std") { by_float(value) } else { residual_to_half(value) };
    }
}

/// [`residual_to_half`] by way of an f32, which compilers for hosts vectorize.
#[inline(always)]
fn by_float(value: i32) -> f16 {
    let float = residual_to_f32(value).to_bits();
    let magnitude = float & 0x7fff_ffff;
    // To nearest even: half a unit of the eleventh bit, minus one where that bit is even.
    let normal = ((magnitude + 0xfff + (magnitude >> 13 & 1)) >> 13).wrapping_sub(112 << 10);
    // Below four units of 2^−16 the half is subnormal, in units of 2^−24.
    let units = value.unsigned_abs();
    let magnitude = if units < 4 { units << 8 } else { normal };
    f16::from_bits((float >> 16 & 0x8000 | magnitude) as u16)
}

/// One row of an embedding in Q15.16: `out[c] = weight[row, c]`, rounded to nearest, saturating.
///
/// Shapes: `matrix` is `[rows, cols]`, `out` is `[cols]`; `row` is below `rows`.
#[cfg_attr(feature = "std", inline(always))]
pub fn row(matrix: &Tensor<'_>, row: usize, out: &mut [i32]) {
    out.fill(0);
    add_row(matrix, row, out);
}

/// Adds a row of an embedding: `out[c] = out[c] + weight[row, c]`, saturating. Shapes as in
/// [`row`].
#[cfg_attr(feature = "std", inline(always))]
pub fn add_row(matrix: &Tensor<'_>, row: usize, out: &mut [i32]) {
    let layout = matrix.layout();
    let codes = &matrix.codes[row * layout.row_codes..][..layout.row_codes];
    let scales = &matrix.scales[row * layout.row_scales..][..layout.row_scales];
    let shift = matrix.exponent - RESIDUAL_FRAC as i32;
    match matrix.precision {
        Precision::Fp16 => {
            for (out, half) in out.iter_mut().zip(codes.as_chunks::<2>().0) {
                *out = out.saturating_add(f32_to_residual(half_to_f32(*half)));
            }
        }
        Precision::Int8 => {
            let mantissa = pair_u16(scales, 0) as i32;
            for (c, (out, &code)) in out.iter_mut().zip(codes).enumerate() {
                add_scaled(out, int8_code(code, c) as i32 * mantissa, shift);
            }
        }
        _ => {
            let mantissa = pair_u16(scales, 0) as i32;
            for (g, out) in out.chunks_mut(matrix.group).enumerate() {
                let unit = mantissa * group_scale(scales, g);
                let [plane] = *matrix.precision.planes() else {
                    let mut codes = GroupCodes::new(matrix, codes, g, out.len());
                    out.iter_mut().for_each(|out| add_scaled(out, codes.next() * unit, shift));
                    continue;
                };
                let bytes = &codes[g * plane.bytes(matrix.group)..][..plane.bytes(out.len())];
                for (lane, out) in out.chunks_mut(bytes.len()).enumerate() {
                    for (j, (out, &byte)) in out.iter_mut().zip(bytes).enumerate() {
                        add_scaled(out, field(plane, byte, j, lane) * unit, shift);
                    }
                }
            }
        }
    }
}

/// Adds a product below 2^25 in magnitude: a code of at most 2^7, or 2^5 · 15, times a mantissa.
#[inline(always)]
fn add_scaled(out: &mut i32, product: i32, shift: i32) {
    let rounded = match shift {
        // Fits 32 bits: half of what is shifted out is below 2^30.
        1..=30 => (product + (1 << (shift - 1))) >> shift,
        _ => shift_round(product as i64, shift),
    };
    *out = out.saturating_add(rounded);
}

/// Iterates over the codes of a row's group, in the order of inputs.
pub(super) struct GroupCodes<'a> {
    /// For each plane the group's bytes, and byte and lane of the next code.
    planes: [(&'a [u8], usize, usize); 2],
    precision: Precision,
}

impl<'a> GroupCodes<'a> {
    /// The codes of the `inputs` inputs of group `g`.
    #[inline(always)]
    pub(super) fn new(matrix: &Tensor<'_>, row: &'a [u8], g: usize, inputs: usize) -> Self {
        let mut planes = [(&row[..0], 0, 0); 2];
        let mut bytes_of = planes.iter_mut();
        for_each_plane(matrix, row, |plane, packed| {
            if let Some((bytes, ..)) = bytes_of.next() {
                *bytes = &packed[g * plane.bytes(matrix.group)..][..plane.bytes(inputs)];
            }
        });
        Self { planes, precision: matrix.precision }
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> i32 {
        let mut code = 0;
        for (plane, (bytes, j, lane)) in self.precision.planes().iter().zip(&mut self.planes) {
            code += field(*plane, bytes[*j], *j, *lane) << plane.shift;
            *j += 1;
            if *j == bytes.len() {
                (*j, *lane) = (0, *lane + 1);
            }
        }
        code
    }
}
