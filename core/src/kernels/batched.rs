//! The kernels for hosts that multiply many vectors by the same matrix: a few rows at a time are
//! decoded once for the whole batch and meet one vector after the other.
//!
//! A grouped weight times its group scale is at most 32 · 15 = 480 and fits the same 16 bits as an
//! INT8 code, so both become `i16` and exact sums. Eight rows of them make a panel, in which the
//! weights that meet the same two inputs lie side by side. FP16 keeps its eight lanes, four rows at a
//! time.

use core::cell::Cell;

use super::Vectors;
use super::portable::{
    self, LANES, batch, bias, field, for_each_plane, for_each_stretch, group_scale, half_to_f32,
    sum_lanes,
};
use crate::blob::{Precision, Tensor, pair_u16};
use crate::numeric::{RESIDUAL_FRAC, Scale, f32_to_residual, shift_round};

/// Longest row that is decoded on the stack; longer ones go vector by vector.
const LONGEST: usize = 1024;
/// Rows of a panel.
pub(super) const PANEL: usize = 8;
/// FP16 rows that meet a vector at once.
pub(super) const ROWS: usize = 4;
/// Vectors for which a panel is decoded once.
const BLOCK: usize = 128;

/// Two columns of a panel: row 0's two weights, row 1's and so on.
pub(super) type Pair = [i16; 2 * PANEL];

/// What turns the sums of a panel into outputs, of the rows' part: of rows 0, 2, 4, 6, then of the
/// others.
#[derive(Clone, Copy)]
pub(super) struct Scales {
    /// Row mantissas.
    pub(super) mantissas: [[i64; PANEL / 2]; 2],
    /// Biases in Q15.16.
    pub(super) biases: [[i64; PANEL / 2]; 2],
}

/// The vector's part: an accumulator times both mantissas is shifted right and rounded.
#[derive(Clone, Copy, Default)]
pub(super) struct Rescale {
    /// Mantissa of the vector's scale.
    pub(super) mantissa: i64,
    /// Bits to shift by.
    pub(super) shift: i64,
    /// Half of what is shifted out, if the shift is from 1 to 62, less 2^63.
    pub(super) raise: i64,
    /// What 2^63 becomes by the shift, less 2^31.
    pub(super) lower: i64,
}

impl Rescale {
    #[inline(always)]
    fn new(matrix: &Tensor<'_>, scale: Scale) -> Self {
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

/// What an instruction set has to offer. Outputs go to `put` with the number of their vector.
pub(super) trait Products: Copy {
    /// Weights of a row of INT4 codes in groups of 32.
    fn decode_by_32(self, scales: &[u8], row: &[u8], weights: &mut [i16]) {
        decode_by_32(scales, row, weights);
    }

    /// A panel with every vector: exact sums, scaled and rounded as in [`portable`]. `codes` are
    /// vectors of `cols` codes, the panel has ⌈cols / 2⌉ pairs.
    fn integer(
        self,
        panel: &[Pair],
        codes: &[i16],
        cols: usize,
        scales: &Scales,
        rescales: &[Rescale],
        put: impl FnMut(usize, [i32; PANEL]),
    );

    /// Four rows of the same length with every vector: lanes of f32, summed and rounded as in
    /// [`portable`]; `unit` is 1 over the largest code.
    fn halves(
        self,
        rows: [&[f32]; ROWS],
        x: Vectors<'_>,
        biases: &[i64; ROWS],
        unit: f32,
        put: impl FnMut(usize, [i32; ROWS]),
    );
}

/// What the compiler makes of plain loops.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Plain {
    /// Outputs from sums.
    #[inline(always)]
    pub(super) fn finish(sums: [i32; PANEL], scales: &Scales, rescale: &Rescale) -> [i32; PANEL] {
        core::array::from_fn(|j| {
            let (mantissa, bias) = (scales.mantissas[j % 2][j / 2], scales.biases[j % 2][j / 2]);
            let product = sums[j] as i64 * (mantissa * rescale.mantissa);
            shift_round(product, rescale.shift as i32).saturating_add(bias as i32)
        })
    }
}

impl Products for Plain {
    #[inline(always)]
    fn integer(
        self,
        panel: &[Pair],
        codes: &[i16],
        cols: usize,
        scales: &Scales,
        rescales: &[Rescale],
        mut put: impl FnMut(usize, [i32; PANEL]),
    ) {
        let vectors = codes.chunks_exact(cols).zip(rescales);
        for (b, (codes, rescale)) in vectors.enumerate() {
            let mut sums = [0; PANEL];
            for (pair, codes) in panel.iter().zip(codes.chunks(2)) {
                for (c, &code) in codes.iter().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum += pair[2 * j + c] as i32 * code as i32;
                    }
                }
            }
            put(b, Self::finish(sums, scales, rescale));
        }
    }

    #[inline(always)]
    fn halves(
        self,
        rows: [&[f32]; ROWS],
        x: Vectors<'_>,
        biases: &[i64; ROWS],
        unit: f32,
        mut put: impl FnMut(usize, [i32; ROWS]),
    ) {
        for (b, codes, scale) in batch(x, rows[0].len()) {
            let value = |j: usize| {
                let mut lanes = [0f32; LANES];
                add_floats(rows[j], codes, &mut lanes);
                let sum = sum_lanes(lanes);
                f32_to_residual(sum * (scale.to_f32() * unit)).saturating_add(biases[j] as i32)
            };
            put(b, core::array::from_fn(value));
        }
    }
}

