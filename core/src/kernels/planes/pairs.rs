//! How processors multiply two codes at a time.

use super::Unit;

/// Products of pairs of inputs, in the lanes of a word each.
pub(in crate::kernels) trait Pairs {
    /// What a word with a code in either half is multiplied by.
    fn coefficient(low: i16, high: i16) -> u32;

    /// What the sum of a unit starts with, `codes` being the sum of its activations, to be free of what codes of
    /// `bits` bits are offset by.
    fn start(codes: i32, bits: u32) -> u32;

    /// Sum of a unit with nibbles.
    fn nibbles(unit: &Unit, words: [u32; 2]) -> i32;

    /// Sum of a unit whose codes are nibbles times 2^`SHIFT` plus lower ones.
    fn bytes<const SHIFT: u32>(unit: &Unit, upper: [u32; 2], lower: [u32; 2]) -> i32;
}

/// Two products an instruction, both added to 32 bits.
#[cfg(any(arm_dsp, test))]
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Dsp;

#[cfg(any(arm_dsp, test))]
impl Pairs for Dsp {
    #[inline(always)]
    fn coefficient(low: i16, high: i16) -> u32 {
        low as u16 as u32 | (high as u16 as u32) << 16
    }

    #[inline(always)]
    fn start(codes: i32, bits: u32) -> u32 {
        (-codes << (bits - 1)) as u32
    }

    #[inline(always)]
    fn nibbles(unit: &Unit, words: [u32; 2]) -> i32 {
        let parts = words.into_iter().zip(&unit.words);
        parts.fold(unit.start as i32, |sum, (word, coefficients)| {
            smlad::nibbles(sum, word, coefficients)
        })
    }

    /// Bytes have room for both parts.
    #[inline(always)]
    fn bytes<const SHIFT: u32>(unit: &Unit, upper: [u32; 2], lower: [u32; 2]) -> i32 {
        const LOW: u32 = 0x0f0f_0f0f;
        let parts = upper.into_iter().zip(lower).zip(&unit.words);
        parts.fold(unit.start as i32, |sum, ((upper, lower), coefficients)| {
            let even = (upper & LOW) << SHIFT | lower & LOW;
            let odd = (upper >> 4 & LOW) << SHIFT | lower >> 4 & LOW;
            smlad::bytes(sum, [even, odd], coefficients)
        })
    }
}

/// Two products by one multiplication: a word u[0] + 2^16 u[1] times a[1] + 2^16 a[0] has, modulo 2^32, the wanted
/// sum in its upper half. The lower one is not looked at, but must neither borrow nor carry: with
/// nibbles below 16 and |a| ≤ 255 the eight products of a unit are within ±8 · 15 · 255, and with 2^15 at the start
/// positive and below 2^16. The wanted sum itself is, offsets taken off, at most 16 · 8 · 255: 16 bits, sign included.
#[cfg(any(swar, test))]
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Swar;

#[cfg(any(swar, test))]
impl Pairs for Swar {
    #[inline(always)]
    fn coefficient(low: i16, high: i16) -> u32 {
        (high as u32).wrapping_add((low as u32) << 16)
    }

    #[inline(always)]
    fn start(codes: i32, bits: u32) -> u32 {
        // Codes of more bits are multiplied in two parts.
        (1u32 << 15).wrapping_sub((codes as u32) << (bits.min(4) - 1 + 16))
    }

    #[inline(always)]
    fn nibbles(unit: &Unit, words: [u32; 2]) -> i32 {
        const MASK: u32 = 0x000f_000f;
        let sum =
            words.into_iter().zip(&unit.words).fold(unit.start, |sum, (word, &[a, b, c, d])| {
                let parts = [(word, a), (word >> 8, b), (word >> 4, c), (word >> 12, d)];
                parts.into_iter().fold(sum, |sum, (word, coefficient)| {
                    sum.wrapping_add((word & MASK).wrapping_mul(coefficient))
                })
            });
        sum as i32 >> 16
    }

