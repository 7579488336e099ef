//! For Cortex-M cores with the DSP extension. The rows themselves are assembly (`dsp/planes.rs`); tests run the same
//! arithmetic in plain Rust.

use super::{Pairs, Unit};
use crate::blob::Tensor;
use crate::numeric::Scale;

/// Two products an instruction, both added to 32 bits.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Dsp;

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
    fn multiply(matrix: &Tensor<'_>, scale: Scale, units: &[Unit], out: &mut [i32]) -> bool {
        #[cfg(arm_dsp)]
        return crate::kernels::dsp::planes::multiply(matrix, scale, units, out);
        #[cfg(not(arm_dsp))]
        super::plain::multiply::<Self>(matrix, scale, units, out)
    }
}

#[cfg(not(arm_dsp))]
impl super::plain::Words for Dsp {
    #[inline(always)]
    fn nibbles(unit: &Unit, words: [u32; 2]) -> i32 {
        let parts = words.into_iter().zip([&unit.first, &unit.second]);
        parts.fold(unit.start as i32, |sum, (word, coefficients)| {
            smlad::nibbles(sum, word, coefficients)
        })
    }

    /// Bytes have room for both parts.
    #[inline(always)]
    fn bytes<const SHIFT: u32>(unit: &Unit, upper: [u32; 2], lower: [u32; 2]) -> i32 {
        const LOW: u32 = 0x0f0f_0f0f;
        let parts = upper.into_iter().zip(lower).zip([&unit.first, &unit.second]);
        parts.fold(unit.start as i32, |sum, ((upper, lower), coefficients)| {
            let even = (upper & LOW) << SHIFT | lower & LOW;
            let odd = (upper >> 4 & LOW) << SHIFT | lower >> 4 & LOW;
            smlad::bytes(sum, [even, odd], coefficients)
        })
    }
}

/// What the DSP extension does, for tests.
#[cfg(not(arm_dsp))]
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
