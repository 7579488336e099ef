//! Bare messages as lines of hexadecimal digits, for `compress` and `decompress`.

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use resnet_bk_core as core;
use resnet_bk_core::coder::{Check, Framing};
use serde_json::json;

use super::common::{bar, parse_blob, set};
use super::pipe::{Ends, Opened};
use crate::cli::Global;
use crate::compress::Link;
use crate::error::{Error, Result};

/// What the two ends of a link have agreed on.
#[derive(Debug, clap::Args)]
pub(super) struct Hex {
    /// Every line of text is a bare message, and every line of its other form these bytes as
    /// hexadecimal digits, as a device sends them. There is no container.
    #[arg(long, group = "messages")]
    hex: bool,
    /// Bits of the check at the end of a bare message.
    #[arg(long, requires = "hex", value_name = "BITS", default_value = "0",
        value_parser = ["0", "8", "16", "32"])]
    check: String,
    /// Two bytes of the model's checksum at the beginning of a bare message.
    #[arg(long, requires = "hex")]
    identity: bool,
}

impl Hex {
    pub(super) fn is_wanted(&self) -> bool {
        self.hex
    }

    fn framing(&self) -> Framing {
        let check = match self.check.as_str() {
            "8" => Check::Bits8,
            "16" => Check::Bits16,
            "32" => Check::Bits32,
            _ => Check::None,
        };
        Framing { identity: self.identity, check }
    }

    /// Lines of text to lines of digits.
    pub(super) fn compress(
        &self,
        ends: &Ends,
        carry: bool,
        verify: bool,
        global: Global,
    ) -> Result<()> {
        let Opened { sink, blob, prime } = ends.open(None)?;
        let model = parse_blob(&blob, &ends.model)?;
        let text = ends.read()?;
        let link = Link::new(&model, self.framing(), carry, &prime)?;
        let messages: Vec<&[u8]> = lines(&text).collect();
        let progress = bar("compressing", global);
        let codes = link.send(&messages, |share| set(&progress, share))?;
        progress.finish_and_clear();
        if verify {
            let progress = bar("verifying", global);
            let read = link.receive(&codes, |share| set(&progress, share))?;
            progress.finish_and_clear();
            if read.iter().zip(&messages).any(|(read, sent)| read.as_deref() != Ok(*sent)) {
                return Err(Error::Irreversible);
            }
        }
        let digits = codes.iter().map(|code| HEXLOWER.encode(code) + "\n").collect::<String>();
        sink.write(digits.as_bytes())?;
        let (from, to): (usize, usize) =
            (messages.iter().map(|message| message.len()).sum(), codes.iter().map(Vec::len).sum());
        let bits_per_byte = 8.0 * to as f64 / from.max(1) as f64;
        let count = messages.len();
        let figures = json!({
            "messages": count, "text_bytes": from, "bytes": to,
            "bits_per_byte": bits_per_byte, "verified": verify,
        });
        let summary =
            format!("{count} messages, {from} bytes to {to}: {bits_per_byte:.3} bits per byte");
        ends.report(&sink, figures, &summary, global)
    }

    /// Lines of digits to lines of text.
    pub(super) fn decompress(
        &self,
        ends: Ends,
        carry: bool,
        salvage: bool,
        global: Global,
    ) -> Result<()> {
        let Opened { sink, blob, prime } = ends.open(None)?;
        let model = parse_blob(&blob, &ends.model)?;
        let digits = ends.read()?;
        let link = Link::new(&model, self.framing(), carry, &prime)?;
        let codes = lines(&digits).enumerate().map(|(index, line)| {
            HEXLOWER_PERMISSIVE.decode(line.trim_ascii()).map_err(|error| Error::Format {
                kind: "list of messages",
                path: ends.input.clone(),
                reason: format!("line {} is not hexadecimal: {error}", index + 1),
            })
        });
        let codes: Vec<Vec<u8>> = codes.collect::<Result<_>>()?;
        let progress = bar("decompressing", global);
        let texts = link.receive(&codes, |share| set(&progress, share))?;
        progress.finish_and_clear();
        let lost: Vec<String> = texts.iter().enumerate().filter_map(name).collect();
        if lost.is_empty() || salvage {
            let readable = texts.iter().flatten();
            let text: Vec<u8> = readable.flat_map(|text| [text, &b"\n"[..]].concat()).collect();
            sink.write(&text)?;
            let (count, of) = (texts.len() - lost.len(), texts.len());
            let figures = json!({ "messages": count, "text_bytes": text.len(), "lost": lost });
            ends.report(&sink, figures, &format!("{count} of {of} messages"), global)?;
        }
        match lost.is_empty() {
            true => Ok(()),
            false => Err(Error::Damaged { path: ends.input, lost, salvaged: salvage }),
        }
    }
}

/// The lines of a text, whose last one may end with the text.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n')
}

fn name((index, text): (usize, &Result<Vec<u8>, core::Error>)) -> Option<String> {
    let error = text.as_ref().err()?;
    Some(format!("message {} is lost: {error}", index + 1))
}