/// Adds a stretch of a row that begins at lane 0.
#[inline(always)]
pub(super) fn add_floats(row: &[f32], codes: &[i16], lanes: &mut [f32; LANES]) {
    for (weights, codes) in row.chunks(LANES).zip(codes.chunks(LANES)) {
        for ((lane, weight), &code) in lanes.iter_mut().zip(weights).zip(codes) {
            *lane += weight * code as f32;
        }
    }
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
        Precision::Fp16 => fp16(products, matrix, x, out),
        Precision::Int8 => integer(products, matrix, x, out, |_, row, weights| {
            for (weight, &code) in weights.iter_mut().zip(row) {
                *weight = (code as i8) as i16;
            }
        }),
        Precision::Int4 if matrix.group == 32 && matrix.cols.is_multiple_of(32) => {
            integer(products, matrix, x, out, |scales, row, weights| {
                products.decode_by_32(scales, row, weights);
            })
        }
        _ => integer(products, matrix, x, out, |scales, row, weights| {
            decode(matrix, scales, row, weights);
        }),
    }
}

/// Calls `each` with every `N` rows: the first one, how many there are, and which they are, the last
/// row of the matrix taking empty places.
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
    let mut panel: [Pair; LONGEST / 2] = [[0; 2 * PANEL]; LONGEST / 2];
    let panel = &mut panel[..matrix.cols.div_ceil(2)];
    let mut rescales = [Rescale::default(); BLOCK];
    for (block, scales) in x.scales.chunks(BLOCK).enumerate() {
        let start = block * BLOCK;
        let codes = &x.codes[start * matrix.cols..][..scales.len() * matrix.cols];
        let rescales = &mut rescales[..scales.len()];
        for (rescale, &scale) in rescales.iter_mut().zip(scales) {
            *rescale = Rescale::new(matrix, Scale::unpack(scale));
        }
        for_each_rows(matrix.rows, |first, count, indices: [usize; PANEL]| {
            let scales_of = |r: usize| &matrix.scales[r * layout.row_scales..][..layout.row_scales];
            for (j, r) in indices.into_iter().enumerate() {
                let codes = &matrix.codes[r * layout.row_codes..][..layout.row_codes];
                decode(scales_of(r), codes, &mut rows[j][..matrix.cols]);
                for (pair, weights) in panel.iter_mut().zip(rows[j].as_chunks::<2>().0) {
                    [pair[2 * j], pair[2 * j + 1]] = *weights;
                }
            }
            let halves = |of: &dyn Fn(usize) -> i64| {
                [0, 1].map(|odd| core::array::from_fn(|j| of(indices[2 * j + odd])))
            };
            let scales = Scales {
                mantissas: halves(&|r| pair_u16(scales_of(r), 0) as i64),
                biases: halves(&|r| bias(matrix, r) as i64),
            };
            products.integer(panel, codes, matrix.cols, &scales, rescales, |b, values| {
                put(values, count, &mut out[(start + b) * matrix.rows + first..]);
            });
        });
    }
}

#[inline(always)]
fn put<const N: usize>(values: [i32; N], count: usize, out: &mut [i32]) {
    if count == N {
        // Of a length that is known here, unlike the other.
        out[..N].copy_from_slice(&values);
    } else {
        out[..count].copy_from_slice(&values[..count]);
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
fn decode(matrix: &Tensor<'_>, scales: &[u8], row: &[u8], weights: &mut [i16]) {
    weights.fill(0);
    let weights = Cell::from_mut(weights).as_slice_of_cells();
    for_each_plane(matrix, row, |plane, packed| {
        for_each_stretch(*plane, matrix.group, packed, weights, |g, lane, bytes, weights| {
            let scale = group_scale(scales, g) << plane.shift;
            for (weight, &p) in weights.iter().zip(bytes) {
                weight.set(weight.get() + (scale * field(*plane, p, lane)) as i16);
            }
        });
    });
}

#[inline(always)]
fn fp16(products: impl Products, matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let mut buffer = [[0f32; LONGEST]; ROWS];
    for_each_rows(matrix.rows, |first, count, indices: [usize; ROWS]| {
        for (row, r) in buffer.iter_mut().zip(indices) {
            let halves = &matrix.codes[2 * r * matrix.cols..][..2 * matrix.cols];
            for (weight, &half) in row.iter_mut().zip(halves.as_chunks::<2>().0) {
                *weight = half_to_f32(half);
            }
        }
        let rows = buffer.each_ref().map(|row| &row[..matrix.cols]);
        let biases = indices.map(|r| bias(matrix, r) as i64);
        let unit = 1.0 / matrix.max_code as f32;
        products.halves(rows, x, &biases, unit, |b, values| {
            put(values, count, &mut out[b * matrix.rows + first..]);
        });
    });
}
