//! Surprisal: −ln of a token's softmax probability from FP16 logits, in integer arithmetic.

use half::f16;

/// Fraction bits of a surprisal: one unit is 2⁻²⁴ nats, the spacing of subnormal halves, so that
/// every finite half is a whole number of units.
pub(crate) const SURPRISE_FRAC: u32 = 24;
/// Logits at least this far (in units) below the largest are ignored: e^−34 < 2^−49.
const NEGLIGIBLE: u64 = 34 << SURPRISE_FRAC;
/// Fraction bits of a softmax weight: the sum of 2^16 weights, at most 1 each, stays below 2^64.
const WEIGHT_FRAC: u32 = 47;
/// log₂e · 2^31, rounded.
const LOG2_E_Q31: u64 = 3_098_164_009;
/// (ln 2)^i / i! · 2^32, rounded, for i = 1, 2, 3.
const SERIES_Q32: [u32; 3] = [2_977_044_472, 1_031_764_991, 238_388_332];
/// 2^(−j/16) · 2^31, rounded.
const POWERS_Q31: [u32; 16] = [
    2_147_483_648,
    2_056_437_387,
    1_969_251_188,
    1_885_761_398,
    1_805_811_301,
    1_729_250_827,
    1_655_936_265,
    1_585_730_000,
    1_518_500_250,
    1_454_120_821,
    1_392_470_869,
    1_333_434_672,
    1_276_901_417,
    1_222_764_986,
    1_170_923_762,
    1_121_280_436,
];
/// Fraction bits of a base-2 logarithm.
const LOG_FRAC: u32 = 26;

/// −ln softmax(`logits`)\[`token`\] in units of 2^−[`SURPRISE_FRAC`] nats; never negative.
///
/// The error is at most 3e-7 nats for finite logits (proof: `docs/numerics.md`, section 14), and
/// unspecified for non-finite ones. `token` must be an index of `logits`, of which there are at
/// most 2^16.
pub(crate) fn surprise(logits: &[f16], token: usize) -> u64 {
    let largest = logits.iter().map(|&logit| units(logit)).max().unwrap_or(0);
    let sum = logits.iter().fold(0u64, |sum, &logit| {
        let below = (largest - units(logit)) as u64;
        sum.saturating_add(if below < NEGLIGIBLE { weight(below as u32) } else { 0 })
    });
    (largest - units(logits[token])) as u64 + ln(sum)
}

/// The exact value of a half in units of 2^−24. The exponent 31 of infinities and NaN is treated
/// like any other.
fn units(half: f16) -> i64 {
    let (exponent, fraction) = (half.to_bits() >> 10 & 31, (half.to_bits() & 0x3ff) as i64);
    let magnitude = match exponent {
        0 => fraction,
        _ => (fraction | 1 << 10) << (exponent - 1),
    };
    if half.to_bits() >> 15 == 1 { -magnitude } else { magnitude }
}

/// e^−d in units of 2^−[`WEIGHT_FRAC`], for `d` in units of 2^−24 below [`NEGLIGIBLE`].
///
/// d · log₂e is split into an integer n, sixteenths j and a remainder r below 1/16, so that
/// e^−d = 2^−n · 2^(−j/16) · 2^−r: a shift, a table and a polynomial of degree 3.
fn weight(d: u32) -> u64 {
    let exponent = ((d as u64 * LOG2_E_Q31) >> 31) as u32;
    let (n, j) = (exponent >> 24, exponent >> 20 & 15);
    let r = (exponent & 0xf_ffff) << 8;
    let [first, second, third] = SERIES_Q32;
    // 2^−r = 1 − lost.
    let lost = high(r, first - high(r, second - high(r, third)));
    let power = POWERS_Q31[j as usize];
    ((power - high(power, lost)) as u64) << (WEIGHT_FRAC - 31) >> n
}

/// The high half of a product.
fn high(a: u32, b: u32) -> u32 {
    ((a as u64 * b as u64) >> 32) as u32
}

