//! The reciprocal that the BK-core divides by.

/// ⌊(2^63 − 1) / m⌋ for a normalized mantissa `m` in [2^31, 2^32): a 32-bit reciprocal.
///
/// The floor is the contract: an implementation may estimate and correct, but must return it.
/// For an `m` below 2^31 the result saturates to `u32::MAX`.
#[inline(always)]
pub fn reciprocal_mantissa(m: u32) -> u32 {
    const NUMERATOR: u64 = (1 << 63) - 1;
    #[cfg(target_arch = "x86_64")]
    if m >= 1 << 31 {
        // A division of floats is much the faster one. Rounded to nearest, its floor is the wanted one
        // or, from just below a whole number, that number.
        let estimate = (NUMERATOR as f64 / m as f64) as u64;
        return (estimate - (estimate * m as u64 > NUMERATOR) as u64) as u32;
    }
    NUMERATOR.checked_div(m as u64).map_or(u32::MAX, |q| q.min(u32::MAX as u64) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn extremes() {
        assert_eq!(reciprocal_mantissa(1 << 31), u32::MAX);
        assert_eq!(reciprocal_mantissa(u32::MAX), 1 << 31);
        assert_eq!(reciprocal_mantissa(0), u32::MAX);
        assert_eq!(reciprocal_mantissa(1), u32::MAX);
    }

    proptest! {
        /// The floor, and the relative error that the bound of the BK-core is proven with.
        #[test]
        fn is_the_floor(m in 1u32 << 31.., below in 0f64..1.0) {
            let r = reciprocal_mantissa(m) as u64;
            let m = m as u64;
            prop_assert!(r * m < 1 << 63 && (r + 1) * m >= 1 << 63);
            // Of any number that truncates to m.
            let exact = 2f64.powi(63) / (m as f64 + below);
            let bound = (2f64.powi(-31) + 2f64.powi(-63)) * (1.0 + 1e-9);
            prop_assert!((r as f64 / exact - 1.0).abs() <= bound + 4.0 * f64::EPSILON);
        }
    }
}
