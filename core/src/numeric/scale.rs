//! Scales of quantized activations.

use super::reciprocal::digit;

/// A non-negative number `mantissa · 2^exponent` with a 15-bit mantissa.
///
/// With 15 bits, the product with a 16-bit row mantissa stays below 2^31, so that one signed
/// 32 × 32 → 64 multiplication rescales an accumulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// Below 2^15.
    pub mantissa: u16,
    /// Power of two, between −64 and 64.
    pub exponent: i8,
}

impl Scale {
    /// The scale of an all-zero vector.
    pub const ZERO: Self = Self { mantissa: 0, exponent: 0 };

    /// `numerator / denominator`, truncated to a mantissa in [2^14, 2^15).
    ///
    /// The numerator must be below 2^47; a denominator of zero gives [`Scale::ZERO`].
    pub fn ratio(numerator: u64, denominator: u32) -> Self {
        if numerator == 0 || denominator == 0 {
            return Self::ZERO;
        }
        // Normalized to 47 and 32 bits, the quotient is in (2^14, 2^16): one 16-bit digit of long
        // division, which needs only 32-bit divisions.
        let (raised, zeros) = (numerator.leading_zeros() as i32 - 17, denominator.leading_zeros());
        let numerator = numerator << raised;
        let next = numerator as u32 & 0xffff;
        let (quotient, _) = digit((numerator >> 16) as u32, next, denominator << zeros);
        let exponent = zeros as i32 - raised;
        if quotient >= 1 << 15 {
            Self { mantissa: (quotient >> 1) as u16, exponent: (exponent + 1) as i8 }
        } else {
            Self { mantissa: quotient as u16, exponent: exponent as i8 }
        }
    }

    /// The scale in one word, as sessions store it.
    pub const fn pack(self) -> u32 {
        (self.mantissa as u32) << 8 | self.exponent as u8 as u32
    }

    /// Undoes [`Scale::pack`].
    pub const fn unpack(word: u32) -> Self {
        Self { mantissa: (word >> 8) as u16, exponent: word as u8 as i8 }
    }

    /// Whether a word is a packed scale of activations.
    pub(crate) fn is_packed(word: u32) -> bool {
        word >> 23 == 0 && (-64..=64).contains(&Self::unpack(word).exponent)
    }

    /// The exact value as an f32.
    pub fn to_f32(self) -> f32 {
        self.mantissa as f32 * exp2i(self.exponent)
    }
}

/// 2^exponent as an f32 for exponents from −126 to 127; exact.
fn exp2i(exponent: i8) -> f32 {
    f32::from_bits(((exponent as i32 + 127).clamp(1, 254) as u32) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ratio_is_within_one_unit(n in 1u64..1 << 47, d in 1u32.., drop in 0u32..47) {
            let n = (n >> drop).max(1);
            let scale = Scale::ratio(n, d);
            prop_assert!((1 << 14..1 << 15).contains(&scale.mantissa), "{:?}", scale);
            let exact = n as f64 / d as f64;
            let got = scale.mantissa as f64 * (scale.exponent as f64).exp2();
            prop_assert!(got <= exact * (1.0 + 1e-12) && got > exact * (1.0 - 1.0 / 16384.0));
            prop_assert_eq!(scale.to_f32() as f64, got);
            let floor = (n << 15) as u128 * (1 << 33) / d as u128;
            let bits = 128 - floor.leading_zeros() as i32;
            prop_assert_eq!(scale.mantissa as u128, floor >> (bits - 15));
            prop_assert_eq!(Scale::unpack(scale.pack()), scale);
        }
    }

    #[test]
    fn ratio_of_nothing_is_zero() {
        assert_eq!(Scale::ratio(0, 5), Scale::ZERO);
        assert_eq!(Scale::ratio(5, 0), Scale::ZERO);
    }
}
