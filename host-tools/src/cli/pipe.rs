//! Inputs and outputs that may be pipes: `-` is standard input or output.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::common::{Force, escaped, print_json};
use crate::cli::Global;
use crate::error::{Error, Result};
use crate::files::{self, Content};
use crate::output::{Kind, Output};
use crate::terminal::{Stderr, Stdout};

/// The flags of both ends of a compressed text.
#[derive(Debug, clap::Args)]
pub(super) struct Ends {
    /// Blob with a causal model and its tokenizer, the same at both ends.
    #[arg(value_name = "BLOB")]
    pub(super) model: PathBuf,
    /// File to read; `-` is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    pub(super) input: PathBuf,
    /// File to write; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) out: PathBuf,
    /// Text that both ends have, which the model reads first.
    #[arg(long, value_name = "FILE")]
    prime: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
}

impl Ends {
    /// Reads what both ends have, after a check of the output, which may replace a file of this
    /// kind, if any.
    pub(super) fn open(&self, kind: Option<Kind>) -> Result<Opened> {
        let sink = self.sink(kind)?;
        let blob = Content::of(&self.model)?;
        // The text of no --prime is that of no bytes.
        let prime = self.prime.as_deref().map_or(Ok(Vec::new()), files::read)?;
        Ok(Opened { sink, blob, prime })
    }

    fn sink(&self, kind: Option<Kind>) -> Result<Sink> {
        if is_pipe(&self.out) {
            if kind.is_some() && std::io::stdout().is_terminal() {
                return Err(Error::Usage(
                    "bytes would go to the terminal: name a file with --out, or use a pipe".into(),
                ));
            }
            return Ok(Sink::Stdout);
        }
        let inputs = [&self.model, &self.input].into_iter().chain(&self.prime);
        let mut plan = self.force.plan(inputs);
        let output = match kind {
            Some(kind) => plan.writes(&self.out, kind)?,
            None => plan.creates(&self.out, "a file that is there already")?,
        };
        Ok(if output.is_standard_output() { Sink::Stdout } else { Sink::File(output) })
    }

    /// Says what was done: where it leaves standard output free, there, as JSON if wanted.
    pub(super) fn report(
        &self,
        sink: &Sink,
        mut figures: Value,
        summary: &str,
        global: Global,
    ) -> Result<()> {
        match sink {
            Sink::File(_) if global.json => {
                figures["out"] = json!(escaped(&self.out));
                print_json(&figures)
            }
            Sink::File(_) => writeln!(Stdout, "{}: {summary}", self.out.display()),
            Sink::Stdout if global.quiet => Ok(()),
            Sink::Stdout => {
                writeln!(Stderr, "{summary}");
                Ok(())
            }
        }
    }

    /// All of the input.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        if !is_pipe(&self.input) {
            return files::read(&self.input);
        }
        let mut bytes = Vec::new();
        let stdin = std::io::stdin().lock().read_to_end(&mut bytes);
        stdin.map_err(Error::io("read", Path::new("standard input")))?;
        Ok(bytes)
    }
}

/// What both ends have before the text is read.
pub(super) struct Opened {
    pub(super) sink: Sink,
    /// Bytes of the blob.
    pub(super) blob: Content,
    /// The text of `--prime`.
    pub(super) prime: Vec<u8>,
}

/// Whether a path means standard input or output.
fn is_pipe(path: &Path) -> bool {
    path == "-"
}

/// Where a result goes.
pub(super) enum Sink {
    Stdout,
    File(Output),
}

impl Sink {
    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Stdout => Stdout.write_bytes(bytes),
            Self::File(output) => output.write(bytes),
        }
    }
}