/// ln x in units of 2^−24, for x ≥ 1 in units of 2^−[`WEIGHT_FRAC`]: bits of log₂x by repeated
/// squaring of the mantissa, times ln 2.
fn ln(x: u64) -> u64 {
    let zeros = x.leading_zeros();
    let mut log = (63 - WEIGHT_FRAC).saturating_sub(zeros);
    // In [1, 2), in units of 2^−31.
    let mut mantissa = (x << zeros >> 32) as u32;
    for _ in 0..LOG_FRAC {
        let square = mantissa as u64 * mantissa as u64;
        let carry = (square >> 63) as u32;
        log = log << 1 | carry;
        mantissa = (square >> (31 + carry)) as u32;
    }
    (log as u64 * SERIES_Q32[0] as u64) >> (32 + LOG_FRAC - SURPRISE_FRAC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Section 14 of the contract.
    const BOUND: f64 = 3e-7;

    fn error(logits: &[f16], token: usize) -> f64 {
        let values: Vec<f64> = logits.iter().map(|l| l.to_f64()).collect();
        let largest = values.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let sum: f64 = values.iter().map(|v| (v - largest).exp()).sum();
        let exact = sum.ln() + largest - values[token];
        surprise(logits, token) as f64 / (1u32 << SURPRISE_FRAC) as f64 - exact
    }

    #[test]
    fn halves_are_read_exactly() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            if half.is_finite() {
                assert_eq!(units(half) as f64, half.to_f64() * 16_777_216.0);
            }
        }
    }

    /// Relative errors of the weight, as stated in the proof.
    #[test]
    fn weights_are_within_their_bound() {
        let step = if cfg!(miri) { 100_003 } else { 97 };
        for d in (0..NEGLIGIBLE as u32).step_by(step) {
            let exact = (-(d as f64) / 16_777_216.0).exp();
            let ratio = weight(d) as f64 / (1u64 << WEIGHT_FRAC) as f64 - exact;
            let truncated = 1.0 / (1u64 << WEIGHT_FRAC) as f64;
            assert!(ratio <= 6e-8 * exact, "{d}: {}", ratio / exact);
            assert!(ratio >= -1.6e-7 * exact - truncated, "{d}: {}", ratio / exact);
        }
        assert_eq!(weight(0), 1 << WEIGHT_FRAC);
    }

    #[test]
    fn logarithms_are_within_their_bound() {
        let mut x = 1u64 << WEIGHT_FRAC;
        while x < 1 << 63 {
            let exact = (x as f64 / (1u64 << WEIGHT_FRAC) as f64).ln() * 16_777_216.0;
            let error = ln(x) as f64 - exact;
            assert!((-1.3..=0.01).contains(&error), "ln {x}: {error} units");
            x += x / 1009 + 1;
        }
        assert_eq!(ln(1 << WEIGHT_FRAC), 0);
    }

    /// The largest sums: equal logits in the largest vocabulary.
    #[test]
    fn the_largest_vocabulary_fits() {
        for logit in [0.0, 65504.0, -65504.0] {
            let logits = std::vec![f16::from_f32(logit); 1 << 16];
            assert!(error(&logits, 65_535).abs() < BOUND);
        }
    }

    #[test]
    fn any_logits_give_a_number() {
        let ends = [f16::NAN, f16::INFINITY, f16::NEG_INFINITY, f16::MAX, f16::MIN, f16::ZERO];
        for first in ends {
            for second in ends {
                assert!(surprise(&[first, second], 1) < 1 << 43);
            }
        }
        assert_eq!(surprise(&[f16::ONE], 0), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 2_000 }))]

        #[test]
        fn surprise_is_within_its_bound(
            seeds in proptest::collection::vec(any::<u16>(), 1..300),
            (spread, shift) in prop_oneof![
                (0.0f32..30.0, -20.0f32..20.0),
                (0.0f32..0.01, -0.01f32..0.01),
                (0.0f32..60_000.0, -5_000.0f32..5_000.0),
            ],
            pick in any::<prop::sample::Index>(),
        ) {
            let logit = |seed: u16| f16::from_f32((seed as f32 / 65_536.0 - 0.5) * spread + shift);
            let logits: Vec<f16> = seeds.into_iter().map(logit).collect();
            let error = error(&logits, pick.index(logits.len()));
            prop_assert!(error.abs() < BOUND, "{error:e}");
        }
    }
}
