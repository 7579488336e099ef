//! Several vectors with NEON, by panels of rows.

use core::arch::aarch64::*;

use super::requantize::requantize_eight;
use crate::kernels::batched::{self, Pair, Products, ROWS, Rescale, Scales};
use crate::kernels::matrix::Matrix;
use crate::kernels::vectors::Vectors;

/// See [`crate::kernels::kernel::Kernel::run`]; takes any several vectors.
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let several = x.scales.len() > 1;
    if several {
        batched::matmul(Neon, matrix, x, out);
    }
    several
}

/// NEON, which is part of every 64-bit Arm target with an operating system.
#[derive(Clone, Copy)]
pub(super) struct Neon;

impl Products for Neon {
    /// Four vectors at a time share the loads of the panel. Weights are below 2^9 and codes below
    /// 2^8 in magnitude, and at most 1024 columns are summed: 2^27.
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
        let [low, high] = scales.each_ref().map(in_order);
        for (first, rescales) in rescales.chunks(4).enumerate().map(|(q, r)| (4 * q, r)) {
            // The last vector of a batch fills empty places.
            let vector = |j: usize| &codes[(first + j.min(rescales.len() - 1)) * cols..][..cols];
            let vectors = [vector(0), vector(1), vector(2), vector(3)];
            let sums = sums(panel, vectors);
            for (b, (sums, rescale)) in sums.into_iter().zip(rescales).enumerate() {
                let outputs =
                    [(sums[0], &low), (sums[1], &high)].map(|(sums, (mantissas, biases))| {
                        requantize_eight(sums, *mantissas, *biases, rescale)
                    });
                put(first + b, outputs);
            }
        }
    }
}

/// Mantissas and biases of rows 0 to 7, which are stored evens first.
#[inline(always)]
fn in_order(scales: &Scales) -> ([i64; ROWS], [i32; ROWS]) {
    let order = |j: usize| (j % 2, j / 2);
    (
        core::array::from_fn(|j| scales.mantissas[order(j).0][order(j).1]),
        core::array::from_fn(|j| scales.biases[order(j).0][order(j).1] as i32),
    )
}

/// Sums of sixteen rows with each of four vectors.
#[inline]
fn sums(panel: &[Pair], vectors: [&[i16]; 4]) -> [[[i32; ROWS]; 2]; 4] {
    let mut outputs = [[[0; ROWS]; 2]; 4];
    // SAFETY: NEON is part of the target, a half of a pair has the 16 lanes that are loaded, and
    // the four lanes of each register fit the array that they are stored to.
    unsafe {
        let mut sums = [[vdupq_n_s32(0); 4]; 4];
        for (c, pair) in panel.iter().enumerate() {
            let low = vld2q_s16(pair[0].as_ptr());
            let high = vld2q_s16(pair[1].as_ptr());
            for (sums, x) in sums.iter_mut().zip(vectors) {
                let second = x.get(2 * c + 1).copied().unwrap_or(0);
                for (weights, x) in [([low.0, high.0], x[2 * c]), ([low.1, high.1], second)] {
                    let [low, high] = weights;
                    sums[0] = vmlal_n_s16(sums[0], vget_low_s16(low), x);
                    sums[1] = vmlal_high_n_s16(sums[1], low, x);
                    sums[2] = vmlal_n_s16(sums[2], vget_low_s16(high), x);
                    sums[3] = vmlal_high_n_s16(sums[3], high, x);
                }
            }
        }
        for (outputs, sums) in outputs.iter_mut().zip(sums) {
            for (outputs, sum) in
                outputs.as_flattened_mut().as_chunks_mut::<4>().0.iter_mut().zip(sums)
            {
                vst1q_s32(outputs.as_mut_ptr(), sum);
            }
        }
    }
    outputs
}
