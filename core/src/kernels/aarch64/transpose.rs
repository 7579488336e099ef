//! Transpositions of registers.

use core::arch::aarch64::*;

/// Of four rows of four words.
#[inline(always)]
pub(super) fn four_by_four([a, b, c, d]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    // SAFETY: NEON is part of the target.
    unsafe {
        let [ab, cd] = [(a, b), (c, d)].map(|(a, b)| {
            let (even, odd) = (vtrn1q_u32(a, b), vtrn2q_u32(a, b));
            [vreinterpretq_u64_u32(even), vreinterpretq_u64_u32(odd)]
        });
        [
            vtrn1q_u64(ab[0], cd[0]),
            vtrn1q_u64(ab[1], cd[1]),
            vtrn2q_u64(ab[0], cd[0]),
            vtrn2q_u64(ab[1], cd[1]),
        ]
        .map(|lanes| vreinterpretq_u32_u64(lanes))
    }
}

/// Of eight rows of eight numbers of 16 bits.
#[inline(always)]
pub(super) fn eight_by_eight(rows: [int16x8_t; 8]) -> [int16x8_t; 8] {
    // SAFETY: NEON is part of the target.
    unsafe {
        // Columns 0, 2, 4, 6 of two rows side by side, and 1, 3, 5, 7.
        let twos = [0, 2, 4, 6].map(|r| {
            let (even, odd) = (vtrn1q_s16(rows[r], rows[r + 1]), vtrn2q_s16(rows[r], rows[r + 1]));
            [vreinterpretq_u32_s16(even), vreinterpretq_u32_s16(odd)]
        });
        // Columns 0 and 4, 2 and 6, or 1 and 5, 3 and 7, of eight rows.
        let [even, odd] = [0, 1].map(|odd| {
            let low =
                [vtrn1q_u32(twos[0][odd], twos[1][odd]), vtrn2q_u32(twos[0][odd], twos[1][odd])];
            let high =
                [vtrn1q_u32(twos[2][odd], twos[3][odd]), vtrn2q_u32(twos[2][odd], twos[3][odd])];
            [0, 1].map(|two| (vreinterpretq_u64_u32(low[two]), vreinterpretq_u64_u32(high[two])))
        });
        let first = |(low, high)| vreinterpretq_s16_u64(vtrn1q_u64(low, high));
        let second = |(low, high)| vreinterpretq_s16_u64(vtrn2q_u64(low, high));
        [
            first(even[0]),
            first(odd[0]),
            first(even[1]),
            first(odd[1]),
            second(even[0]),
            second(odd[0]),
            second(even[1]),
            second(odd[1]),
        ]
    }
}
