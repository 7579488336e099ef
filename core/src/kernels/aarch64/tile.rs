//! Tiles of eight rows by four vectors, whose sums stay in registers.

use core::arch::aarch64::*;

use super::decode::SIXTEEN;
use super::dot::DotProducts;
use super::requantize::FOUR;
use super::transpose::four_by_four;
use alloc::vec::Vec;

/// Vectors of a tile.
pub(super) const VECTORS: usize = 4;
/// Registers of rows.
pub(super) const FOURS: usize = 2;

/// Sixteen columns of eight rows: four registers for each four rows.
pub(super) type Step = [[uint8x16_t; FOURS]; SIXTEEN / FOUR];
/// Sixteen codes of four vectors.
pub(super) type Bytes = [uint8x16_t; VECTORS];
/// Sums of eight rows with each of four vectors.
pub(super) type Sums = [[int32x4_t; FOURS]; VECTORS];

/// Eight rows, decoded.
pub(super) struct Panel {
    pub(super) steps: Vec<Step>,
    /// For each group a row's scale.
    pub(super) scales: Vec<[int32x4_t; FOURS]>,
}

/// Four vectors.
pub(super) struct Codes {
    /// For each sixteen columns.
    pub(super) bytes: Vec<Bytes>,
    /// For each group the negated contribution of the offset of weights, the same for every row.
    pub(super) starts: Vec<[i32; VECTORS]>,
}

/// Instructions that multiply a tile.
pub(super) trait Tile: Copy {
    /// Arranges sixteen columns of four rows.
    fn rows(rows: [uint8x16_t; FOUR]) -> [uint8x16_t; SIXTEEN / FOUR];

    /// Arranges sixteen codes of four vectors.
    fn vectors(codes: Bytes) -> Bytes;

    /// Sums of a panel with four vectors; groups have `steps` steps, and scales if `SCALED`. All
    /// bytes are signed, or unsigned if `RELU`.
    fn sums<const RELU: bool, const SCALED: bool>(
        self,
        panel: &Panel,
        steps: usize,
        x: &Codes,
    ) -> Sums;
}

/// A register has four columns of four rows, and a register of a vector's codes multiplies by
/// element: sixteen products per instruction.
impl Tile for DotProducts {
    #[inline(always)]
    fn rows([a, b, c, d]: [uint8x16_t; FOUR]) -> [uint8x16_t; SIXTEEN / FOUR] {
        // SAFETY: NEON is part of the target.
        unsafe {
            let words = |lanes| vreinterpretq_u32_u8(lanes);
            let [a, b, c, d] = four_by_four([words(a), words(b), words(c), words(d)]);
            let bytes = |lanes| vreinterpretq_u8_u32(lanes);
            [bytes(a), bytes(b), bytes(c), bytes(d)]
        }
    }

    #[inline(always)]
    fn vectors(codes: Bytes) -> Bytes {
        codes
    }

    #[inline(always)]
    fn sums<const RELU: bool, const SCALED: bool>(
        self,
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
                            *sum = self.dot_by_lane::<RELU, 0>(*sum, step[0][f], x);
                            *sum = self.dot_by_lane::<RELU, 1>(*sum, step[1][f], x);
                            *sum = self.dot_by_lane::<RELU, 2>(*sum, step[2][f], x);
                            *sum = self.dot_by_lane::<RELU, 3>(*sum, step[3][f], x);
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
}
