//! Several vectors with the same matrix, on hosts: a few rows at a time are decoded once for the
//! whole batch and multiplied by one vector after the other.
//!
//! A grouped weight times its group scale is at most 32 · 15 = 480 and fits the same 16 bits as an
//! INT8 code, so both become `i16` and exact sums. Sixteen rows make a panel, in which the weights
//! of the same two inputs are adjacent; FP16 panels have eight rows, by eight inputs, as f32.

use core::cell::Cell;

#[cfg(any(test, not(any(target_arch = "x86_64", neon))))]
use super::matrix::Matrix;
use super::portable::{
    self, LANES, bias, field, for_each_chunk, for_each_plane, fp16_unit, group_scale, half_to_f32,
    int8_code, sum_lanes,
};
use super::vectors::Vectors;
use crate::blob::{Precision, Tensor, pair_u16};
use crate::numeric::{RESIDUAL_FRAC, Scale, f32_to_residual, shift_round};

/// Longest row that is decoded on the stack; longer ones go vector by vector.
pub(super) const LONGEST: usize = 1024;
/// Rows per register, one in each lane.
pub(super) const ROWS: usize = 8;
/// Rows of a panel of integers: two registers share the loads of a vector.
pub(super) const PANEL: usize = 2 * ROWS;
/// Vectors for which a panel is decoded once.
pub(super) const BLOCK: usize = 128;

/// Two columns of a panel: row 0's two weights, row 1's and so on.
pub(super) type Pair = [[i16; 2 * ROWS]; 2];

/// Eight columns of eight FP16 rows, row by row, padded with zeros, which change no sum.
pub(super) type Eight = [[f32; LANES]; ROWS];

/// The rows' part of the requantization of eight rows: of rows 0, 2, 4, 6, then of the others.
#[derive(Clone, Copy, Default)]
pub(super) struct Scales {
    /// Row mantissas.
    pub(super) mantissas: [[i64; ROWS / 2]; 2],
    /// Biases in Q15.16.
    pub(super) biases: [[i64; ROWS / 2]; 2],
}

/// The vector's part: an accumulator times both mantissas is shifted right and rounded.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AVX2 lacks such a shift"))]
#[derive(Clone, Copy, Default)]
pub(super) struct Rescale {
    /// Mantissa of the vector's scale.
    pub(super) mantissa: i64,
    /// Bits to shift by.
    pub(super) shift: i64,
    /// Rounding constant minus 2^63, for shifts from 1 to 62.
    pub(super) raise: i64,
    /// 2^63 after the shift, minus 2^31.
    pub(super) lower: i64,
}

impl Rescale {
    #[inline(always)]
    pub(super) fn new(matrix: &Tensor<'_>, scale: Scale) -> Self {
        let shift = matrix.exponent - scale.exponent as i32 - RESIDUAL_FRAC as i32;
        let mantissa = scale.mantissa as i64;
        if !(1..=62).contains(&shift) {
            return Self { mantissa, shift: shift as i64, raise: 0, lower: 0 };
        }
        Self {
            mantissa,
            shift: shift as i64,
            raise: (1i64 << (shift - 1)).wrapping_add(i64::MIN),
            lower: (1i64 << (63 - shift)) - (1 << 31),
        }
    }
}

/// The operations that instruction sets accelerate. `put` gets outputs with the index of their
/// vector.
pub(super) trait Products: Copy {
    /// Decodes a row of grouped codes: weights times their groups' scales.
    fn decode(self, matrix: &Tensor<'_>, scales: &[u8], row: &[u8], weights: &mut [i16]) {
        decode(matrix, scales, row, weights);
    }

    /// Multiplies a panel by every vector: exact sums, requantized as in [`portable`]. `codes` are
    /// vectors of `cols` codes, the panel has ⌈cols / 2⌉ pairs.
    fn integer(
        self,
        panel: &[Pair],
        codes: &[i16],
        cols: usize,
        scales: &[Scales; 2],
        rescales: &[Rescale],
        put: impl FnMut(usize, [[i32; ROWS]; 2]),
    );

    /// Interleaves rows into a panel; an odd row ends in a zero.
    #[inline(always)]
    fn interleave(self, rows: &[[i16; LONGEST]; PANEL], panel: &mut [Pair]) {
        for (c, pair) in panel.iter_mut().enumerate() {
            let weights = pair.as_flattened_mut().as_chunks_mut::<2>().0;
            for (weights, row) in weights.iter_mut().zip(rows) {
                *weights = [row[2 * c], row[2 * c + 1]];
            }
        }
    }
}

