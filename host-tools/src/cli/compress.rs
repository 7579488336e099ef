//! `resnet-bk compress`.

use std::time::Instant;

use serde_json::json;

use super::common::{bar, parse_blob, set};
use super::hex::Hex;
use super::pipe::{Ends, Opened};
use crate::cli::{Global, numbers};
use crate::compress::{Container, Flags, MAX_CHUNK, Settings, compress, decompress};
use crate::error::{Error, Result};
use crate::output::Kind;

const EXAMPLES: &str = "\
Examples:
  A text, and back:
      resnet-bk compress model.rbk notes.txt --out notes.rbt
      resnet-bk decompress model.rbk notes.rbt --out notes-again.txt

  Messages, one a line, as a device would send them: each can be read without the others:
      resnet-bk compress model.rbk messages.txt --lines --out messages.rbt

  The same where no message is lost: each goes on from those before it, after some examples that
  both ends have:
      resnet-bk compress model.rbk messages.txt --lines --carry --prime examples.txt --out m.rbt

  The bare bytes of every message, as a device sends them, with a check of 16 bits:
      resnet-bk compress model.rbk messages.txt --hex --check 16 --out messages.hex

  In a pipe:
      dmesg | resnet-bk compress model.rbk > log.rbt

Both ends need the same blob: its probabilities are the code. It takes a token's inference for every
token of the text, on either end. docs/stream.md specifies the bytes.";

/// Compress text with a blob, on any machine to the same bytes.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`compress --help` shows examples.")]
pub(crate) struct Args {
    #[command(flatten)]
    ends: Ends,
    #[command(flatten)]
    hex: Hex,
    /// Code every line as a message of its own, in a container.
    #[arg(long, group = "messages")]
    lines: bool,
    /// With --lines or --hex, let every line go on from those before it: shorter, but a lost one
    /// makes all after it unreadable, in a container those of its chunk.
    #[arg(long, requires = "messages")]
    carry: bool,
    /// Bytes of text in a chunk, at most but for a longer line. Chunks are compressed in parallel
    /// and damaged apart; each costs about 28 bytes and begins without the text before it.
    #[arg(long, value_parser = numbers::within(1..=MAX_CHUNK as u64), default_value_t = 1 << 16,
        value_name = "N", conflicts_with = "hex")]
    chunk: usize,
    /// Decompress the result and compare before it is written.
    #[arg(long)]
    verify: bool,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    if args.hex.is_wanted() {
        return args.hex.compress(&args.ends, args.carry, args.verify, global);
    }
    let Opened { sink, blob, prime } = args.ends.open(Some(Kind::Compressed))?;
    let model = parse_blob(&blob, &args.ends.model)?;
    let text = args.ends.read()?;
    let started = Instant::now();
    let flags = Flags { lines: args.lines, carried: args.carry };
    let settings = Settings { flags, prime: &prime, chunk: args.chunk };
    let progress = bar("compressing", global);
    let (bytes, figures) = compress(&model, &text, settings, |share| set(&progress, share))?;
    progress.finish_and_clear();
    let seconds = started.elapsed().as_secs_f64();
    if args.verify {
        let progress = bar("verifying", global);
        let container = Container::parse(&bytes).expect("it was just written");
        let pieces = decompress(&model, &container, &prime, |share| set(&progress, share))?;
        progress.finish_and_clear();
        let read: Option<Vec<_>> = pieces.into_iter().map(std::result::Result::ok).collect();
        if read.is_none_or(|read| read.concat() != text) {
            return Err(Error::Irreversible);
        }
    }
    sink.write(&bytes)?;
    let per_byte = |bytes: usize| 8.0 * bytes as f64 / text.len().max(1) as f64;
    let summary = format!(
        "{} bytes to {} in {} messages and {} chunks: {:.3} bits per byte, {:.3} of them code; \
         {seconds:.1} s",
        figures.text_bytes,
        figures.bytes,
        figures.messages,
        figures.chunks,
        per_byte(figures.bytes),
        per_byte(figures.code_bytes),
    );
    let mut report = serde_json::to_value(figures).expect("plain numbers serialise");
    report["bits_per_byte"] = json!(per_byte(figures.bytes));
    report["code_bits_per_byte"] = json!(per_byte(figures.code_bytes));
    report["seconds"] = json!(seconds);
    report["verified"] = json!(args.verify);
    args.ends.report(&sink, report, &summary, global)
}