    /// The lower part is offset as the upper one is, so that one start does for both.
    #[inline(always)]
    fn bytes<const SHIFT: u32>(unit: &Unit, upper: [u32; 2], lower: [u32; 2]) -> i32 {
        let lower = lower.map(|word| word | 0x8888_8888);
        (Self::nibbles(unit, upper) << SHIFT) + Self::nibbles(unit, lower)
    }
}

/// Four pairs of the DSP extension.
#[cfg(arm_dsp)]
mod smlad {
    use core::arch::asm;

    /// Adds the products of eight nibbles.
    #[inline(always)]
    pub(super) fn nibbles(mut sum: i32, word: u32, coefficients: &[u32; 4]) -> i32 {
        // SAFETY: reads the four coefficients, aligned to words as `ldm` asks; what is written are registers that
        // are named here.
        unsafe {
            asm!(
                "ldm {coefficients}, {{r0, r1, r2, r3}}",
                "and {part}, {mask}, {word}",
                "smlad {sum}, {part}, r0, {sum}",
                "and {part}, {mask}, {word}, lsr #8",
                "smlad {sum}, {part}, r1, {sum}",
                "and {part}, {mask}, {word}, lsr #4",
                "smlad {sum}, {part}, r2, {sum}",
                "and {part}, {mask}, {word}, lsr #12",
                "smlad {sum}, {part}, r3, {sum}",
                coefficients = in(reg) coefficients.as_ptr(),
                mask = in(reg) 0x000f_000f,
                word = in(reg) word,
                sum = inout(reg) sum,
                part = out(reg) _,
                out("r0") _, out("r1") _, out("r2") _, out("r3") _,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        sum
    }

    /// Adds the products of eight bytes: `even` ones are of nibbles 0, 2, 4 and 6, `odd` ones of the others.
    #[inline(always)]
    pub(super) fn bytes(mut sum: i32, [even, odd]: [u32; 2], coefficients: &[u32; 4]) -> i32 {
        // SAFETY: as above.
        unsafe {
            asm!(
                "ldm {coefficients}, {{r0, r1, r2, r3}}",
                "uxtb16 {part}, {even}",
                "smlad {sum}, {part}, r0, {sum}",
                "uxtb16 {part}, {even}, ror #8",
                "smlad {sum}, {part}, r1, {sum}",
                "uxtb16 {part}, {odd}",
                "smlad {sum}, {part}, r2, {sum}",
                "uxtb16 {part}, {odd}, ror #8",
                "smlad {sum}, {part}, r3, {sum}",
                coefficients = in(reg) coefficients.as_ptr(),
                even = in(reg) even,
                odd = in(reg) odd,
                sum = inout(reg) sum,
                part = out(reg) _,
                out("r0") _, out("r1") _, out("r2") _, out("r3") _,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        sum
    }
}

/// The same without the extension, for tests.
#[cfg(not(arm_dsp))]
#[cfg(test)]
mod smlad {
    fn smlad(a: u32, b: u32, sum: i32) -> i32 {
        let product = |shift: u32| (a >> shift) as i16 as i32 * (b >> shift) as i16 as i32;
        sum + product(0) + product(16)
    }

    pub(super) fn nibbles(sum: i32, word: u32, coefficients: &[u32; 4]) -> i32 {
        let parts = [0, 8, 4, 12].into_iter().zip(coefficients);
        parts.fold(sum, |sum, (shift, &pair)| smlad(word >> shift & 0x000f_000f, pair, sum))
    }

    pub(super) fn bytes(sum: i32, [even, odd]: [u32; 2], coefficients: &[u32; 4]) -> i32 {
        let parts = [even, even >> 8, odd, odd >> 8].into_iter().zip(coefficients);
        parts.fold(sum, |sum, (word, &pair)| smlad(word & 0x00ff_00ff, pair, sum))
    }
}
