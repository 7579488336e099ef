//! Probabilities as integers: the share of the coder's interval that each token takes.

use half::f16;

/// Shares are in units of 2^−24 of the interval.
pub(crate) const TOTAL_BITS: u32 = 24;
/// Fraction bits of logits: enough for weights within 2^−12, relative.
const LOGIT_FRAC: u32 = 12;
/// A weight this far below the largest (in units of 2^−12 nats) is below 2^−24.
const NEGLIGIBLE: u32 = 17 << LOGIT_FRAC;
/// log₂e · 2^14, rounded: exponents have 26 fraction bits.
const LOG2_E_Q14: u32 = 23_637;
/// ln 2 · 2^16, rounded.
const LN_2_Q16: u32 = 45_426;
/// 2^(−j/16) · 2^24, rounded.
const POWERS_Q24: [u32; 16] = [
    16_777_216, 16_065_917, 15_384_775, 14_732_511, 14_107_901, 13_509_772, 12_937_002, 12_388_516,
    11_863_283, 11_360_319, 10_878_679, 10_417_458, 9_975_792, 9_552_851, 9_147_842, 8_760_003,
];

/// Part of an interval, in units of 2^−24 of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) start: u32,
    /// At least 1.
    pub(crate) size: u32,
}

/// The shares of all tokens under some logits, at most 2^16 of them. No token's is empty, and
/// together they are at most 2^24 (`docs/numerics.md`, section 16).
pub(crate) struct Shares<'a> {
    logits: &'a [f16],
    largest: i32,
    /// 2^32 times what a weight of 1 has of the interval.
    factor: u32,
}

impl<'a> Shares<'a> {
    pub(crate) fn new(logits: &'a [f16]) -> Self {
        let logits = &logits[..logits.len().min(1 << 16)];
        let largest = logits.iter().map(|&logit| fixed(logit)).max().unwrap_or(0);
        let sum: u64 = logits.iter().map(|&logit| u64::from(weight(largest, logit))).sum();
        let shared = (1u64 << TOTAL_BITS) - logits.len() as u64;
        // The largest weight is 2^24, so the quotient is below 2^32.
        let factor = ((shared << 32) / sum.max(1 << TOTAL_BITS)) as u32;
        Self { logits, largest, factor }
    }

    #[inline(always)]
    fn size(&self, logit: f16) -> u32 {
        let product = u64::from(weight(self.largest, logit)) * u64::from(self.factor);
        1 + (product >> 32) as u32
    }

    /// The sizes of all tokens' shares, in order.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = u32> {
        self.logits.iter().map(|&logit| self.size(logit))
    }

    /// The share of a token; `None` if it has no logit.
    pub(crate) fn of(&self, token: u32) -> Option<Share> {
        let (before, rest) = self.logits.split_at_checked(token as usize)?;
        let size = self.size(*rest.first()?);
        Some(Share { start: before.iter().map(|&logit| self.size(logit)).sum(), size })
    }

    /// The token in whose share a point lies; `None` in the rest that no token has.
    pub(crate) fn at(&self, point: u32) -> Option<(u32, Share)> {
        let mut start = 0;
        for (token, &logit) in (0..).zip(self.logits) {
            let size = self.size(logit);
            if point - start < size {
                return Some((token, Share { start, size }));
            }
            start += size;
        }
        None
    }
}

