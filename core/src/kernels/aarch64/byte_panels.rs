//! Several vectors as bytes, with the dot products of Armv8.2 or the products of matrices of
//! Armv8.6. Weights are offset as for single vectors.

use alloc::vec::Vec;
use core::arch::aarch64::*;

use super::codes::{narrow, padded};
use super::decode::{Planes, SIXTEEN, Storage, fits, with_storage};
use super::dot::DotProducts;
use super::int8;
use super::matrix_products::MatrixProducts;
use super::requantize::{FOUR, Four, WORD, requantize};
use super::tile::{Codes, FOURS, Panel, Tile, VECTORS};
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::{BLOCK, Rescale};
use crate::kernels::choice::Reason;
use crate::kernels::matrix::Matrix;
use crate::kernels::vectors::{Vectors, not_negative};
use crate::numeric::Scale;

/// For integers of at least four rows; grouped ones in groups of 16, 32 or 64 that divide the row.
pub(in crate::kernels) fn admits(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if matrix.precision != Precision::Int8 && !fits(matrix) {
        return Err(Reason::Storage);
    }
    if matrix.rows >= FOUR && matrix.cols > 0 { Ok(()) } else { Err(Reason::Shape) }
}

/// See [`crate::kernels::kernel::Kernel::run`]; takes any several vectors, unless a code behind a
/// ReLU is negative.
///
/// # Safety
///
/// The processor has the dot products of Armv8.2.
pub(in crate::kernels) unsafe fn run_with_dot_products(
    matrix: &Matrix<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) -> bool {
    // SAFETY: as the caller says.
    run(unsafe { DotProducts::promised() }, matrix, x, out)
}

/// As [`run_with_dot_products`], with products of matrices.
///
/// # Safety
///
/// The processor has the products of matrices of bytes of Armv8.6.
pub(in crate::kernels) unsafe fn run_with_matrix_products(
    matrix: &Matrix<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) -> bool {
    // SAFETY: as the caller says.
    run(unsafe { MatrixProducts::promised() }, matrix, x, out)
}

fn run<T: Tile>(tile: T, matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    if x.scales.len() < 2 {
        return false;
    }
    if matrix.max_code <= 127 {
        by_storage::<T, false>(tile, matrix, x, out);
    } else if not_negative(x.codes) {
        by_storage::<T, true>(tile, matrix, x, out);
    } else {
        return false;
    }
    true
}

fn by_storage<T: Tile, const RELU: bool>(
    tile: T,
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) {
    if matrix.precision == Precision::Int8 {
        let offset = if RELU { 128 } else { 0 };
        let unpack = |fours: &[Four<'_>; FOURS], panel: &mut Panel| {
            unpack_int8::<T, RELU>(matrix.cols, fours, panel);
        };
        each_panel::<T, RELU, false>(tile, matrix, matrix.cols, offset, x, out, unpack);
    } else {
        with_storage!(matrix, grouped, T, RELU; tile, matrix, x, out)
    }
}

#[inline(never)]
fn grouped<S: Storage, const GROUP: usize, T: Tile, const RELU: bool>(
    tile: T,
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) {
    let unpack = |fours: &[Four<'_>; FOURS], panel: &mut Panel| {
        unpack::<S, GROUP, T>(matrix.cols, fours, panel);
    };
    each_panel::<T, RELU, true>(tile, matrix, GROUP, S::OFFSET as i32, x, out, unpack);
}

