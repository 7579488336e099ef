//! FP16 for a single vector. Lanes j and j + 4 of two registers are the contract's lanes.
//!
//! A weight (11 bits) times a code (8 bits) is exact in f32, so that a fused multiply-add rounds
//! once where the contract rounds once.

use alloc::vec::Vec;
use core::arch::aarch64::*;

use super::codes::{floats, padded};
use super::halves::widen;
use super::requantize::{FOUR, Four};
use crate::blob::Tensor;
use crate::kernels::portable::LANES;
use crate::numeric::RESIDUAL_FRAC;

/// A matrix of at least four rows; `unit` is the value of one unit of the codes.
pub(super) fn matmul(matrix: &Tensor<'_>, codes: &[i16], unit: f32, out: &mut [i32]) {
    let (eights, rest) = codes.as_chunks::<LANES>();
    let mut x: Vec<[float32x4_t; 2]> = eights.iter().map(floats).collect();
    if !rest.is_empty() {
        x.push(floats(&padded(rest)));
    }
    let layout = matrix.layout();
    let (row, whole) = (2 * matrix.cols, matrix.cols / LANES);
    for start in (0..matrix.rows).step_by(FOUR) {
        let four = Four::new(matrix, &layout, start);
        assert!(four.codes.len() == FOUR * row && x.len() >= whole);
        // SAFETY: NEON is part of the target; the assertion says that the rows have all the halves
        // that are loaded.
        let values = unsafe {
            let at = |r: usize| four.codes.as_ptr().add(r * row);
            let rows = [at(0), at(1), at(2), at(3)];
            let mut sums = [[vdupq_n_f32(0.0); 2]; FOUR];
            for (i, x) in x[..whole].iter().enumerate() {
                for (sums, row) in sums.iter_mut().zip(rows) {
                    add(sums, &*row.add(2 * LANES * i).cast(), x);
                }
            }
            if let Some(x) = x.get(whole) {
                for (r, sums) in sums.iter_mut().enumerate() {
                    add(sums, &padded(&four.codes[r * row..][..row][2 * LANES * whole..]), x);
                }
            }
            to_residual(vmulq_n_f32(sum_lanes(sums), unit))
        };
        // SAFETY: NEON is part of the target.
        four.set(unsafe { vqaddq_s32(values, four.biases(matrix)) }, out);
    }
}

#[inline(always)]
fn add(sums: &mut [float32x4_t; 2], halves: &[u8; 2 * LANES], x: &[float32x4_t; 2]) {
    for ((sum, weights), x) in sums.iter_mut().zip(widen(halves)).zip(x) {
        // SAFETY: NEON is part of the target.
        *sum = unsafe { vfmaq_f32(*sum, weights, *x) };
    }
}

/// Sums of the lanes of four rows, in the contract's order: ((l0+l4)+(l2+l6)) + ((l1+l5)+(l3+l7)).
#[inline(always)]
fn sum_lanes(sums: [[float32x4_t; 2]; FOUR]) -> float32x4_t {
    // SAFETY: NEON is part of the target.
    unsafe {
        let [a, b, c, d] = sums.map(|[low, high]| vreinterpretq_f64_f32(vaddq_f32(low, high)));
        let both = |a, b| {
            let (low, high) = (vzip1q_f64(a, b), vzip2q_f64(a, b));
            vaddq_f32(vreinterpretq_f32_f64(low), vreinterpretq_f32_f64(high))
        };
        vpaddq_f32(both(a, b), both(c, d))
    }
}

/// `f32_to_residual`: FCVTAS rounds to nearest, ties away from zero, and saturates.
#[inline(always)]
pub(super) fn to_residual(values: float32x4_t) -> int32x4_t {
    // SAFETY: NEON is part of the target.
    unsafe { vcvtaq_s32_f32(vmulq_n_f32(values, (1u32 << RESIDUAL_FRAC) as f32)) }
}