/// A half in units of 2^−12, rounded towards zero. The exponent 31 of infinities and NaN is
/// treated like any other.
#[inline(always)]
fn fixed(half: f16) -> i32 {
    let bits = i32::from(half.to_bits());
    // Subnormal halves are below 2^−12 with the implicit bit, too.
    let magnitude = ((bits & 0x3ff | 0x400) << 18) >> (31 - (bits >> 10 & 31));
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// e^(logit − largest) in units of 2^−24.
///
/// The difference times log₂e is split into an integer n, sixteenths j and a remainder r, so that
/// the weight is 2^−n · 2^(−j/16) · 2^−r: a shift, a table and a polynomial of degree 2.
#[inline(always)]
fn weight(largest: i32, logit: f16) -> u32 {
    let below = (largest - fixed(logit)) as u32;
    if below >= NEGLIGIBLE {
        return 0;
    }
    let exponent = below * LOG2_E_Q14;
    let (n, j, r) = (exponent >> 26, exponent >> 22 & 15, exponent >> 10 & 0xfff);
    let linear = (r * LN_2_Q16) >> 16;
    // 2^−r = 1 − lost, in units of 2^−16.
    let lost = linear - ((linear * linear) >> 17);
    let power = POWERS_Q24[j as usize];
    (power - (((power >> 8) * lost) >> 8)) >> n
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn powers_are_rounded() {
        for (j, &power) in POWERS_Q24.iter().enumerate() {
            let exact = 16_777_216.0 * (-(j as f64) / 16.0).exp2();
            assert_eq!(power as f64, exact.round());
        }
    }

    /// The relative error of a weight that the contract states, at every difference.
    #[test]
    fn weights_are_within_their_bound() {
        let step = if cfg!(miri) { 997 } else { 1 };
        for below in (0..NEGLIGIBLE).step_by(step) {
            let largest = below as i32;
            let exact = (-f64::from(below) / 4096.0).exp() * 16_777_216.0;
            let error = f64::from(weight(largest, f16::ZERO)) - exact;
            assert!(error.abs() <= 6e-5 * exact + 1.0, "{below}: {error} of {exact}");
        }
        assert_eq!(weight(0, f16::ZERO), 1 << 24);
    }

    #[test]
    fn halves_are_rounded_towards_zero() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_finite() {
                assert_eq!(f64::from(fixed(half)), (half.to_f64() * 4096.0).trunc());
            }
        }
    }

    /// Every token has a share, they follow each other, and a point finds its token.
    fn check(logits: &[f16]) -> Result<(), TestCaseError> {
        let shares = Shares::new(logits);
        let mut start = 0;
        for token in 0..logits.len() as u32 {
            let share = Share { start, size: shares.size(logits[token as usize]) };
            prop_assert!(share.size > 0);
            if token % 97 == 0 {
                prop_assert_eq!(shares.of(token), Some(share));
                prop_assert_eq!(shares.at(start), Some((token, share)));
                prop_assert_eq!(shares.at(start + share.size - 1), Some((token, share)));
            }
            start += share.size;
        }
        prop_assert!(start <= 1 << TOTAL_BITS);
        prop_assert_eq!(shares.of(logits.len() as u32), None);
        if start < 1 << TOTAL_BITS {
            prop_assert_eq!(shares.at(start), None);
        }
        Ok(())
    }

    #[test]
    fn the_largest_vocabulary_and_any_bits_have_shares() {
        for bits in [0, 0x3c00, 0x7bff, 0xfbff, 0x7e00, 0xfc00, 1] {
            check(&std::vec![f16::from_bits(bits); 1 << 16]).unwrap();
        }
        let ends = [f16::NAN, f16::INFINITY, f16::NEG_INFINITY, f16::MAX, f16::MIN, f16::ZERO];
        for first in ends {
            for second in ends {
                check(&[first, second]).unwrap();
            }
        }
        check(&[f16::ONE]).unwrap();
        assert_eq!(Shares::new(&[]).at(0), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 500 }))]

        #[test]
        fn every_token_is_possible_and_shares_fit(
            bits in prop::collection::vec(any::<u16>(), 1..300),
        ) {
            let logits: Vec<f16> = bits.into_iter().map(f16::from_bits).collect();
            check(&logits)?;
        }

        /// As close to the exact probabilities as the contract says.
        #[test]
        fn shares_are_close_to_probabilities(
            seeds in prop::collection::vec(-1.0f32..1.0, 2..300),
            spread in 0.0f32..8.0,
        ) {
            let logits: Vec<f16> = seeds.iter().map(|s| f16::from_f32(s * spread)).collect();
            let shares = Shares::new(&logits);
            let sum: f64 = logits.iter().map(|l| l.to_f64().exp()).sum();
            for (token, logit) in (0..).zip(&logits) {
                let exact = logit.to_f64().exp() / sum * 16_777_216.0;
                let size = f64::from(shares.of(token).unwrap().size);
                let lost = 6.2e-4 + logits.len() as f64 / 16_777_216.0;
                prop_assert!(size >= (1.0 - lost) * exact - 1.0, "{size} of {exact}");
                prop_assert!(size <= (1.0 + lost) * exact + 1.0, "{size} of {exact}");
            }
        }
    }
}
