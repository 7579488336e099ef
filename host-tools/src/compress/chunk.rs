//! The body of a chunk: one message, or a message per line, each behind its length.

use resnet_bk_core as core;
use resnet_bk_core::coder::{Framing, Start};
use resnet_bk_core::{Codec, Session};

use super::container::{CHECK, Chunk, Flags, checksum};
use crate::error::{Error, Result};

/// Codes chunks; each begins at the same state of the model.
pub(super) struct Coder<'a> {
    model: &'a core::Model<'a>,
    flags: Flags,
    framing: Framing,
    /// The state after the text that comes before a chunk; none after no text.
    primed: Option<Vec<u8>>,
}

/// A chunk's body.
pub(super) struct Coded {
    pub(super) body: Vec<u8>,
    pub(super) messages: usize,
    /// Bytes of the messages' codes.
    pub(super) code_bytes: usize,
}

pub(super) type Sender<'a, 't> = Codec<'a, 't, Vec<u32>>;

impl<'a> Coder<'a> {
    pub(super) fn new(
        model: &'a core::Model<'a>,
        flags: Flags,
        framing: Framing,
        prime: &[u8],
    ) -> Result<Self> {
        let mut tokens = vec![0; prime.len()];
        let mut coder = Self { model, flags, framing, primed: None };
        let mut codec = coder.codec(&mut tokens)?;
        if !prime.is_empty() {
            codec.read(prime).map_err(Error::Blob)?;
            let mut snapshot = vec![0; codec.snapshot_len()];
            codec.snapshot(&mut snapshot).map_err(Error::Blob)?;
            coder.primed = Some(snapshot);
        }
        Ok(coder)
    }

    /// A codec for messages of as many bytes as there are `tokens`.
    pub(super) fn codec<'t>(&self, tokens: &'t mut [u32]) -> Result<Sender<'a, 't>> {
        let session = Session::allocate(self.model.clone()).map_err(Error::Blob)?;
        Codec::new(session, tokens, self.framing).map_err(Error::Blob)
    }

    /// The state before the message with this number in its chunk.
    fn start(&self, index: usize) -> Start<'_> {
        match &self.primed {
            _ if index > 0 && self.flags.carried => Start::Carried,
            Some(snapshot) => Start::Primed(snapshot),
            None => Start::Fresh,
        }
    }

    /// Puts the model where the message with this number in its chunk begins.
    fn begin(&self, codec: &mut Sender<'_, '_>, index: usize) -> Result<Start<'_>, core::Error> {
        if index > 0 && self.flags.carried {
            codec.read(b"\n")?;
        }
        Ok(self.start(index))
    }

    /// Compresses the message with this number in its chunk into `out`.
    pub(super) fn send(
        &self,
        codec: &mut Sender<'_, '_>,
        index: usize,
        message: &[u8],
        out: &mut [u8],
    ) -> Result<usize> {
        let start = self.begin(codec, index).map_err(Error::Blob)?;
        codec.compress(message, start, out).map_err(Error::Blob)
    }

    /// Decompresses the message with this number in its chunk into `out`.
    pub(super) fn receive(
        &self,
        codec: &mut Sender<'_, '_>,
        index: usize,
        code: &[u8],
        out: &mut [u8],
    ) -> Result<usize, core::Error> {
        let start = self.begin(codec, index)?;
        codec.decompress(code, start, out)
    }

    /// Codes a text.
    pub(super) fn compress(&self, text: &[u8]) -> Result<Coded> {
        let mut tokens = vec![0; text.len().max(1)];
        let mut codec = self.codec(&mut tokens)?;
        let mut out = vec![0; codec.longest(text.len())];
        let mut coded = Coded { body: Vec::new(), messages: 0, code_bytes: 0 };
        let lines: Vec<&[u8]> = match self.flags.lines {
            true => text.split(|&byte| byte == b'\n').collect(),
            false => vec![text],
        };
        for (index, line) in lines.into_iter().enumerate() {
            let len = self.send(&mut codec, index, line, &mut out)?;
            if self.flags.lines {
                append_length(&mut coded.body, len);
            }
            coded.body.extend(&out[..len]);
            coded.messages += 1;
            coded.code_bytes += len;
        }
        coded.body.extend(checksum(text).to_le_bytes());
        Ok(coded)
    }

    /// The text of a chunk; `None` if it is damaged.
    pub(super) fn decompress(&self, chunk: &Chunk<'_>) -> Option<Vec<u8>> {
        let (body, check) = chunk.body.split_at_checked(chunk.body.len().checked_sub(CHECK)?)?;
        let mut tokens = vec![0; body.len().max(1)];
        let mut codec = self.codec(&mut tokens).ok()?;
        let mut text = vec![0; chunk.text_len];
        let (mut rest, mut len, mut index) = (body, 0, 0);
        loop {
            let code = match self.flags.lines {
                true => take(&mut rest)?,
                false => std::mem::take(&mut rest),
            };
            len += self.receive(&mut codec, index, code, &mut text[len..]).ok()?;
            if rest.is_empty() {
                break;
            }
            *text.get_mut(len)? = b'\n';
            (len, index) = (len + 1, index + 1);
        }
        (len == text.len() && checksum(&text).to_le_bytes() == check).then_some(text)
    }
}

/// Appends a length, seven bits a byte, the lowest first; all bytes but the last have the top bit.
fn append_length(out: &mut Vec<u8>, mut len: usize) {
    while len > 0x7f {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
}

/// Takes a length and as many bytes.
fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut len = 0;
    for shift in (0..28).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            let (code, after) = rest.split_at_checked(len)?;
            *rest = after;
            return Some(code);
        }
    }
    None
}
