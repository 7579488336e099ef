//! For cores that multiply 32 bits and have no DSP extension.

use super::plain::{self, Words};
use super::{Pairs, Unit};
use crate::blob::Tensor;
#[cfg(armv6m)]
use crate::kernels::swar::armv6m::nibbles;
use crate::numeric::Scale;

/// Two products by one multiplication: a word u[0] + 2^16 u[1] times a[1] + 2^16 a[0] has, modulo 2^32, the wanted
/// sum in its upper half. The lower one is not looked at, but must neither borrow nor carry: with
/// nibbles below 16 and |a| ≤ 255 the eight products of a unit are within ±8 · 15 · 255, and with 2^15 at the start
/// positive and below 2^16. The wanted sum itself is, offsets taken off, at most 16 · 8 · 255: 16 bits, sign included.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct Swar;

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
    unsafe fn multiply(matrix: &Tensor<'_>, scale: Scale, units: &[Unit], out: &mut [i32]) -> bool {
        plain::multiply::<Self>(matrix, scale, units, out)
    }
}

impl Words for Swar {
    #[inline(always)]
    fn nibbles(unit: &Unit, words: [u32; 2]) -> i32 {
        nibbles(unit, words)
    }

    /// The lower part is offset as the upper one is, so that one start does for both.
    #[inline(always)]
    fn bytes<const SHIFT: u32>(unit: &Unit, upper: [u32; 2], lower: [u32; 2]) -> i32 {
        let lower = lower.map(|word| word | 0x8888_8888);
        (Self::nibbles(unit, upper) << SHIFT) + Self::nibbles(unit, lower)
    }
}

/// See [`Words::nibbles`]. A call costs Cortex-M3 nothing, as it spares registers.
#[cfg(not(armv6m))]
#[cfg_attr(armv7m, inline(never))]
#[cfg_attr(not(armv7m), inline(always))]
fn nibbles(unit: &Unit, words: [u32; 2]) -> i32 {
    const MASK: u32 = 0x000f_000f;
    let parts = words.into_iter().zip([&unit.first, &unit.second]);
    let sum = parts.fold(unit.start, |sum, (word, &[[a, b], [c, d]])| {
        let parts = [(word, a), (word >> 8, b), (word >> 4, c), (word >> 12, d)];
        parts.into_iter().fold(sum, |sum, (word, coefficient)| {
            sum.wrapping_add((word & MASK).wrapping_mul(coefficient))
        })
    });
    sum as i32 >> 16
}
