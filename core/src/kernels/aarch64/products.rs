//! Products of bytes and their sums, with the dot products of Armv8.2 or without.

use core::arch::aarch64::*;

use super::dot::DotProducts;

/// Most registers of a piece.
pub(super) const MOST: usize = 4;

/// A way to multiply bytes. Codes of weights are offset so that they are not negative; what the
/// offset contributes is subtracted from the sums.
pub(super) trait Products: Copy {
    /// The negated contribution of an offset to the lanes of a piece.
    type Start: Copy;
    /// Most inputs of a piece, whose sums do not overflow.
    const PIECE: usize;

    /// For codes of which lane j has the sum of codes j, j + 8 and so on of a piece, and an offset
    /// of 2^`bits`.
    fn start(codes: int16x8_t, bits: i16) -> Self::Start;

    /// Lanes whose sum is that of the products of the first `count` registers of weights' codes, at
    /// most 63, and of the vector's, which are within ±127, or from 0 to 255 if `RELU`.
    fn sums<const RELU: bool>(
        self,
        count: usize,
        weights: [uint8x16_t; MOST],
        x: [uint8x16_t; MOST],
        start: Self::Start,
    ) -> int32x4_t;

    /// Adds to lanes, whose sum is all that counts, the products of sixteen weights and codes: both
    /// signed, the codes within ±127, or both unsigned if `RELU`.
    fn add<const RELU: bool>(
        self,
        sums: int32x4_t,
        weights: uint8x16_t,
        x: uint8x16_t,
    ) -> int32x4_t;
}

impl Products for DotProducts {
    type Start = int32x4_t;
    const PIECE: usize = 64;

    #[inline(always)]
    fn start(codes: int16x8_t, bits: i16) -> int32x4_t {
        // SAFETY: NEON is part of the target.
        unsafe { vnegq_s32(vshlq_s32(vpaddlq_s16(codes), vdupq_n_s32(bits as i32))) }
    }

    #[inline(always)]
    fn sums<const RELU: bool>(
        self,
        count: usize,
        weights: [uint8x16_t; MOST],
        x: [uint8x16_t; MOST],
        start: int32x4_t,
    ) -> int32x4_t {
        let mut sums = start;
        for t in 0..count.min(MOST) {
            sums = self.dot::<RELU>(sums, weights[t], x[t]);
        }
        sums
    }

    #[inline(always)]
    fn add<const RELU: bool>(
        self,
        sums: int32x4_t,
        weights: uint8x16_t,
        x: uint8x16_t,
    ) -> int32x4_t {
        self.dot::<RELU>(sums, weights, x)
    }
}

/// NEON without dot products, which every 64-bit Arm target with an operating system has.
#[derive(Clone, Copy)]
pub(super) struct Widening;

impl Products for Widening {
    type Start = int16x8_t;
    /// Four products per lane: at most 4 · 63 · 255 < 2^16; with the offset subtracted, within 16
    /// bits with a sign.
    const PIECE: usize = 32;

    #[inline(always)]
    fn start(codes: int16x8_t, bits: i16) -> int16x8_t {
        // SAFETY: NEON is part of the target.
        unsafe { vnegq_s16(vshlq_s16(codes, vdupq_n_s16(bits))) }
    }

    #[inline(always)]
    fn sums<const RELU: bool>(
        self,
        count: usize,
        weights: [uint8x16_t; MOST],
        x: [uint8x16_t; MOST],
        start: int16x8_t,
    ) -> int32x4_t {
        // SAFETY: NEON is part of the target.
        unsafe {
            let mut sums = start;
            for t in 0..count.min(MOST) {
                sums = if RELU {
                    let sums = vreinterpretq_u16_s16(sums);
                    let sums = vmlal_u8(sums, vget_low_u8(weights[t]), vget_low_u8(x[t]));
                    vreinterpretq_s16_u16(vmlal_high_u8(sums, weights[t], x[t]))
                } else {
                    let weights = vreinterpretq_s8_u8(weights[t]);
                    let x = vreinterpretq_s8_u8(x[t]);
                    let sums = vmlal_s8(sums, vget_low_s8(weights), vget_low_s8(x));
                    vmlal_high_s8(sums, weights, x)
                };
            }
            vpaddlq_s16(sums)
        }
    }

    /// Two signed products are at most 2 · 128 · 127 < 2^15.
    #[inline(always)]
    fn add<const RELU: bool>(
        self,
        sums: int32x4_t,
        weights: uint8x16_t,
        x: uint8x16_t,
    ) -> int32x4_t {
        // SAFETY: NEON is part of the target.
        unsafe {
            if RELU {
                let sums = vreinterpretq_u32_s32(sums);
                let low = vmull_u8(vget_low_u8(weights), vget_low_u8(x));
                let sums = vpadalq_u16(vpadalq_u16(sums, low), vmull_high_u8(weights, x));
                vreinterpretq_s32_u32(sums)
            } else {
                let (weights, x) = (vreinterpretq_s8_u8(weights), vreinterpretq_s8_u8(x));
                let low = vmull_s8(vget_low_s8(weights), vget_low_s8(x));
                vpadalq_s16(sums, vmlal_high_s8(low, weights, x))
            }
        }
    }
}
