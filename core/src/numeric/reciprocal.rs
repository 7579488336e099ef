//! The reciprocal of the BK-core.

const NUMERATOR: u64 = (1 << 63) - 1;

/// ⌊(2^63 − 1) / m⌋ for a normalized mantissa `m` in [2^31, 2^32): a 32-bit reciprocal.
///
/// The number contract requires the exact floor, however it is computed. For `m` below 2^31 the
/// result saturates to `u32::MAX`.
#[inline(always)]
pub fn reciprocal_mantissa(m: u32) -> u32 {
    if m < 1 << 31 {
        return u32::MAX;
    }
    // Without `std` floats may be emulated.
    let floats = cfg!(any(target_arch = "x86_64", all(feature = "std", target_arch = "aarch64")));
    if floats { by_floats(m) } else { by_halves(m) }
}

/// f64 division, the fastest on some processors. Rounding to nearest can only reach the next
/// integer: the truncated quotient is the floor or one more.
#[inline(always)]
fn by_floats(m: u32) -> u32 {
    let estimate = (NUMERATOR as f64 / m as f64) as u64;
    (estimate - (estimate * m as u64 > NUMERATOR) as u64) as u32
}

/// Long division in 16-bit digits (Knuth, The Art of Computer Programming, volume 2, 4.3.1,
/// algorithm D), for cores with 32-bit division.
#[inline(always)]
fn by_halves(m: u32) -> u32 {
    let (high, rest) = digit((NUMERATOR >> 32) as u32, 0xffff, m);
    let (low, _) = digit(rest, 0xffff, m);
    high << 16 | low
}

/// Quotient digit and remainder of `rest · 2^16 + next` divided by `m`, for `rest` < `m`,
/// `m` ≥ 2^31 and `next` < 2^16.
#[inline(always)]
pub(super) fn digit(rest: u32, next: u32, m: u32) -> (u32, u32) {
    let (high, low) = (m >> 16, m & 0xffff);
    let (mut quotient, mut over) = (rest / high, rest % high);
    // The estimate is at most two too large.
    while over < 1 << 16 && (quotient >= 1 << 16 || quotient * low > (over << 16 | next)) {
        quotient -= 1;
        over += high;
    }
    // The difference is below 2^32, so wrapping arithmetic is exact.
    (quotient, (over << 16 | next).wrapping_sub(quotient.wrapping_mul(low)))
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
        for m in (0..4096)
            .flat_map(|i| [(1 << 31) + i, u32::MAX - i, 0xc000_0000 + i, 0x8000_ffff + (i << 16)])
        {
            let floor = (NUMERATOR / m as u64) as u32;
            assert_eq!((by_floats(m), by_halves(m)), (floor, floor), "{m}");
        }
    }

    proptest! {
        /// The exact floor, and the relative error assumed in the proof of the BK-core's bound.
        #[test]
        fn is_the_floor(m in 1u32 << 31.., below in 0f64..1.0) {
            let r = reciprocal_mantissa(m) as u64;
            prop_assert_eq!((by_floats(m) as u64, by_halves(m) as u64), (r, r));
            let m = m as u64;
            prop_assert!(r * m < 1 << 63 && (r + 1) * m >= 1 << 63);
            // For any real number that truncates to m.
            let exact = 2f64.powi(63) / (m as f64 + below);
            let bound = (2f64.powi(-31) + 2f64.powi(-63)) * (1.0 + 1e-9);
            prop_assert!((r as f64 / exact - 1.0).abs() <= bound + 4.0 * f64::EPSILON);
        }
    }
}
