//! Transpositions of registers.

use core::arch::aarch64::*;

/// Of four rows of four words.
#[inline(always)]
pub(super) fn four_by_four([a, b, c, d]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let wide = |lanes| vreinterpretq_u64_u32(lanes);
        let (ab0, ab1) = (wide(vtrn1q_u32(a, b)), wide(vtrn2q_u32(a, b)));
        let (cd0, cd1) = (wide(vtrn1q_u32(c, d)), wide(vtrn2q_u32(c, d)));
        [
            vreinterpretq_u32_u64(vtrn1q_u64(ab0, cd0)),
            vreinterpretq_u32_u64(vtrn1q_u64(ab1, cd1)),
            vreinterpretq_u32_u64(vtrn2q_u64(ab0, cd0)),
            vreinterpretq_u32_u64(vtrn2q_u64(ab1, cd1)),
        ]
    }
}

/// Of eight rows of eight numbers of 16 bits.
#[inline(always)]
pub(super) fn eight_by_eight(rows: [int16x8_t; 8]) -> [int16x8_t; 8] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let [a, b, c, d, e, f, g, h] = rows;
        let words = |lanes| vreinterpretq_u32_s16(lanes);
        // Columns 0, 2, 4, 6 of two rows side by side, then columns 1, 3, 5, 7.
        let even = four_by_four([
            words(vtrn1q_s16(a, b)),
            words(vtrn1q_s16(c, d)),
            words(vtrn1q_s16(e, f)),
            words(vtrn1q_s16(g, h)),
        ]);
        let odd = four_by_four([
            words(vtrn2q_s16(a, b)),
            words(vtrn2q_s16(c, d)),
            words(vtrn2q_s16(e, f)),
            words(vtrn2q_s16(g, h)),
        ]);
        let column = |lanes| vreinterpretq_s16_u32(lanes);
        [
            column(even[0]),
            column(odd[0]),
            column(even[1]),
            column(odd[1]),
            column(even[2]),
            column(odd[2]),
            column(even[3]),
            column(odd[3]),
        ]
    }
}
