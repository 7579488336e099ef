//! Fixed-point primitives of every layer: rounding, saturation, block scales, reciprocals.
//!
//! The bits are the same on every machine: integer operations have a specified rounding, and the
//! few f32 operations a fixed order. This is the reference implementation of `docs/numerics.md`.

mod exp;
mod reciprocal;
mod scale;
pub(crate) mod shares;
mod silu;
mod softmax;

use half::f16;

pub(crate) use exp::exp_nonpositive;
pub use reciprocal::reciprocal_mantissa;
pub use scale::Scale;
pub use silu::silu;
pub(crate) use softmax::{SURPRISE_FRAC, surprise};

/// Fraction bits of the residual stream and of every layer output: Q15.16.
pub const RESIDUAL_FRAC: u32 = 16;

/// Shifts right by `shift`, rounding to nearest, ties towards +∞; a negative `shift` shifts left.
/// The result saturates to `i32`.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
pub fn shift_round(value: i64, shift: i32) -> i32 {
    if shift <= 0 {
        // A factor of 2^62 saturates every value but zero.
        let factor = 1i64 << shift.saturating_neg().min(62);
        return value
            .checked_mul(factor)
            .map_or(if value < 0 { i32::MIN } else { i32::MAX }, saturate);
    }
    if shift > 62 {
        return 0;
    }
    // ⌊v/2^s + ½⌋ without forming v + 2^(s−1), which could overflow.
    let doubled = value >> (shift - 1);
    saturate((doubled >> 1) + (doubled & 1))
}

/// a · b · 2^−32, rounded to nearest: one instruction on Arm cores with DSP extension. The product
/// is below 2^62 in magnitude.
#[inline(always)]
pub(crate) fn high_product(a: i32, b: i32) -> i32 {
    if cfg!(thumb1) {
        high_by_halves(a, b, 1 << 15)
    } else {
        ((a as i64 * b as i64 + (1 << 31)) >> 32) as i32
    }
}

/// `⌊(a · b + 2^16 · rounding) / 2^32⌋` for a rounding of at most 2^15, on cores whose multiplier
/// returns 32 bits.
///
/// No sum exceeds 32 bits: the high half of a product of low halves is at most 2^16 − 2, and
/// (2^15 − 1) (2^16 − 1) + 2^16 − 2 + 2^15 is 2^31 − 1.
#[inline(always)]
pub(crate) fn high_by_halves(a: i32, b: i32, rounding: i32) -> i32 {
    let (a_low, b_low) = (a as u32 & 0xffff, b as u32 & 0xffff);
    let (a_high, b_high) = (a >> 16, b >> 16);
    let middle = a_high * b_low as i32 + ((a_low * b_low) >> 16) as i32 + rounding;
    let rest = (middle & 0xffff) + a_low as i32 * b_high;
    a_high * b_high + (middle >> 16) + (rest >> 16)
}

/// Clamps to the range of `i32`.
#[inline(always)]
pub fn saturate(value: i64) -> i32 {
    value.clamp(i32::MIN as i64, i32::MAX as i64) as i32
}

/// Converts an f32 to Q15.16, rounding to nearest, ties away from zero. Saturates; NaN becomes 0.
#[inline(always)]
pub fn f32_to_residual(value: f32) -> i32 {
    let scaled = value * (1u32 << RESIDUAL_FRAC) as f32;
    // The remainder of the truncation is exact and below one. It is zero beyond 2^23; outside of
    // the range of i32 it has the sign of the value, so that the sum saturates.
    let whole = scaled as i32;
    let rest = scaled - whole as f32;
    whole.saturating_add((rest >= 0.5) as i32 - (rest <= -0.5) as i32)
}

/// Converts Q15.16 to f32, rounding to nearest even.
#[inline(always)]
pub fn residual_to_f32(value: i32) -> f32 {
    value as f32 * (1.0 / (1u32 << RESIDUAL_FRAC) as f32)
}

