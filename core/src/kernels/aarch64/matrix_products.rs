//! Products of two vectors and two rows at a time, with the matrix products of Armv8.6, whose
//! intrinsics are not stable.

use core::arch::aarch64::*;
use core::arch::asm;

use super::decode::SIXTEEN;
use super::requantize::FOUR;
use super::tile::{Bytes, Codes, FOURS, Panel, Sums, Tile, VECTORS};

/// Proof that this processor has SMMLA and UMMLA.
#[derive(Clone, Copy)]
pub(super) struct MatrixProducts(());

impl MatrixProducts {
    /// # Safety
    ///
    /// The processor has the products of matrices of bytes of Armv8.6.
    #[inline(always)]
    pub(super) const unsafe fn promised() -> Self {
        Self(())
    }

    /// Adds the products of each half of `a` with each half of `b`: first of `a` with both, then
    /// of the second. All bytes are signed, or unsigned if `RELU`.
    #[inline(always)]
    fn add<const RELU: bool>(self, mut sums: int32x4_t, a: uint8x16_t, b: uint8x16_t) -> int32x4_t {
        // SAFETY: the instructions only compute, and `self` is proof that the processor has them.
        unsafe {
            if RELU {
                asm!(".arch_extension i8mm", "ummla {:v}.4s, {:v}.16b, {:v}.16b",
                    inout(vreg) sums, in(vreg) a, in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags));
            } else {
                asm!(".arch_extension i8mm", "smmla {:v}.4s, {:v}.16b, {:v}.16b",
                    inout(vreg) sums, in(vreg) a, in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
        sums
    }
}

/// A register has eight columns of two rows, or eight codes of two vectors: 32 products per
/// instruction.
impl Tile for MatrixProducts {
    #[inline(always)]
    fn rows(rows: [uint8x16_t; FOUR]) -> [uint8x16_t; SIXTEEN / FOUR] {
        halves(rows)
    }

    #[inline(always)]
    fn vectors(codes: Bytes) -> Bytes {
        halves(codes)
    }

    #[inline(always)]
    fn sums<const RELU: bool, const SCALED: bool>(
        self,
        panel: &Panel,
        steps: usize,
        x: &Codes,
    ) -> Sums {
        // SAFETY: NEON is part of the target; four numbers are loaded.
        unsafe {
            let zero = vdupq_n_s32(0);
            // For each two vectors and each two rows: the first vector's sums, then the second's.
            let mut totals = [[zero; 2 * FOURS]; VECTORS / 2];
            let groups = panel.steps.chunks(steps).zip(x.bytes.chunks(steps)).zip(&x.starts);
            for (g, ((steps, bytes), starts)) in groups.enumerate() {
                let starts = vld1q_s32(starts.as_ptr());
                let first = [vzip1q_s32(starts, starts); 2 * FOURS];
                let mut sums = [first, [vzip2q_s32(starts, starts); 2 * FOURS]];
                for (step, bytes) in steps.iter().zip(bytes) {
                    for (v, sums) in sums.iter_mut().enumerate() {
                        for (r, sum) in sums.iter_mut().enumerate() {
                            let rows = |half: usize| step[2 * half + r % 2][r / 2];
                            *sum = self.add::<RELU>(*sum, bytes[v], rows(0));
                            *sum = self.add::<RELU>(*sum, bytes[2 + v], rows(1));
                        }
                    }
                }
                if !SCALED {
                    totals = sums;
                    break;
                }
                let scales = panel.scales[g];
                for (totals, sums) in totals.iter_mut().zip(sums) {
                    for (r, total) in totals.iter_mut().enumerate() {
                        let scales = vreinterpretq_s64_s32(scales[r / 2]);
                        let both = match r % 2 {
                            0 => vdupq_laneq_s64::<0>(scales),
                            _ => vdupq_laneq_s64::<1>(scales),
                        };
                        *total = vmlaq_s32(*total, sums[r], vreinterpretq_s32_s64(both));
                    }
                }
            }
            let mut all = [[zero; FOURS]; VECTORS];
            for (v, totals) in totals.into_iter().enumerate() {
                for f in 0..FOURS {
                    let low = vreinterpretq_s64_s32(totals[2 * f]);
                    let high = vreinterpretq_s64_s32(totals[2 * f + 1]);
                    all[2 * v][f] = vreinterpretq_s32_s64(vzip1q_s64(low, high));
                    all[2 * v + 1][f] = vreinterpretq_s32_s64(vzip2q_s64(low, high));
                }
            }
            all
        }
    }
}

/// The first halves of two registers each, then the second halves.
#[inline(always)]
fn halves([a, b, c, d]: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let words = |lanes| vreinterpretq_u64_u8(lanes);
        let first = |a, b| vreinterpretq_u8_u64(vzip1q_u64(words(a), words(b)));
        let second = |a, b| vreinterpretq_u8_u64(vzip2q_u64(words(a), words(b)));
        [first(a, b), first(c, d), second(a, b), second(c, d)]
    }
}
