//! Progress of long commands on standard error.

use std::cell::Cell;
use std::time::Instant;

use crate::terminal::Stderr;

/// Numbered steps with the elapsed time.
pub(crate) struct Steps {
    started: Instant,
    done: Cell<usize>,
    total: usize,
}

impl Steps {
    pub(crate) fn new(total: usize) -> Self {
        Self { started: Instant::now(), done: Cell::new(0), total }
    }

    /// Starts the next step.
    pub(crate) fn next(&self, what: &str) {
        self.done.set(self.done.get() + 1);
        writeln!(Stderr, "[{}/{}] {:>3.0} s  {what}", self.done.get(), self.total, self.seconds());
    }

    /// Elapsed time.
    pub(crate) fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}
