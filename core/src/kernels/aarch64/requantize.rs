//! From sums to outputs in Q15.16 with NEON, four rows at a time.

use core::arch::aarch64::*;

use crate::blob::{Tensor, pair_u16};
use crate::kernels::batched::{Portable, Rescale};
use crate::kernels::portable;
use crate::kernels::single::Block;

/// Rows of a register of sums.
pub(super) const FOUR: usize = 4;

/// Requantizes the sums of four rows, given mantissas (below 2^16) and biases. For shifts from 1 to
/// 62, SRSHL rounds as `shift_round` does without overflow; SQXTN and SQADD saturate.
#[inline(always)]
pub(super) fn requantize(
    sums: int32x4_t,
    mantissas: int32x4_t,
    biases: int32x4_t,
    rescale: &Rescale,
) -> int32x4_t {
    if !(1..=62).contains(&rescale.shift) {
        return requantize_portably(sums, mantissas, biases, rescale);
    }
    // SAFETY: NEON is part of the target.
    unsafe {
        // Below 2^16 · 2^15.
        let multipliers = vmulq_n_s32(mantissas, rescale.mantissa as i32);
        let shift = vdupq_n_s64(-rescale.shift);
        let low = vmull_s32(vget_low_s32(sums), vget_low_s32(multipliers));
        let high = vmull_high_s32(sums, multipliers);
        let low = vqmovn_s64(vrshlq_s64(low, shift));
        let rounded = vqmovn_high_s64(low, vrshlq_s64(high, shift));
        vqaddq_s32(rounded, biases)
    }
}

#[cold]
#[inline(never)]
fn requantize_portably(
    sums: int32x4_t,
    mantissas: int32x4_t,
    biases: int32x4_t,
    rescale: &Rescale,
) -> int32x4_t {
    let [mut values, mantissas, biases] = [sums, mantissas, biases].map(store);
    for (value, (mantissa, bias)) in values.iter_mut().zip(mantissas.into_iter().zip(biases)) {
        *value = Portable::requantize(*value, mantissa as i64, bias, rescale);
    }
    load(&values)
}

#[inline(always)]
pub(super) fn load(values: &[i32; FOUR]) -> int32x4_t {
    // SAFETY: NEON is part of the target, and the whole array is loaded.
    unsafe { vld1q_s32(values.as_ptr()) }
}

#[inline(always)]
pub(super) fn store(lanes: int32x4_t) -> [i32; FOUR] {
    let mut values = [0; FOUR];
    // SAFETY: NEON is part of the target, and the array has the lanes.
    unsafe { vst1q_s32(values.as_mut_ptr(), lanes) };
    values
}

/// Sums of the lanes of four rows.
#[inline(always)]
pub(super) fn join([a, b, c, d]: [int32x4_t; FOUR]) -> int32x4_t {
    // SAFETY: NEON is part of the target.
    unsafe { vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)) }
}

/// Biases of four rows in Q15.16.
#[inline(always)]
pub(super) fn biases(matrix: &Tensor<'_>, rows: [usize; FOUR]) -> int32x4_t {
    load(&rows.map(|row| portable::bias(matrix, row)))
}

/// Four rows of a matrix.
pub(super) type Four<'a> = Block<'a, FOUR>;

impl Four<'_> {
    /// The rows.
    #[inline(always)]
    pub(super) fn rows(&self) -> [usize; FOUR] {
        core::array::from_fn(|r| self.first + r)
    }

    /// Scales of eight groups from `group` on, an even one, as nibbles of each row's word; groups
    /// beyond the last have none.
    #[inline(always)]
    pub(super) fn eight_scales(&self, group: usize) -> uint32x4_t {
        let row_scales = self.scales.len() / FOUR;
        let word = |r: usize| {
            let scales = &self.scales[r * row_scales..][..row_scales][2 + group / 2..];
            match scales.first_chunk() {
                Some(word) => u32::from_le_bytes(*word),
                None => scales.iter().rev().fold(0, |word, &byte| word << 8 | byte as u32),
            }
        };
        let words: [u32; FOUR] = core::array::from_fn(word);
        // SAFETY: NEON is part of the target, and the whole array is loaded.
        unsafe { vld1q_u32(words.as_ptr()) }
    }

    /// Requantizes and stores sums.
    #[inline(always)]
    pub(super) fn put(
        &self,
        matrix: &Tensor<'_>,
        sums: int32x4_t,
        rescale: &Rescale,
        out: &mut [i32],
    ) {
        let row_scales = self.scales.len() / FOUR;
        let mantissa = |r: usize| pair_u16(&self.scales[r * row_scales..], 0) as i32;
        let mantissas = load(&core::array::from_fn(mantissa));
        let values = requantize(sums, mantissas, biases(matrix, self.rows()), rescale);
        self.set(values, out);
    }

    /// Stores outputs.
    #[inline(always)]
    pub(super) fn set(&self, values: int32x4_t, out: &mut [i32]) {
        out[self.first..][..FOUR].copy_from_slice(&store(values));
    }
}
