//! For Cortex-M cores with the DSP extension. The rows are assembly ([`super::rows_dsp`]); tests on
//! other machines run the same arithmetic in Rust.

use super::units::{Pairs, Unit};
use crate::blob::Tensor;
use crate::numeric::Scale;

/// Two products per instruction, both accumulated in 32 bits.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Smlad;

impl Pairs for Smlad {
    #[inline(always)]
    fn coefficient(low: i16, high: i16) -> u32 {
        low as u16 as u32 | (high as u16 as u32) << 16
    }

    #[inline(always)]
    fn start(codes: i32, bits: u32) -> u32 {
        // Codes of more bits are joined in bytes, with their sign.
        if bits > 4 { 0 } else { (-codes << (bits - 1)) as u32 }
    }

    #[inline(always)]
    unsafe fn multiply(matrix: &Tensor<'_>, scale: Scale, units: &[Unit], out: &mut [i32]) -> bool {
        #[cfg(arm_dsp)]
        // SAFETY: the contracts are the same.
        return unsafe { super::rows_dsp::multiply(matrix, scale, units, out) };
        #[cfg(not(arm_dsp))]
        super::words::multiply::<Self>(matrix, scale, units, out)
    }
}

#[cfg(not(arm_dsp))]
impl super::words::Words for Smlad {
    #[inline(always)]
    fn nibbles(unit: &Unit, words: [u32; 2]) -> i32 {
        let parts = words.into_iter().zip([&unit.first, &unit.second]);
        parts.fold(unit.start as i32, |sum, (word, coefficients)| {
            emulated::nibbles(sum, word, coefficients)
        })
    }

    /// Bytes hold both parts with the sign at the top, from where it is extended.
    #[inline(always)]
    fn bytes<const SHIFT: u32>(unit: &Unit, upper: [u32; 2], lower: [u32; 2]) -> i32 {
        const HIGH: u32 = 0xf0f0_f0f0;
        const LOW: u32 = 0x0f0f_0f0f;
        let parts = upper.into_iter().zip(lower).zip([&unit.first, &unit.second]);
        let sum = parts.fold(unit.start as i32, |sum, ((upper, lower), coefficients)| {
            let upper = upper ^ 0x8888_8888;
            let even = upper << 4 & HIGH | (lower & LOW) << (4 - SHIFT);
            let odd = upper & HIGH | (lower >> 4 & LOW) << (4 - SHIFT);
            emulated::bytes(sum, [even, odd], coefficients)
        });
        sum >> (4 - SHIFT)
    }
}

/// Emulates the instruction, for tests.
#[cfg(not(arm_dsp))]
mod emulated {
    fn smlad(a: u32, b: u32, sum: i32) -> i32 {
        let product = |shift: u32| (a >> shift) as i16 as i32 * (b >> shift) as i16 as i32;
        sum + product(0) + product(16)
    }

    pub(super) fn nibbles(sum: i32, word: u32, coefficients: &[[u32; 2]; 2]) -> i32 {
        let parts = [0, 8, 4, 12].into_iter().zip(coefficients.as_flattened());
        parts.fold(sum, |sum, (shift, &pair)| smlad(word >> shift & 0x000f_000f, pair, sum))
    }

    pub(super) fn bytes(sum: i32, [even, odd]: [u32; 2], coefficients: &[[u32; 2]; 2]) -> i32 {
        let parts = [even, even >> 8, odd, odd >> 8].into_iter().zip(coefficients.as_flattened());
        let extended = |word: u32| word as i8 as u16 as u32 | ((word >> 16) as i8 as u32) << 16;
        parts.fold(sum, |sum, (word, &pair)| smlad(extended(word), pair, sum))
    }
}