/// Loops that the compiler vectorizes.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Portable {
    /// Requantizes the sums of eight rows.
    #[inline(always)]
    pub(super) fn requantize_panel(
        sums: [i32; ROWS],
        scales: &Scales,
        rescale: &Rescale,
    ) -> [i32; ROWS] {
        core::array::from_fn(|j| {
            let (mantissa, bias) = (scales.mantissas[j % 2][j / 2], scales.biases[j % 2][j / 2]);
            Self::requantize(sums[j], mantissa, bias as i32, rescale)
        })
    }

    /// Requantizes a sum.
    #[inline(always)]
    pub(super) fn requantize(sum: i32, mantissa: i64, bias: i32, rescale: &Rescale) -> i32 {
        let product = sum as i64 * (mantissa * rescale.mantissa);
        shift_round(product, rescale.shift as i32).saturating_add(bias)
    }
}

impl Products for Portable {
    #[inline(always)]
    fn integer(
        self,
        panel: &[Pair],
        codes: &[i16],
        cols: usize,
        scales: &[Scales; 2],
        rescales: &[Rescale],
        mut put: impl FnMut(usize, [[i32; ROWS]; 2]),
    ) {
        let vectors = codes.chunks_exact(cols).zip(rescales);
        for (b, (codes, rescale)) in vectors.enumerate() {
            let mut sums = [[0; ROWS]; 2];
            for (pair, codes) in panel.iter().zip(codes.chunks(2)) {
                for (c, &code) in codes.iter().enumerate() {
                    let weights = pair.as_flattened().iter().skip(c).step_by(2);
                    for (sum, &weight) in sums.as_flattened_mut().iter_mut().zip(weights) {
                        *sum += weight as i32 * code as i32;
                    }
                }
            }
            put(b, [0, 1].map(|half| Self::requantize_panel(sums[half], &scales[half], rescale)));
        }
    }
}

/// See [`super::kernel::Kernel::run`]; takes any several vectors.
#[cfg(any(test, not(any(target_arch = "x86_64", neon))))]
pub(super) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let several = x.scales.len() > 1;
    if several {
        matmul(Portable, matrix, x, out);
    }
    several
}

/// As [`portable::matmul`], bit for bit.
#[inline(always)]
pub(super) fn matmul(
    products: impl Products,
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) {
    if x.scales.len() < 2 || matrix.cols > LONGEST || matrix.codes.is_empty() {
        return portable::matmul(matrix, x, out);
    }
    match matrix.precision {
        Precision::Fp16 => fp16(matrix, x, out),
        Precision::Int8 => integer(products, matrix, x, out, |_, row, weights| {
            for (c, (weight, &code)) in weights.iter_mut().zip(row).enumerate() {
                *weight = int8_code(code, c) as i16;
            }
        }),
        _ => integer(products, matrix, x, out, |scales, row, weights| {
            products.decode(matrix, scales, row, weights);
        }),
    }
}

/// The blocks of a batch: index of the first vector, codes, scales.
#[inline(always)]
fn blocks<'a>(x: Vectors<'a>, cols: usize) -> impl Iterator<Item = (usize, &'a [i16], &'a [u32])> {
    let blocks = x.codes.chunks(BLOCK * cols).zip(x.scales.chunks(BLOCK));
    blocks.enumerate().map(|(block, (codes, scales))| (block * BLOCK, codes, scales))
}

/// Calls `each` with every `N` rows: first row, count, and indices, padded with the last row.
#[inline(always)]
fn for_each_rows<const N: usize>(rows: usize, mut each: impl FnMut(usize, usize, [usize; N])) {
    for first in (0..rows).step_by(N) {
        let indices = core::array::from_fn(|j| (first + j).min(rows - 1));
        each(first, N.min(rows - first), indices);
    }
}

/// `decode` turns a row's scales and codes into weights.
#[inline(always)]
fn integer(
    products: impl Products,
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
    decode: impl Fn(&[u8], &[u8], &mut [i16]),
) {
    let layout = matrix.layout();
    let mut rows = [[0i16; LONGEST]; PANEL];
    let mut panel: [Pair; LONGEST / 2] = [[[0; 2 * ROWS]; 2]; LONGEST / 2];
    let panel = &mut panel[..matrix.cols.div_ceil(2)];
    let mut rescales = [Rescale::default(); BLOCK];
    for (start, codes, scales) in blocks(x, matrix.cols) {
        let rescales = &mut rescales[..scales.len()];
        for (rescale, &scale) in rescales.iter_mut().zip(scales) {
            *rescale = Rescale::new(matrix, Scale::unpack(scale));
        }
        for_each_rows(matrix.rows, |first, count, indices: [usize; PANEL]| {
            let scales_of = |r: usize| &matrix.scales[r * layout.row_scales..][..layout.row_scales];
            for (j, r) in indices.into_iter().enumerate() {
                let codes = &matrix.codes[r * layout.row_codes..][..layout.row_codes];
                decode(scales_of(r), codes, &mut rows[j][..matrix.cols]);
            }
            products.interleave(&rows, panel);
            let lanes = |half: usize, of: &dyn Fn(usize) -> i64| {
                let row = |odd, j| indices[half * ROWS + 2 * j + odd];
                [0, 1].map(|odd| core::array::from_fn(|j| of(row(odd, j))))
            };
            let scales = [0, 1].map(|half| Scales {
                mantissas: lanes(half, &|r| pair_u16(scales_of(r), 0) as i64),
                biases: lanes(half, &|r| bias(matrix, r) as i64),
            });
            products.integer(panel, codes, matrix.cols, &scales, rescales, |b, values| {
                let values: [i32; PANEL] = core::array::from_fn(|j| values[j / ROWS][j % ROWS]);
                put(values, count, &mut out[(start + b) * matrix.rows + first..]);
            });
        });
    }
}

