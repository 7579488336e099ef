//! Containers of compressed text: chunks that are coded apart, each with a check, so that damage
//! costs no more than the chunk that it hits. `docs/stream.md` specifies the bytes. [`Link`] has
//! bare messages instead, as a device sends them.

mod chunk;
mod container;
mod messages;
#[cfg(test)]
mod tests;

pub use container::{Container, Flags, Header, Lost, MAGIC, MAX_CHUNK};
pub use messages::{LONGEST_MESSAGE, Link};

use rayon::prelude::*;
use resnet_bk_core as core;
use resnet_bk_core::coder::Framing;

use crate::error::{Error, Result};
use crate::threads::Progress;
use chunk::Coder;

/// How a text is divided and coded.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a> {
    /// Lines as messages of their own, and whether one goes on from the lines before it.
    pub flags: Flags,
    /// Text that the model reads before every chunk, or before every message of its own.
    pub prime: &'a [u8],
    /// Bytes of text in a chunk, at most but for a longer line.
    pub chunk: usize,
}

/// What a container holds, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Figures {
    /// Bytes of text.
    pub text_bytes: usize,
    /// Bytes of the container.
    pub bytes: usize,
    /// Chunks.
    pub chunks: usize,
    /// Messages.
    pub messages: usize,
    /// Bytes of the messages' codes alone, without lengths, checks and chunks.
    pub code_bytes: usize,
}

/// Compresses a text. `progress` is called with the fraction that is done.
///
/// # Errors
///
/// [`Error::Usage`] for a line longer than [`MAX_CHUNK`]; [`Error::Blob`] if the model cannot
/// stream or has no tokenizer.
pub fn compress(
    model: &core::Model<'_>,
    text: &[u8],
    settings: Settings<'_>,
    progress: impl Fn(f64) + Sync,
) -> Result<(Vec<u8>, Figures)> {
    let header = Header::new(model, settings.flags, settings.prime);
    let coder = Coder::new(model, settings.flags, Framing::default(), settings.prime)?;
    let chunks = divide(text, settings)?;
    let progress = Progress::new(text.len(), progress);
    let bodies: Vec<_> = chunks
        .par_iter()
        .map(|chunk| {
            let coded = coder.compress(chunk)?;
            progress.add(chunk.len());
            Ok(coded)
        })
        .collect::<Result<_>>()?;
    let mut out = header.to_bytes();
    let mut figures =
        Figures { text_bytes: text.len(), chunks: chunks.len(), ..Default::default() };
    for (index, (chunk, coded)) in chunks.iter().zip(bodies).enumerate() {
        container::append_chunk(&mut out, index as u32, chunk, &coded.body);
        figures.messages += coded.messages;
        figures.code_bytes += coded.code_bytes;
    }
    container::append_end(&mut out, chunks.len() as u32, text.len() as u64);
    figures.bytes = out.len();
    Ok((out, figures))
}

/// Decompresses a container: the text of each chunk in order, or what was lost instead of it.
/// `progress` is called with the fraction that is done.
///
/// # Errors
///
/// [`Error::Blob`] if the model cannot stream or has no tokenizer. Whether the container is one of
/// this model and text, [`Header::check`] says.
pub fn decompress(
    model: &core::Model<'_>,
    container: &Container<'_>,
    prime: &[u8],
    progress: impl Fn(f64) + Sync,
) -> Result<Vec<std::result::Result<Vec<u8>, Lost>>> {
    let coder = Coder::new(model, container.header.flags, Framing::default(), prime)?;
    let progress = Progress::new(container.pieces.len(), progress);
    let read = |piece: &std::result::Result<container::Chunk<'_>, Lost>| {
        let text = piece.and_then(|chunk| {
            let (first, last) = (chunk.index, Some(chunk.index));
            coder.decompress(&chunk).ok_or(Lost { first, last })
        });
        progress.add(1);
        text
    };
    Ok(container.pieces.par_iter().map(read).collect())
}

/// The chunks of a text: as long as the settings say, but of whole lines if those are messages. A
/// longer line is a chunk of its own.
fn divide<'a>(text: &'a [u8], settings: Settings<'_>) -> Result<Vec<&'a [u8]>> {
    let longest = settings.chunk.clamp(1, MAX_CHUNK);
    if !settings.flags.lines {
        return Ok(text.chunks(longest).collect());
    }
    let is_end = |&byte: &u8| byte == b'\n';
    let (mut rest, mut chunks) = (text, Vec::new());
    while rest.len() > longest {
        let within = rest[..longest].iter().rposition(is_end);
        let end = within.or_else(|| rest.iter().position(is_end));
        let (chunk, after) = rest.split_at(end.map_or(rest.len(), |at| at + 1));
        if chunk.len() > MAX_CHUNK {
            return Err(Error::Usage(format!(
                "the text has a line of more than {MAX_CHUNK} bytes, which no chunk holds: leave \
                 out --lines"
            )));
        }
        chunks.push(chunk);
        rest = after;
    }
    chunks.extend((!rest.is_empty()).then_some(rest));
    Ok(chunks)
}
