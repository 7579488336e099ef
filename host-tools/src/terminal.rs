//! Standard output and standard error.
//!
//! `println!` panics where standard output was closed (`| head -1`) or the disk is full; results
//! are printed by `writeln!(Stdout, …)?` instead, and messages by `writeln!(Stderr, …)`. The lints
//! `clippy::print_stdout` and `clippy::print_stderr` hold the crate to that.

use std::fmt::Arguments;
use std::io::{self, Write};

use crate::error::{Error, Result};

/// Exit code where standard output was closed before everything was written: the one that a shell
/// shows for a program that the signal SIGPIPE has ended.
pub const CLOSED_PIPE: u8 = 141;

/// Standard output, for results.
#[derive(Clone, Copy, Debug)]
pub struct Stdout;

impl Stdout {
    /// What `write!` and `writeln!` call.
    ///
    /// # Errors
    ///
    /// [`Error::Stdout`] where the text does not reach the other side.
    pub fn write_fmt(&self, text: Arguments<'_>) -> Result<()> {
        let mut stdout = io::stdout().lock();
        // Flushed at once: the buffer's own flush, at the end of the process, hides its errors.
        stdout.write_fmt(text).and_then(|()| stdout.flush()).map_err(Error::Stdout)
    }
}

/// Standard error, for messages. Where it cannot be written to there is nobody to tell.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Stderr {
    /// What `write!` and `writeln!` call.
    pub fn write_fmt(&self, text: Arguments<'_>) {
        let _ = io::stderr().lock().write_fmt(text);
    }
}