#[inline(always)]
fn put<const N: usize>(values: [i32; N], count: usize, out: &mut [i32]) {
    if count == N {
        // A length known at compile time, unlike the other.
        out[..N].copy_from_slice(&values);
    } else {
        out[..count].copy_from_slice(&values[..count]);
    }
}

/// Any planes and any group size.
#[inline(always)]
pub(super) fn decode(matrix: &Tensor<'_>, scales: &[u8], row: &[u8], weights: &mut [i16]) {
    weights.fill(0);
    let weights = Cell::from_mut(weights).as_slice_of_cells();
    for_each_plane(matrix, row, |plane, packed| {
        for_each_chunk(*plane, matrix.group, packed, weights, |g, lane, bytes, weights| {
            let scale = group_scale(scales, g) << plane.shift;
            for (j, (weight, &p)) in weights.iter().zip(bytes).enumerate() {
                weight.set(weight.get() + (scale * field(*plane, p, j, lane)) as i16);
            }
        });
    });
}

/// As [`portable::row`] for grouped codes of at most [`LONGEST`] columns; returns whether they are.
#[inline(always)]
pub(super) fn row(
    products: impl Products,
    matrix: &Tensor<'_>,
    row: usize,
    out: &mut [i32],
) -> bool {
    if !matrix.precision.is_grouped() || matrix.cols > LONGEST {
        return false;
    }
    let layout = matrix.layout();
    let codes = &matrix.codes[row * layout.row_codes..][..layout.row_codes];
    let scales = &matrix.scales[row * layout.row_scales..][..layout.row_scales];
    let mut weights = [0; LONGEST];
    let weights = &mut weights[..matrix.cols];
    products.decode(matrix, scales, codes, weights);
    let mantissa = pair_u16(scales, 0) as i64;
    let shift = matrix.exponent - RESIDUAL_FRAC as i32;
    for (out, &weight) in out.iter_mut().zip(weights.iter()) {
        *out = shift_round(weight as i64 * mantissa, shift);
    }
    true
}

/// Multiplies eight FP16 rows by every vector: lanes of f32, summed and rounded as in [`portable`].
/// `codes` are vectors of `cols` codes, `units` the value of one unit of each vector's codes.
#[inline(always)]
fn halves(
    panel: &[Eight],
    codes: &[i16],
    cols: usize,
    biases: &[i32; ROWS],
    units: &[f32],
    mut put: impl FnMut(usize, [i32; ROWS]),
) {
    for (b, (codes, unit)) in codes.chunks_exact(cols).zip(units).enumerate() {
        let mut lanes = [[0f32; LANES]; ROWS];
        for (eight, codes) in panel.iter().zip(codes.chunks(LANES)) {
            for (lanes, weights) in lanes.iter_mut().zip(eight) {
                for ((lane, weight), &code) in lanes.iter_mut().zip(weights).zip(codes) {
                    *lane += weight * code as f32;
                }
            }
        }
        let value =
            |j: usize| f32_to_residual(sum_lanes(lanes[j]) * unit).saturating_add(biases[j]);
        put(b, core::array::from_fn(value));
    }
}

#[inline(always)]
fn fp16(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let mut panel: [Eight; LONGEST / LANES] = [[[0.0; LANES]; ROWS]; LONGEST / LANES];
    let panel = &mut panel[..matrix.cols.div_ceil(LANES)];
    let mut units = [0f32; BLOCK];
    for (start, codes, scales) in blocks(x, matrix.cols) {
        let units = &mut units[..scales.len()];
        for (unit, &scale) in units.iter_mut().zip(scales) {
            *unit = fp16_unit(matrix, Scale::unpack(scale));
        }
        for_each_rows(matrix.rows, |first, count, indices: [usize; ROWS]| {
            for (j, r) in indices.into_iter().enumerate() {
                let row = &matrix.codes[2 * r * matrix.cols..][..2 * matrix.cols];
                for (eight, halves) in panel.iter_mut().zip(row.chunks(2 * LANES)) {
                    for (weight, &half) in eight[j].iter_mut().zip(halves.as_chunks::<2>().0) {
                        *weight = half_to_f32(half);
                    }
                }
            }
            let biases = indices.map(|r| bias(matrix, r));
            halves(panel, codes, matrix.cols, &biases, units, |b, values| {
                put(values, count, &mut out[(start + b) * matrix.rows + first..]);
            });
        });
    }
}
