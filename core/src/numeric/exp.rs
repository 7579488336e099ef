//! The exponential of the gate and the sampler.

use core::f32::consts::{E, LN_2, LOG2_E};

/// e^x is 0 below this: negligible in every format used here.
const LOWEST: f32 = -80.0;

/// e^x for x ≤ 0; exactly 1 at 0, and 0 below −80 and for NaN.
///
/// x·log₂e is split exactly into a whole part n and a fraction f, both with the sign of x. Then
/// e^x = 2^n · e^g with g = f·ln 2 in (−ln 2, 0], and e^g is its Taylor polynomial of degree 4,
/// which is within 2.5e-3, relative (`docs/numerics.md`, section 8).
///
/// The order of f32 operations is fixed and each is rounded on its own, so every target returns the
/// same bits: those of `micromath` 2.1.0, which earlier releases used.
///
/// Outlined so that the gate and the sampler share one copy.
#[inline(never)]
pub(crate) fn exp_nonpositive(x: f32) -> f32 {
    if x < LOWEST || x.is_nan() {
        return 0.0;
    }
    if (x + 1.0).abs() < f32::EPSILON {
        return 1.0 / E;
    }
    let t = x * LOG2_E;
    // At most 116 in magnitude: truncation and the difference are exact.
    let n = t as i32;
    let g = (t - n as f32) * LN_2;
    // Horner's scheme. Multiplying by ½ and ¼ is exact, like dividing by 2 and 4.
    let mut p = 1.0 + g * 0.25;
    p = 1.0 + (g / 3.0) * p;
    p = 1.0 + (g * 0.5) * p;
    p = 1.0 + g * p;
    // p is in (0.49, 1]: adding n ≥ −116 to its exponent leaves a normal number.
    f32::from_bits(p.to_bits().wrapping_add((n as u32) << 23))
}

#[cfg(test)]
mod tests {
    use super::*;
    use micromath::F32Ext;

    /// Bits of the largest |x| with a nonzero result.
    const MAGNITUDES: u32 = (-LOWEST).to_bits();

    fn assert_bits(magnitude: u32) {
        let x = -f32::from_bits(magnitude);
        // Fully qualified: with std, `x.exp()` would be the platform's function.
        let expected = F32Ext::exp(x);
        assert_eq!(exp_nonpositive(x).to_bits(), expected.to_bits(), "e^{x:e}");
    }

    /// Every 61st float from −80 to 0, and all floats near −1, 0 and −80.
    #[test]
    fn the_bits_are_those_of_micromath() {
        (0..=MAGNITUDES).step_by(if cfg!(miri) { 1_000_003 } else { 61 }).for_each(assert_bits);
        for centre in [0, 1f32.to_bits(), MAGNITUDES] {
            let reach = if cfg!(miri) { 3 } else { 5_000 };
            let span = centre.saturating_sub(reach)..=(centre + reach).min(MAGNITUDES);
            span.for_each(assert_bits);
        }
        assert_eq!(exp_nonpositive(0.0), 1.0);
        assert_eq!(exp_nonpositive(-0.0), 1.0);
    }

    #[test]
    #[ignore = "a minute: all 1.1 billion floats from -80 to 0"]
    fn all_bits_are_those_of_micromath() {
        (0..=MAGNITUDES).for_each(assert_bits);
    }

    #[test]
    fn the_error_is_within_its_bound() {
        for i in 0..=80_000 {
            let x = -(i as f32) / 1000.0;
            let exact = (x as f64).exp();
            let error = (exp_nonpositive(x) as f64 - exact).abs() / exact;
            assert!(error < 2.5e-3, "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp_nonpositive(-80.001), 0.0);
        assert_eq!(exp_nonpositive(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp_nonpositive(f32::NAN), 0.0);
    }

    /// Pins the bits, which are part of the number contract, independently of another crate.
    #[test]
    fn the_digest_of_the_bits_is_fixed() {
        let bits = |i: u32| exp_nonpositive(-(i as f32) / 256.0).to_bits();
        let crc = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);
        let mut digest = crc.digest();
        (0..=20_480).for_each(|i| digest.update(&bits(i).to_le_bytes()));
        assert_eq!(digest.finalize(), 0x0915_e5cc);
    }
}
