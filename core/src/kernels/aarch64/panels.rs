//! Several vectors with NEON, by panels of rows.

use core::arch::aarch64::*;

use super::decode::decode;
use super::requantize::{FOUR, load, requantize, store};
use super::tile::VECTORS;
use super::transpose::eight_by_eight;
use super::{fp16_panels, single};
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::{self, LONGEST, PANEL, Pair, Products, ROWS, Rescale, Scales};
use crate::kernels::matrix::Matrix;
use crate::kernels::vectors::Vectors;

/// See [`crate::kernels::kernel::Kernel::run`]; takes any several vectors, unless they are taken
/// one by one and a code behind a ReLU is negative.
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    if x.scales.len() < 2 {
        return false;
    }
    let usual = single::admits(matrix).is_ok();
    if usual && matrix.precision == Precision::Fp16 {
        fp16_panels::matmul(matrix, x, out);
        return true;
    }
    // Bytes of INT8 have twice as many products per instruction as panels.
    if usual && (matrix.precision == Precision::Int8 || matrix.cols > LONGEST) {
        return single::one_by_one(matrix, x, out);
    }
    batched::matmul(Neon, matrix, x, out);
    true
}

/// NEON, which is part of every 64-bit Arm target with an operating system.
#[derive(Clone, Copy)]
pub(super) struct Neon;

impl Products for Neon {
    #[inline(always)]
    fn decode(self, matrix: &Tensor<'_>, scales: &[u8], row: &[u8], weights: &mut [i16]) {
        decode(matrix, scales, row, weights);
    }

    /// Weights are below 2^9 and codes below 2^8 in magnitude, and at most 1024 columns are summed:
    /// 2^27.
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
        let rows: [[int32x4_t; 2]; FOUR] = core::array::from_fn(|four| in_order(scales, four));
        for (first, rescales) in rescales.chunks(VECTORS).enumerate() {
            let first = VECTORS * first;
            // Padded with the last vector.
            let vector = |j: usize| &codes[(first + j.min(rescales.len() - 1)) * cols..][..cols];
            let sums = sums(panel, [vector(0), vector(1), vector(2), vector(3)]);
            for (b, (sums, rescale)) in sums.into_iter().zip(rescales).enumerate() {
                let four = |four: usize| {
                    let [mantissas, biases] = rows[four];
                    store(requantize(sums[four], mantissas, biases, rescale))
                };
                let fours = [[four(0), four(1)], [four(2), four(3)]];
                put(first + b, fours.map(bytemuck::cast));
            }
        }
    }

    /// Each column of a pair on its own: sixteen rows.
    #[inline(always)]
    fn interleave(self, rows: &[[i16; LONGEST]; PANEL], panel: &mut [Pair]) {
        for (half, rows) in rows.as_chunks::<ROWS>().0.iter().enumerate() {
            for (c, pairs) in panel.chunks_mut(ROWS / 2).enumerate() {
                let rows = rows.each_ref().map(|row| {
                    let eight = &row.as_chunks::<ROWS>().0[c];
                    // SAFETY: NEON is part of the target, and the whole array is loaded.
                    unsafe { vld1q_s16(eight.as_ptr()) }
                });
                let columns = pairs.as_flattened_mut().iter_mut();
                for (column, lanes) in columns.zip(eight_by_eight(rows)) {
                    // SAFETY: as above; half a column has the eight lanes.
                    unsafe { vst1q_s16(column[half * ROWS..][..ROWS].as_mut_ptr(), lanes) };
                }
            }
        }
    }
}

/// Mantissas and biases of four rows of a panel, which are stored evens first.
#[inline(always)]
fn in_order(scales: &[Scales; 2], four: usize) -> [int32x4_t; 2] {
    let of = |values: [&[[i64; ROWS / 2]; 2]; 2]| {
        load(&core::array::from_fn(|r| {
            let row = FOUR * four + r;
            values[row / ROWS][row % 2][row % ROWS / 2] as i32
        }))
    };
    [of(scales.each_ref().map(|s| &s.mantissas)), of(scales.each_ref().map(|s| &s.biases))]
}

/// Sums of sixteen rows with each of four vectors. Not inlined, to have all registers.
#[inline(never)]
fn sums(panel: &[Pair], vectors: [&[i16]; VECTORS]) -> [[int32x4_t; FOUR]; VECTORS] {
    /// Adds the products of column `$column` with code `$lane` of every vector.
    macro_rules! add {
        ($sums:ident, $column:expr, $x:ident, $($lane:literal)?) => {{
            let column: &[i16; PANEL] = $column;
            let (low, high) = (vld1q_s16(column.as_ptr()), vld1q_s16(column.as_ptr().add(ROWS)));
            for (sums, x) in $sums.iter_mut().zip($x) {
                let parts = [vget_low_s16(low), vget_low_s16(high)];
                add!(@two sums[0], sums[1], low, parts[0], x, $($lane)?);
                add!(@two sums[2], sums[3], high, parts[1], x, $($lane)?);
            }
        }};
        (@two $a:expr, $b:expr, $all:ident, $low:expr, $x:ident, $lane:literal) => {
            $a = vmlal_laneq_s16::<$lane>($a, $low, $x);
            $b = vmlal_high_laneq_s16::<$lane>($b, $all, $x);
        };
        (@two $a:expr, $b:expr, $all:ident, $low:expr, $x:ident,) => {
            $a = vmlal_n_s16($a, $low, $x);
            $b = vmlal_high_n_s16($b, $all, $x);
        };
    }
    let whole = vectors[0].len() / ROWS;
    let (eights, rest) = panel.split_at(whole * ROWS / 2);
    // SAFETY: NEON is part of the target; columns and chunks of codes have the lanes that are
    // loaded.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); FOUR]; VECTORS];
        for (c, pairs) in eights.as_chunks::<{ ROWS / 2 }>().0.iter().enumerate() {
            let x = |v: usize| vld1q_s16(vectors[v].as_chunks::<ROWS>().0[c].as_ptr());
            let x = [x(0), x(1), x(2), x(3)];
            let columns = pairs.as_flattened();
            add!(sums, &columns[0], x, 0);
            add!(sums, &columns[1], x, 1);
            add!(sums, &columns[2], x, 2);
            add!(sums, &columns[3], x, 3);
            add!(sums, &columns[4], x, 4);
            add!(sums, &columns[5], x, 5);
            add!(sums, &columns[6], x, 6);
            add!(sums, &columns[7], x, 7);
        }
        for (c, column) in (whole * ROWS..).zip(rest.as_flattened()) {
            // An odd row has a column less than its pairs.
            let x = |v: usize| vectors[v].get(c).copied().unwrap_or(0);
            let x = [x(0), x(1), x(2), x(3)];
            add!(sums, column, x,);
        }
        sums
    }
}
