//! From sums to outputs in Q15.16 with NEON.

use core::arch::aarch64::*;

use crate::kernels::batched::{Portable, ROWS, Rescale};

/// Requantizes the sums of eight rows. For shifts from 1 to 62, SRSHL rounds as `shift_round` does
/// without overflow; SQXTN and SQADD saturate.
#[inline]
pub(super) fn requantize_eight(
    sums: [i32; ROWS],
    mantissas: [i64; ROWS],
    biases: [i32; ROWS],
    rescale: &Rescale,
) -> [i32; ROWS] {
    let mut outputs = [0; ROWS];
    if !(1..=62).contains(&rescale.shift) {
        for (j, output) in outputs.iter_mut().enumerate() {
            *output = Portable::requantize(sums[j], mantissas[j], biases[j], rescale);
        }
        return outputs;
    }
    // Below 2^16 · 2^15.
    let mut multipliers = [0; ROWS];
    for (multiplier, mantissa) in multipliers.iter_mut().zip(mantissas) {
        *multiplier = (mantissa * rescale.mantissa) as i32;
    }
    for first in [0, 4] {
        // SAFETY: four lanes from `first` on are within each array of eight, and every 64-bit Arm
        // target with an operating system has NEON.
        unsafe {
            let sums = vld1q_s32(sums.as_ptr().add(first));
            let multipliers = vld1q_s32(multipliers.as_ptr().add(first));
            let biases = vld1q_s32(biases.as_ptr().add(first));
            let shift = vdupq_n_s64(-rescale.shift);
            let low = vmull_s32(vget_low_s32(sums), vget_low_s32(multipliers));
            let high = vmull_high_s32(sums, multipliers);
            let low = vqmovn_s64(vrshlq_s64(low, shift));
            let rounded = vqmovn_high_s64(low, vrshlq_s64(high, shift));
            vst1q_s32(outputs.as_mut_ptr().add(first), vqaddq_s32(rounded, biases));
        }
    }
    outputs
}
