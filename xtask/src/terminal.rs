//! Standard output and standard error, as in `resnet_bk_tools::terminal`, without its dependencies.

use std::fmt::{self, Arguments};
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};

/// Exit code where standard output was closed before everything was written: the one that a shell
/// shows for a program that the signal SIGPIPE has ended.
pub const CLOSED_PIPE: u8 = 141;

/// Nobody reads standard output any more.
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
    /// What `write!` and `writeln!` call; fails with [`ClosedPipe`] where the reader is gone.
    pub fn write_fmt(&self, text: Arguments<'_>) -> Result<()> {
        self.attempt(|stdout| stdout.write_fmt(text))
    }

    /// Writes bytes that need not be text.
    pub fn write_all(&self, bytes: &[u8]) -> Result<()> {
        self.attempt(|stdout| stdout.write_all(bytes))
    }

    fn attempt(&self, write: impl FnOnce(&mut io::StdoutLock<'_>) -> io::Result<()>) -> Result<()> {
        let mut stdout = io::stdout().lock();
        // Flushed at once: the buffer's own flush, at the end of the process, hides its errors.
        checked(write(&mut stdout).and_then(|()| stdout.flush()))
    }
}

/// What came of writing to standard output, as an error of this program.
pub fn checked(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ClosedPipe.into()),
        written => written.context("cannot write to standard output"),
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
