//! Standard output and standard error, as in `resnet_bk_tools::terminal`, without its dependencies.

use std::fmt::{self, Arguments};
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

/// Exit code if standard output was closed before everything was written: as a shell reports it for
/// a program killed by SIGPIPE.
pub const CLOSED_PIPE: u8 = 141;

/// Standard output was closed by its reader.
#[derive(Clone, Copy, Debug)]
pub struct ClosedPipe;

impl fmt::Display for ClosedPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("standard output was closed")
    }
}

impl std::error::Error for ClosedPipe {}

/// Standard output, for results.
#[derive(Clone, Copy, Debug)]
pub struct Stdout;

impl Stdout {
    /// Called by `write!` and `writeln!`; fails with [`ClosedPipe`] if the reader is gone.
    pub fn write_fmt(&self, text: Arguments<'_>) -> Result<()> {
        self.attempt(|stdout| stdout.write_fmt(text))
    }

    /// Writes arbitrary bytes.
    pub fn write_all(&self, bytes: &[u8]) -> Result<()> {
        self.attempt(|stdout| stdout.write_all(bytes))
    }

    fn attempt(&self, write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> Result<()> {
        let mut stdout = io::stdout().lock();
        // Flush at once: the implicit flush at process exit hides errors.
        checked(write(&mut stdout).and_then(|()| stdout.flush()))
    }
}

/// Converts the result of a write to standard output to this program's errors.
pub fn checked(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ClosedPipe.into()),
        written => written.context("cannot write to standard output"),
    }
}

/// Standard error, for messages; write errors are ignored.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Stderr {
    /// Called by `write!` and `writeln!`.
    pub fn write_fmt(&self, text: Arguments<'_>) {
        let _ = io::stderr().lock().write_fmt(text);
    }
}
