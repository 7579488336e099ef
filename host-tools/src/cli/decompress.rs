//! `resnet-bk decompress`.

use std::path::PathBuf;

use serde_json::json;

use super::common::{Force, bar, escaped, parse_blob, print_json, set};
use super::compress::read_prime;
use super::pipe::{self, Sink};
use crate::cli::Global;
use crate::compress::{Container, Lost, decompress};
use crate::error::{Error, Result};
use crate::files;
use crate::terminal::{Stderr, Stdout};

const EXAMPLES: &str = "\
Examples:
  What `compress` wrote:
      resnet-bk decompress model.rbk notes.rbt --out notes.txt

  What is left of a damaged one; the parts that are lost are named:
      resnet-bk decompress model.rbk notes.rbt --salvage --out notes.txt

Nothing is written that differs from the text that was compressed: every chunk has a check.";

/// Decompress what `compress` wrote.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`decompress --help` shows examples.")]
pub(crate) struct Args {
    /// The blob that compressed it.
    #[arg(value_name = "BLOB")]
    model: PathBuf,
    /// Compressed text; `-` is standard input.
    #[arg(value_name = "FILE", default_value = "-")]
    input: PathBuf,
    /// Text to write; `-` is standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// The text that was read first, if there was one.
    #[arg(long, value_name = "FILE")]
    prime: Option<PathBuf>,
    /// Write what can be read of a damaged text. The exit code is still 1.
    #[arg(long)]
    salvage: bool,
    #[command(flatten)]
    force: Force,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let mut inputs = vec![args.model.as_path(), args.input.as_path()];
    inputs.extend(args.prime.as_deref());
    let sink = Sink::new(&args.out, None, &inputs, args.force)?;
    let blob = files::read(&args.model)?;
    let model = parse_blob(&blob, &args.model)?;
    let prime = read_prime(args.prime.as_deref())?;
    let bytes = pipe::read(&args.input)?;
    let invalid = |reason| Error::Format {
        kind: "compressed text for this",
        path: args.input.clone(),
        reason,
    };
    let container = Container::parse(&bytes).map_err(invalid)?;
    container.header.check(&model, &prime).map_err(invalid)?;
    let progress = bar("decompressing", global);
    let pieces = decompress(&model, &container, &prime, |share| set(&progress, share))?;
    progress.finish_and_clear();
    let lost: Vec<String> =
        pieces.iter().filter_map(|piece| piece.as_ref().err()).map(name).collect();
    if lost.is_empty() || args.salvage {
        let text: Vec<u8> = pieces.iter().flatten().flatten().copied().collect();
        sink.write(&text)?;
        let chunks = pieces.iter().flatten().count();
        if global.json && sink.is_file() {
            print_json(&json!({
                "out": escaped(&args.out), "text_bytes": text.len(), "bytes": bytes.len(),
                "chunks": chunks, "lost": lost,
            }))?;
        } else if sink.is_file() {
            writeln!(Stdout, "{}: {} bytes in {chunks} chunks", args.out.display(), text.len())?;
        } else if !global.quiet {
            writeln!(Stderr, "{} bytes in {chunks} chunks", text.len());
        }
    }
    match lost.is_empty() {
        true => Ok(()),
        false => Err(Error::Damaged { path: args.input, lost, salvaged: args.salvage }),
    }
}

fn name(lost: &Lost) -> String {
    match *lost {
        Lost { first, last: Some(last) } if first == last => format!("chunk {first} is lost"),
        Lost { first, last: Some(last) } => format!("chunks {first} to {last} are lost"),
        Lost { first, last: None } => {
            format!("it is cut short: whatever came from chunk {first} on is lost")
        }
    }
}
