//! Standard output and standard error.
//!
//! `println!` panics if standard output is closed (`| head -1`) or the disk is full, so results are
//! printed by `writeln!(Stdout, …)?` and messages by `writeln!(Stderr, …)`. The lints
//! `clippy::print_stdout` and `clippy::print_stderr` enforce it.

use std::fmt::Arguments;
use std::io::{self, Write};

use crate::error::{Error, Result};

/// Exit code if standard output was closed early: what a shell reports for a program ended by
/// SIGPIPE.
pub const CLOSED_PIPE: u8 = 141;

/// Standard output, for results.
#[derive(Clone, Copy, Debug)]
pub struct Stdout;

impl Stdout {
    /// Called by `write!` and `writeln!`.
    ///
    /// # Errors
    ///
    /// [`Error::Stdout`] if the text cannot be written.
    pub fn write_fmt(&self, text: Arguments<'_>) -> Result<()> {
        let mut stdout = io::stdout().lock();
        // Flush now: the flush at process exit ignores errors.
        stdout.write_fmt(text).and_then(|()| stdout.flush()).map_err(Error::Stdout)
    }

    /// Writes bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Stdout`] if they cannot be written.
    pub fn write_bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Error::Stdout)
    }
}

/// Standard error, for messages. Write errors are ignored: there is nowhere to report them.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Stderr {
    /// Called by `write!` and `writeln!`.
    pub fn write_fmt(&self, text: Arguments<'_>) {
        let _ = io::stderr().lock().write_fmt(text);
    }
}
