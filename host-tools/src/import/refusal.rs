//! Why a file is refused.

/// Why a checkpoint is refused, and what to do about it.
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
