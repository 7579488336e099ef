//! From sums to outputs in Q15.16 with NEON, four rows at a time.

use core::arch::aarch64::*;

use crate::blob::Tensor;
use crate::kernels::batched::{Portable, Rescale};
use crate::kernels::single::Block;
use crate::numeric::RESIDUAL_FRAC;

/// Rows of a register of sums.
pub(super) const FOUR: usize = 4;
/// Groups whose scales fill a word.
pub(super) const WORD: usize = 8;

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

/// Four rows of a matrix.
pub(super) type Four<'a> = Block<'a, FOUR>;

impl Four<'_> {
    /// Biases in Q15.16.
    #[inline(always)]
    pub(super) fn biases(&self, matrix: &Tensor<'_>) -> int32x4_t {
        let bytes = matrix.biases.get(2 * self.first..).and_then(|bytes| bytes.first_chunk::<8>());
        let Some(bytes) = bytes else { return load(&[0; FOUR]) };
        let shift = (RESIDUAL_FRAC - matrix.bias_exponent) as i32;
        // SAFETY: NEON is part of the target, and the whole array is loaded.
        unsafe { vshlq_s32(vmovl_s16(vcreate_s16(u64::from_le_bytes(*bytes))), vdupq_n_s32(shift)) }
    }

    /// Mantissas of integers.
    #[inline(always)]
    pub(super) fn mantissas(&self) -> int32x4_t {
        let row_scales = self.scales.len() / FOUR;
        assert!(row_scales >= 2);
        // SAFETY: each of the four rows has at least two bytes; no read needs alignment.
        let mantissa = |r: usize| unsafe {
            self.scales.as_ptr().add(r * row_scales).cast::<u16>().read_unaligned() as i32
        };
        load(&[mantissa(0), mantissa(1), mantissa(2), mantissa(3)])
    }

    /// Scales of eight groups from `group` on, an even one that the rows have, as nibbles of each
    /// row's word; what follows the last is not defined.
    #[inline(always)]
    pub(super) fn eight_scales(&self, group: usize) -> uint32x4_t {
        let row_scales = self.scales.len() / FOUR;
        let place = 2 + group / 2;
        assert!(place < row_scales);
        // Four bytes within the row: they may start with scales already used, or the mantissa.
        let start = place.min(row_scales.saturating_sub(4));
        // SAFETY: NEON is part of the target; four bytes from `start` on are within each of the
        // four rows, or one byte at `place`; no read needs alignment.
        unsafe {
            let at = |r: usize| self.scales.as_ptr().add(r * row_scales);
            if row_scales < 4 {
                let word = |r: usize| u32::from(*at(r).add(place));
                let words = [word(0), word(1), word(2), word(3)];
                return vld1q_u32(words.as_ptr());
            }
            let word = |r: usize| at(r).add(start).cast::<u32>().read_unaligned();
            let words = [word(0), word(1), word(2), word(3)];
            vshlq_u32(vld1q_u32(words.as_ptr()), vdupq_n_s32(-8 * (place - start) as i32))
        }
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
        let values = requantize(sums, self.mantissas(), self.biases(matrix), rescale);
        self.set(values, out);
    }

    /// Stores outputs.
    #[inline(always)]
    pub(super) fn set(&self, values: int32x4_t, out: &mut [i32]) {
        out[self.first..][..FOUR].copy_from_slice(&store(values));
    }
}
