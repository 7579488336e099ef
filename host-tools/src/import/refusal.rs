//! Import errors.

/// Why a checkpoint is rejected, and the remedy.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) problems: Vec<String>,
    pub(super) remedy: String,
}

impl Refusal {
    pub(super) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()], remedy: remedy.into() }
    }
}
