//! `resnet-bk decompress`.

use serde_json::json;

use super::common::{bar, parse_blob, set};
use super::hex::Hex;
use super::pipe::{Ends, Opened};
use crate::cli::Global;
use crate::compress::{Container, Lost, decompress};
use crate::error::{Error, Result};

const EXAMPLES: &str = "\
Examples:
  What `compress` wrote:
      resnet-bk decompress model.rbk notes.rbt --out notes.txt

  What is left of a damaged one; the parts that are lost are named:
      resnet-bk decompress model.rbk notes.rbt --salvage --out notes.txt

  Bare messages that a device has sent:
      resnet-bk decompress model.rbk messages.hex --hex --check 16 --out messages.txt

Nothing is written that differs from the text that was compressed: every chunk of a
container has a check. Bare messages have the one of --check, or none.";

/// Decompress what `compress` wrote.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`decompress --help` shows examples.")]
pub(crate) struct Args {
    #[command(flatten)]
    ends: Ends,
    #[command(flatten)]
    hex: Hex,
    /// Bare messages go on from those before them.
    #[arg(long, requires = "hex")]
    carry: bool,
    /// Write what can be read of a damaged text. The exit code is still 1.
    #[arg(long)]
    salvage: bool,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    if args.hex.is_wanted() {
        return args.hex.decompress(args.ends, args.carry, args.salvage, global);
    }
    let Opened { sink, blob, prime } = args.ends.open(None)?;
    let model = parse_blob(&blob, &args.ends.model)?;
    let bytes = args.ends.read()?;
    let invalid = |reason| Error::Format {
        kind: "compressed text for this",
        path: args.ends.input.clone(),
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
        let figures = json!({
            "text_bytes": text.len(), "bytes": bytes.len(), "chunks": chunks, "lost": lost,
        });
        let summary = format!("{} bytes in {chunks} chunks", text.len());
        args.ends.report(&sink, figures, &summary, global)?;
    }
    match lost.is_empty() {
        true => Ok(()),
        false => Err(Error::Damaged { path: args.ends.input, lost, salvaged: args.salvage }),
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
