//! Several vectors with the dot products of Armv8.2: integers as bytes.
//!
//! A register has four columns of four rows, and a register of a vector's codes multiplies by
//! element, sixteen products per instruction. Weights are offset as for single vectors.

use alloc::vec::Vec;
use core::arch::aarch64::*;

use super::codes::{narrow, padded};
use super::decode::{Planes, SIXTEEN, Storage, fits, with_storage};
use super::dot::DotProducts;
use super::int8;
use super::panels::VECTORS;
use super::requantize::{FOUR, Four, requantize};
use super::transpose::four_by_four;
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::{BLOCK, Rescale};
use crate::kernels::choice::Reason;
use crate::kernels::matrix::Matrix;
use crate::kernels::vectors::{Vectors, not_negative};
use crate::numeric::Scale;

/// Registers of rows.
const FOURS: usize = 2;
/// Groups whose scales fill a word.
const WORD: usize = 8;

/// Sixteen columns of eight rows: for each four columns a register per four rows.
type Step = [[uint8x16_t; FOURS]; SIXTEEN / FOUR];
/// Sums of eight rows with each of four vectors.
type Sums = [[int32x4_t; FOURS]; VECTORS];

/// Eight rows, decoded.
struct Panel {
    steps: Vec<Step>,
    /// For each group a row's scale.
    scales: Vec<[int32x4_t; FOURS]>,
}

/// Four vectors.
struct Codes {
    /// For each sixteen columns.
    bytes: Vec<[uint8x16_t; VECTORS]>,
    /// For each group the negated contribution of the offset of weights, the same for every row.
    starts: Vec<[i32; VECTORS]>,
}

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
pub(in crate::kernels) unsafe fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    if x.scales.len() < 2 {
        return false;
    }
    // SAFETY: as the caller says.
    let dot = unsafe { DotProducts::promised() };
    let matrix: &Tensor<'_> = matrix;
    if matrix.max_code <= 127 {
        by_storage::<false>(dot, matrix, x, out);
    } else if not_negative(x.codes) {
        by_storage::<true>(dot, matrix, x, out);
    } else {
        return false;
    }
    true
}

fn by_storage<const RELU: bool>(
    dot: DotProducts,
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) {
    if matrix.precision == Precision::Int8 {
        let offset = if RELU { 128 } else { 0 };
        let unpack = |fours: &[Four<'_>; FOURS], panel: &mut Panel| {
            unpack_int8::<RELU>(matrix.cols, fours, panel);
        };
        each_panel::<RELU, false>(dot, matrix, matrix.cols, offset, x, out, unpack);
    } else {
        with_storage!(matrix, grouped, RELU; dot, matrix, x, out)
    }
}

#[inline(never)]
fn grouped<S: Storage, const GROUP: usize, const RELU: bool>(
    dot: DotProducts,
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) {
    let unpack = |fours: &[Four<'_>; FOURS], panel: &mut Panel| {
        unpack::<S, GROUP>(matrix.cols, fours, panel);
    };
    each_panel::<RELU, true>(dot, matrix, GROUP, S::OFFSET as i32, x, out, unpack);
}

/// Computes the outputs of all rows and vectors. `unpack` decodes a panel; groups of `group` inputs
/// have scales if `SCALED`.
#[inline(always)]
fn each_panel<const RELU: bool, const SCALED: bool>(
    dot: DotProducts,
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
        fours.extend(vectors.map(|codes| Codes::new(codes, cols, group, offset)));
        rescales.clear();
        rescales.extend(scales.iter().map(|&scale| Rescale::new(matrix, Scale::unpack(scale))));
        for first in (0..rows).step_by(FOURS * FOUR) {
            let rows_of = core::array::from_fn(|f| Four::new(matrix, &layout, first + FOUR * f));
            unpack(&rows_of, &mut panel);
            let mantissas = rows_of.each_ref().map(Four::mantissas);
            let biases = rows_of.each_ref().map(|four| four.biases(matrix));
            let vectors = fours.iter().zip(rescales.chunks(VECTORS));
            for ((x, rescales), out) in vectors.zip(out.chunks_mut(VECTORS * rows)) {
                let sums = sums::<RELU, SCALED>(dot, &panel, group.div_ceil(SIXTEEN), x);
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

/// Sums of eight rows with four vectors; groups have `steps` steps.
#[inline(always)]
fn sums<const RELU: bool, const SCALED: bool>(
    dot: DotProducts,
    panel: &Panel,
    steps: usize,
    x: &Codes,
) -> Sums {
    // SAFETY: NEON is part of the target.
    unsafe {
        let mut totals = [[vdupq_n_s32(0); FOURS]; VECTORS];
        let groups = panel.steps.chunks(steps).zip(x.bytes.chunks(steps)).zip(&x.starts);
        for (g, ((steps, bytes), starts)) in groups.enumerate() {
            let mut sums = starts.map(|start| [vdupq_n_s32(start); FOURS]);
            for (step, bytes) in steps.iter().zip(bytes) {
                for (sums, &x) in sums.iter_mut().zip(bytes) {
                    for (f, sum) in sums.iter_mut().enumerate() {
                        *sum = dot.dot_by_lane::<RELU, 0>(*sum, step[0][f], x);
                        *sum = dot.dot_by_lane::<RELU, 1>(*sum, step[1][f], x);
                        *sum = dot.dot_by_lane::<RELU, 2>(*sum, step[2][f], x);
                        *sum = dot.dot_by_lane::<RELU, 3>(*sum, step[3][f], x);
                    }
                }
            }
            if !SCALED {
                return sums;
            }
            let scales = panel.scales[g];
            for (totals, sums) in totals.iter_mut().zip(sums) {
                for (f, total) in totals.iter_mut().enumerate() {
                    *total = vmlaq_s32(*total, sums[f], scales[f]);
                }
            }
        }
        totals
    }
}

/// Decodes a panel of grouped codes.
#[inline(always)]
fn unpack<S: Storage, const GROUP: usize>(
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
                    put(codes, f, step);
                }
            }
        }
    }
}

/// Decodes a panel of INT8; weights beyond a row's end are multiplied by zeros.
#[inline(always)]
fn unpack_int8<const RELU: bool>(cols: usize, fours: &[Four<'_>; FOURS], panel: &mut Panel) {
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
            put(codes, f, step);
        }
    }
}

/// Sets sixteen columns of four rows.
#[inline(always)]
fn put(rows: [uint8x16_t; FOUR], f: usize, step: &mut Step) {
    // SAFETY: NEON is part of the target.
    unsafe {
        let [a, b, c, d] = rows;
        let words = [
            vreinterpretq_u32_u8(a),
            vreinterpretq_u32_u8(b),
            vreinterpretq_u32_u8(c),
            vreinterpretq_u32_u8(d),
        ];
        for (step, lanes) in step.iter_mut().zip(four_by_four(words)) {
            step[f] = vreinterpretq_u8_u32(lanes);
        }
    }
}

impl Codes {
    /// Up to four vectors, padded with zero vectors, each to whole registers.
    fn new(codes: &[i16], cols: usize, group: usize, offset: i32) -> Self {
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
        Self { bytes, starts }
    }
}
