//! How much memory a command may take, where it has a choice.
//!
//! Most of it is in proportion to the model, and there is no choice. Two things are chosen: whether
//! a teacher's logits are kept or computed again, and how many threads have a buffer as large as
//! the model. Neither changes results.

use std::sync::OnceLock;

use crate::error::{Error, Result};

static LIMIT: OnceLock<u64> = OnceLock::new();

/// The most logits of a teacher that are kept, 1 GiB, unless a limit allows fewer.
const MOST_LOGITS: usize = 1 << 28;
/// The share of a limit that logits may take, and that threads' buffers may take.
const SHARES: (u64, u64) = (8, 4);

/// Sets the limit of this process in bytes.
pub fn set(bytes: u64) {
    // A process has one command line.
    let _ = LIMIT.set(bytes);
}

/// The most logits to keep.
pub(crate) fn kept_logits() -> usize {
    logits_within(LIMIT.get().copied())
}

fn logits_within(limit: Option<u64>) -> usize {
    limit.map_or(MOST_LOGITS, |limit| MOST_LOGITS.min((limit / SHARES.0 / 4) as usize))
}

/// The most threads that may each have a buffer of as many floats as a model has parameters.
pub(crate) fn threads(parameters: usize) -> usize {
    threads_within(LIMIT.get().copied(), parameters)
}

fn threads_within(limit: Option<u64>, parameters: usize) -> usize {
    let each = 4 * parameters.max(1) as u64;
    limit.map_or(usize::MAX, |limit| (limit / SHARES.1 / each).max(1) as usize)
}

/// Floats for each parameter that a command holds at once in any case: weights as they were read,
/// folded, decoded; gradients, moments, the best weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copies(&'static str, u64);

impl Copies {
    pub(crate) const ANALYZE: Self = Self("analyze", 4);
    pub(crate) const EVAL: Self = Self("eval", 2);
    pub(crate) const FINETUNE: Self = Self("finetune", 10);
    pub(crate) const QUANTIZE: Self = Self("quantize", 4);
    pub(crate) const TRAIN: Self = Self("train", 6);

    /// Fails if a model of so many parameters cannot fit the limit.
    pub(crate) fn require(self, parameters: usize) -> Result<()> {
        check(LIMIT.get().copied(), self.0, self.1 * 4 * parameters as u64)
    }
}

fn check(limit: Option<u64>, name: &'static str, needed: u64) -> Result<()> {
    match limit {
        Some(limit) if limit < needed => Err(Error::Memory { name, needed, limit }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_bounds_what_has_a_choice() {
        const GIB: u64 = 1 << 30;
        assert_eq!(logits_within(None), MOST_LOGITS);
        assert_eq!(logits_within(Some(100 * GIB)), MOST_LOGITS);
        assert_eq!(logits_within(Some(GIB)), 1 << 25);
        assert_eq!(threads_within(None, 1), usize::MAX);
        assert_eq!(threads_within(Some(4 * GIB), 1 << 26), 4);
        assert_eq!(threads_within(Some(GIB), 1 << 30), 1);
    }

    #[test]
    fn what_cannot_fit_is_said_before_the_work() {
        check(None, "finetune", u64::MAX).unwrap();
        check(Some(10), "finetune", 10).unwrap();
        let error = check(Some(1 << 30), "finetune", 3 << 30).unwrap_err().to_string();
        assert!(error.contains("finetune") && error.contains("3.2 GB"), "{error}");
    }
}