/// Computes the outputs of all rows and vectors. `unpack` decodes a panel; groups of `group` inputs
/// have scales if `SCALED`.
#[inline(always)]
fn each_panel<T: Tile, const RELU: bool, const SCALED: bool>(
    tile: T,
    matrix: &Tensor<'_>,
    group: usize,
    offset: i32,
    x: Vectors<'_>,
    out: &mut [i32],
    unpack: impl Fn(&[Four<'_>; FOURS], &mut Panel),
) {
    let Tensor { rows, cols, .. } = *matrix;
    // SAFETY: NEON is part of the target.
    let (zeros, zero) = unsafe { (vdupq_n_u8(0), vdupq_n_s32(0)) };
    let mut panel = Panel {
        steps: alloc::vec![[[zeros; FOURS]; SIXTEEN / FOUR]; cols.div_ceil(SIXTEEN)],
        scales: alloc::vec![[zero; FOURS]; cols.div_ceil(group)],
    };
    let layout = matrix.layout();
    let (mut fours, mut rescales) = (Vec::new(), Vec::new());
    let blocks = x.codes.chunks(BLOCK * cols).zip(x.scales.chunks(BLOCK));
    for ((codes, scales), out) in blocks.zip(out.chunks_mut(BLOCK * rows)) {
        fours.clear();
        let vectors = codes.chunks(VECTORS * cols);
        fours.extend(vectors.map(|codes| to_bytes::<T>(codes, cols, group, offset)));
        rescales.clear();
        rescales.extend(scales.iter().map(|&scale| Rescale::new(matrix, Scale::unpack(scale))));
        for first in (0..rows).step_by(FOURS * FOUR) {
            let rows_of = core::array::from_fn(|f| Four::new(matrix, &layout, first + FOUR * f));
            unpack(&rows_of, &mut panel);
            let mantissas = rows_of.each_ref().map(Four::mantissas);
            let biases = rows_of.each_ref().map(|four| four.biases(matrix));
            let vectors = fours.iter().zip(rescales.chunks(VECTORS));
            for ((x, rescales), out) in vectors.zip(out.chunks_mut(VECTORS * rows)) {
                let sums = tile.sums::<RELU, SCALED>(&panel, group.div_ceil(SIXTEEN), x);
                for ((sums, rescale), out) in
                    sums.into_iter().zip(rescales).zip(out.chunks_exact_mut(rows))
                {
                    for (f, four) in rows_of.iter().enumerate() {
                        four.set(requantize(sums[f], mantissas[f], biases[f], rescale), out);
                    }
                }
            }
        }
    }
}

/// Decodes a panel of grouped codes.
#[inline(always)]
fn unpack<S: Storage, const GROUP: usize, T: Tile>(
    cols: usize,
    fours: &[Four<'_>; FOURS],
    panel: &mut Panel,
) {
    let row = cols * S::PRECISION.bits() as usize / 8;
    for (f, four) in fours.iter().enumerate() {
        assert!(four.codes.len() == FOUR * row);
        // SAFETY: NEON is part of the target; by the assertion the rows have the groups.
        unsafe {
            let mut scales = vdupq_n_u32(0);
            let steps = panel.steps.chunks_exact_mut(GROUP / SIXTEEN);
            for (g, (steps, scales_of)) in steps.zip(&mut panel.scales).enumerate() {
                if g % WORD == 0 {
                    scales = four.eight_scales(g);
                }
                scales_of[f] = vreinterpretq_s32_u32(vandq_u32(scales, vdupq_n_u32(15)));
                scales = vshrq_n_u32::<4>(scales);
                let mut rows = [four.codes.as_ptr(); FOUR];
                for (r, at) in rows.iter_mut().enumerate() {
                    *at = at.add(r * row);
                }
                for (t, step) in steps.iter_mut().enumerate() {
                    let mut codes = [vdupq_n_u8(0); FOUR];
                    for (codes, row) in codes.iter_mut().zip(rows) {
                        let planes = Planes::first::<S>(row, cols).later::<S>(g * GROUP);
                        *codes = planes.sixteen::<S, GROUP>(t);
                    }
                    for (step, lanes) in step.iter_mut().zip(T::rows(codes)) {
                        step[f] = lanes;
                    }
                }
            }
        }
    }
}

/// Decodes a panel of INT8; weights beyond a row's end are multiplied by zeros.
#[inline(always)]
fn unpack_int8<T: Tile, const RELU: bool>(
    cols: usize,
    fours: &[Four<'_>; FOURS],
    panel: &mut Panel,
) {
    for (f, four) in fours.iter().enumerate() {
        for (c, step) in panel.steps.iter_mut().enumerate() {
            // SAFETY: NEON is part of the target.
            let mut codes = [unsafe { vdupq_n_u8(0) }; FOUR];
            for (codes, row) in codes.iter_mut().zip(four.codes.chunks_exact(cols)) {
                let bytes = &row[SIXTEEN * c..];
                *codes = match bytes.first_chunk() {
                    Some(bytes) => int8::weights::<RELU>(bytes),
                    None => int8::weights::<RELU>(&padded(bytes)),
                };
            }
            for (step, lanes) in step.iter_mut().zip(T::rows(codes)) {
                step[f] = lanes;
            }
        }
    }
}

/// Up to four vectors, padded with zero vectors, each to whole registers.
fn to_bytes<T: Tile>(codes: &[i16], cols: usize, group: usize, offset: i32) -> Codes {
    // SAFETY: NEON is part of the target.
    let zero = unsafe { vdupq_n_u8(0) };
    let mut bytes = alloc::vec![[zero; VECTORS]; cols.div_ceil(SIXTEEN)];
    let mut starts = alloc::vec![[0; VECTORS]; cols.div_ceil(group)];
    for (v, codes) in codes.chunks_exact(cols).enumerate() {
        let groups = codes.chunks(group).zip(bytes.chunks_mut(group.div_ceil(SIXTEEN)));
        for ((codes, bytes), starts) in groups.zip(&mut starts) {
            for (codes, bytes) in codes.chunks(SIXTEEN).zip(bytes) {
                let mut sixteen = [0; SIXTEEN];
                let sums = match codes.first_chunk() {
                    Some(codes) => narrow(codes, &mut sixteen),
                    None => narrow(&padded(codes), &mut sixteen),
                };
                // SAFETY: NEON is part of the target, and the whole array is loaded.
                unsafe {
                    bytes[v] = vld1q_u8(sixteen.as_ptr());
                    starts[v] -= offset * vaddlvq_s16(sums);
                }
            }
        }
    }
    for bytes in &mut bytes {
        *bytes = T::vectors(*bytes);
    }
    Codes { bytes, starts }
}
