//! Inputs and outputs that may be pipes: `-` is standard input or output.

use std::io::{IsTerminal, Read};
use std::path::Path;

use crate::error::{Error, Result};
use crate::files;
use crate::output::{Kind, Output};
use crate::terminal::Stdout;

use super::common::Force;

/// Whether a path means standard input or output.
fn is_pipe(path: &Path) -> bool {
    path == "-"
}

/// Reads all of a file, or of standard input.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    if !is_pipe(path) {
        return files::read(path);
    }
    let mut bytes = Vec::new();
    let stdin = std::io::stdin().lock().read_to_end(&mut bytes);
    stdin.map_err(Error::io("read", Path::new("standard input")))?;
    Ok(bytes)
}

/// Where a result goes.
pub(super) enum Sink {
    Stdout,
    File(Output),
}

impl Sink {
    /// Checks an output before the work begins. A result of some kind may replace another one of
    /// it; any other file stays.
    pub(super) fn new(
        path: &Path,
        kind: Option<Kind>,
        inputs: &[&Path],
        force: Force,
    ) -> Result<Self> {
        if is_pipe(path) {
            if kind.is_some() && std::io::stdout().is_terminal() {
                return Err(Error::Usage(
                    "bytes would go to the terminal: name a file with --out, or use a pipe".into(),
                ));
            }
            return Ok(Self::Stdout);
        }
        let mut plan = force.plan(inputs);
        let output = match kind {
            Some(kind) => plan.writes(path, kind)?,
            None => plan.creates(path, "a file that is there already")?,
        };
        Ok(if output.is_standard_output() { Self::Stdout } else { Self::File(output) })
    }

    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Stdout => Stdout.write_bytes(bytes),
            Self::File(output) => output.write(bytes),
        }
    }

    /// Whether standard output is free for a report.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
}
