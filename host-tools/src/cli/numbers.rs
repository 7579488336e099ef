//! Ranges of numeric flags: checked while the command line is parsed, before any work, and small
//! enough to avoid overflow later.

use std::num::ParseFloatError;
use std::ops::RangeInclusive;
use std::str::FromStr;

use clap::builder::RangedU64ValueParser;

use crate::error::{Error, Result};

/// Default tokens per window, unless the position table is shorter.
const WINDOW: usize = 128;
/// The longest window.
const LONGEST_WINDOW: u64 = 1 << 20;
/// The most tokens of any flag: blobs record such counts in 32 bits.
const MOST_TOKENS: u64 = 1 << 30;

/// Parses an integer in this range.
pub(crate) fn within(range: RangeInclusive<u64>) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(range)
}

/// Parses a number of tokens, with this minimum.
pub(crate) fn tokens(least: u64) -> RangedU64ValueParser<usize> {
    within(least..=MOST_TOKENS)
}

/// Parses the length of a window.
pub(crate) fn window() -> RangedU64ValueParser<usize> {
    within(1..=LONGEST_WINDOW)
}

/// Parses a number of windows per step; small enough that batch times longest window does not
/// overflow.
pub(crate) fn batch() -> RangedU64ValueParser<usize> {
    within(1..=1 << 12)
}

/// Parses a number of steps.
pub(crate) fn steps() -> RangedU64ValueParser<u64> {
    RangedU64ValueParser::new().range(1..=1 << 31)
}

/// Parses a number of shards or threads.
pub(crate) fn parts() -> RangedU64ValueParser<usize> {
    within(1..=1 << 12)
}

/// Parses a positive number.
pub(crate) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(x) if x.is_finite() && x > 0.0 => Ok(x),
        Ok(_) => Err("it must be a positive finite number".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Parses zero or a positive number.
pub(crate) fn not_negative<T>(text: &str) -> Result<T, String>
where
    T: FromStr<Err = ParseFloatError> + Into<f64> + Copy,
{
    match text.parse::<T>() {
        Ok(x) if x.into().is_finite() && x.into() >= 0.0 => Ok(x),
        Ok(_) => Err("it must be zero or a positive finite number".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The window length: as requested, otherwise the default for the model.
///
/// # Errors
///
/// [`Error::Window`] if longer than the model's position table.
pub(crate) fn fit_window(asked: Option<usize>, positions: Option<usize>) -> Result<usize> {
    let positions = positions.unwrap_or(usize::MAX);
    match asked {
        Some(window) if window > positions => Err(Error::Window { window, positions }),
        Some(window) => Ok(window),
        None => Ok(WINDOW.min(positions)),
    }
}

/// The window length: as requested, otherwise as many tokens as the model has positions, or the
/// usual ones where it has no table.
///
/// # Errors
///
/// As [`fit_window`].
pub(crate) fn whole_window(asked: Option<usize>, positions: Option<usize>) -> Result<usize> {
    let whole = positions.map(|positions| positions.min(LONGEST_WINDOW as usize));
    fit_window(asked.or(whole), positions)
}

/// Checks floating-point flags: some must be positive, others between 0 and a bound.
///
/// # Errors
///
/// [`Error::Usage`] naming the flag.
pub(crate) fn check(positive: &[(&str, f64)], bounded: &[(&str, f64, f64)]) -> Result<()> {
    if let Some((name, _)) = positive.iter().find(|(_, x)| !(x.is_finite() && *x > 0.0)) {
        return Err(Error::Usage(format!("{name} must be positive")));
    }
    // NaN is in no range.
    if let Some((name, _, high)) = bounded.iter().find(|(_, x, high)| !(0.0..=*high).contains(x)) {
        return Err(Error::Usage(format!("{name} must be between 0 and {high}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_position_table_unless_one_is_asked_for() {
        assert_eq!(fit_window(None, None).unwrap(), 128);
        assert_eq!(fit_window(None, Some(64)).unwrap(), 64);
        assert_eq!(fit_window(None, Some(4096)).unwrap(), 128);
        assert_eq!(fit_window(Some(64), Some(64)).unwrap(), 64);
        let error = fit_window(Some(128), Some(64)).unwrap_err();
        assert!(error.to_string().contains("window of 128"), "{error}");
        assert!(error.help().contains("at most 64"), "{}", error.help());
        assert_eq!(whole_window(None, None).unwrap(), 128);
        assert_eq!(whole_window(None, Some(64)).unwrap(), 64);
        assert_eq!(whole_window(None, Some(4096)).unwrap(), 4096);
        assert_eq!(whole_window(None, Some(1 << 24)).unwrap(), 1 << 20);
        assert_eq!(whole_window(Some(64), Some(4096)).unwrap(), 64);
        assert!(whole_window(Some(128), Some(64)).is_err());
    }

    #[test]
    fn numbers_with_a_fraction_are_checked_to_their_ends() {
        for text in ["0", "-1", "nan", "inf", "1e400", "", "x"] {
            assert!(positive(text).is_err(), "{text}");
        }
        for text in ["-1", "nan", "inf", "1e39", "", "x"] {
            assert!(not_negative::<f32>(text).is_err(), "{text}");
        }
        assert_eq!(positive("1e-300"), Ok(1e-300));
        assert_eq!(not_negative::<f64>("0"), Ok(0.0));
        for x in [f64::NAN, -1.0, 1.5, f64::INFINITY] {
            assert!(check(&[], &[("--x", x, 1.0)]).is_err(), "{x}");
        }
        assert!(check(&[("--x", 0.1)], &[("--y", 0.0, 1.0), ("--z", 1.0, 1.0)]).is_ok());
    }
}