/// Converts Q15.16 to FP16 with the double rounding of a conversion through f32, both to nearest
/// even, in integer arithmetic: for cores without an FPU.
#[inline(always)]
pub fn residual_to_half(value: i32) -> f16 {
    /// `n / 2^drop`, rounded to nearest even; a `drop` of at least 1.
    fn round(n: u32, drop: u32) -> u32 {
        (n + (1 << (drop - 1)) - 1 + (n >> drop & 1)) >> drop
    }
    let mut n = value.unsigned_abs();
    // Bits beyond the 24 of an f32.
    let drop = 8u32.saturating_sub(n.leading_zeros());
    if drop > 0 {
        n = round(n, drop) << drop;
    }
    let bits = 32 - n.leading_zeros();
    let magnitude = match bits {
        // Subnormal, in units of 2^−24.
        0..=2 => n << 8,
        // Normal: the leading one of the eleven bits increments the exponent field, and so does a
        // carry from rounding.
        3..=11 => ((bits - 3) << 10) + (n << (11 - bits)),
        _ => ((bits - 3) << 10) + round(n, bits - 11),
    };
    f16::from_bits((value as u32 >> 16 & 0x8000 | magnitude) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn halves_give_the_high_word(a in any::<i32>(), b in any::<i32>(), less in 0u32..32) {
            let edges = [i32::MIN, i32::MAX, 0x7fff_0000, 0xffff, -1, 0];
            for a in edges.into_iter().chain([a, a >> less, a | 0xffff, a & !0xffff]) {
                for b in edges.into_iter().chain([b, b >> less, b | 0xffff]) {
                    for rounding in [0, 1 << 15] {
                        let exact = (a as i64 * b as i64 + ((rounding as i64) << 16)) >> 32;
                        prop_assert_eq!(high_by_halves(a, b, rounding), exact as i32);
                    }
                }
            }
        }
    }

    #[test]
    fn halves_at_the_edges() {
        let near = |value: i32| (-3000..3000).map(move |d| value.saturating_add(d));
        let powers = (11..31).map(|bit| 1 << bit).chain([0, i32::MAX, i32::MIN]);
        for value in powers.flat_map(near).flat_map(|value: i32| [value, value.saturating_neg()]) {
            let expected = f16::from_f32(residual_to_f32(value));
            assert_eq!(residual_to_half(value).to_bits(), expected.to_bits(), "{value}");
        }
    }

    #[test]
    fn shift_round_at_the_edges() {
        assert_eq!(shift_round(i64::MAX, 1), i32::MAX);
        assert_eq!(shift_round(i64::MIN, 1), i32::MIN);
        assert_eq!(shift_round(3, 1), 2);
        assert_eq!(shift_round(-3, 1), -1);
        assert_eq!(shift_round(1, -40), i32::MAX);
        assert_eq!(shift_round(-1, -100), i32::MIN);
        assert_eq!(shift_round(0, -100), 0);
        assert_eq!(shift_round(i64::MAX, 63), 0);
    }

    proptest! {
        #[test]
        fn shift_round_is_nearest(value in any::<i64>(), shift in -8i32..70) {
            let exact = value as i128 * if shift < 0 { 1 << -shift } else { 1 };
            let down = shift.max(0) as u32;
            let half = if down == 0 { 0 } else { 1i128 << (down - 1) };
            let rounded = (exact + half) >> down;
            let expected = rounded.clamp(i32::MIN as i128, i32::MAX as i128) as i32;
            let expected = if shift > 62 { 0 } else { expected };
            prop_assert_eq!(shift_round(value, shift), expected);
        }

        #[test]
        fn residuals_are_the_nearest(bits in any::<u32>(), small in -40_000f32..40_000.0) {
            for value in [f32::from_bits(bits), small] {
                let exact = (value as f64 * 65536.0).clamp(i32::MIN as f64, i32::MAX as f64);
                // `f64::round` rounds ties away from zero; a cast of NaN gives 0.
                prop_assert_eq!(f32_to_residual(value), exact.round() as i32);
            }
        }

        #[test]
        fn halves_are_those_of_floats(value in any::<i32>(), drop in 0u32..32) {
            let value = value >> drop;
            // Near the midpoint of two halves, where double rounding matters.
            let half = value & !0x1fff | 0x1000;
            for value in [value, value & !0xfff, value | 0xfff, half, half + 1] {
                let expected = f16::from_f32(residual_to_f32(value));
                prop_assert_eq!(residual_to_half(value).to_bits(), expected.to_bits(), "{}", value);
            }
        }

        #[test]
        fn residual_conversions_round_trip(value in -(1i32 << 24)..(1i32 << 24)) {
            prop_assert_eq!(f32_to_residual(residual_to_f32(value)), value);
        }
    }
}
