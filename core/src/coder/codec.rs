//! Whole messages: any bytes to the fewest that the model finds for them, and back.

use super::{Decoder, Encoder, STORED};
use crate::blob::CRC;
use crate::context::Context;
use crate::error::{Error, MessageProblem};
use crate::session::Session;
use crate::tokenizer::Tokenizer;

/// Where the model stands before a message. Both ends must have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Start<'a> {
    /// At the beginning of a stream: messages can be lost, and read in any order.
    #[default]
    Fresh,
    /// After a text that both ends have read, as a [`Codec::snapshot`].
    Primed(&'a [u8]),
    /// After the messages before, in order and without loss.
    Carried,
}

/// What a message carries to show that it is damaged: the low bits of a CRC-32C over the model's
/// identity and the message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Check {
    /// Nothing: damage may go unnoticed.
    #[default]
    None,
    /// One byte: 1 damaged message of 256 goes unnoticed.
    Bits8,
    /// Two bytes: 1 of 65,536.
    Bits16,
    /// Four bytes.
    Bits32,
}

impl Check {
    /// Bytes at the end of a message.
    pub const fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Bits8 => 1,
            Self::Bits16 => 2,
            Self::Bits32 => 4,
        }
    }
}

/// What is added to the code of a message. Both ends must agree on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Framing {
    /// Whether a message begins with two bytes of the model's checksum.
    pub identity: bool,
    /// The check at the end.
    pub check: Check,
}

impl Framing {
    /// Bytes that it adds to every message.
    pub const fn bytes(self) -> usize {
        2 * self.identity as usize + self.check.bytes()
    }
}

/// Compresses messages, of any bytes, and decompresses them.
///
/// ```
/// use resnet_bk_core::coder::{Check, Framing, Start};
/// use resnet_bk_core::{Codec, Error, Model, Session};
///
/// static MODEL: &[u8] = resnet_bk_core::include_blob!(concat!(
///     env!("CARGO_MANIFEST_DIR"),
///     "/tests/golden/v3/half-mixed.rbk"
/// ));
///
/// let session = Session::new(Model::from_bytes(MODEL)?, [0; 4096])?;
/// let mut tokens = [0; 64]; // room for a token per byte
/// let framing = Framing { check: Check::Bits16, ..Framing::default() };
/// let mut codec = Codec::new(session, &mut tokens, framing)?;
///
/// let (mut sent, mut text) = ([0; 64], [0; 64]);
/// let len = codec.compress(b"The castle", Start::Fresh, &mut sent)?;
/// let read = codec.decompress(&sent[..len], Start::Fresh, &mut text)?;
/// assert_eq!(&text[..read], b"The castle");
///
/// sent[0] ^= 1;
/// assert!(codec.decompress(&sent[..len], Start::Fresh, &mut text).is_err());
/// # Ok::<(), Error>(())
/// ```
pub struct Codec<'a, 't, M> {
    context: Context<'a, M>,
    tokenizer: Tokenizer<'a>,
    tokens: &'t mut [u32],
    framing: Framing,
    /// Checksum of the messages before, which those that carry the state on depend on.
    history: u32,
}

impl<'a, 't, M: AsRef<[u32]> + AsMut<[u32]>> Codec<'a, 't, M> {
    /// A codec with the model of a session. `tokens` is scratch: a message may have as many bytes
    /// as it has elements.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] if the blob has none, [`Error::NoEncoder`] if its one only decodes.
    pub fn new(
        session: Session<'a, M>,
        tokens: &'t mut [u32],
        framing: Framing,
    ) -> Result<Self, Error> {
        let tokenizer = session.model().tokenizer()?;
        tokenizer.require_encoder()?;
        let context = Context::new(session);
        Ok(Self { context, tokenizer, tokens, framing, history: 0 })
    }

    /// The most bytes that a message of `len` bytes becomes.
    pub const fn longest(&self, len: usize) -> usize {
        len.saturating_add(1 + self.framing.bytes())
    }

    /// Makes the model read a text that both ends know, such as examples of what messages look like
    /// or what stands between them. Messages with [`Start::Carried`] go on from there.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] if the text is longer than the scratch; as [`Session::feed`].
    pub fn read(&mut self, text: &[u8]) -> Result<(), Error> {
        let count = self.tokenizer.encode(text, self.tokens)?;
        self.tokens[..count].iter().try_for_each(|&token| self.context.push(token))
    }

    /// Bytes of a [`Self::snapshot`].
    pub fn snapshot_len(&self) -> usize {
        self.context.model().dims().context_len()
    }

    /// Writes the state of the model after what it has read to `bytes`, for [`Start::Primed`], and
    /// returns the length, as [`Context::snapshot`].
    ///
    /// # Errors
    ///
    /// As [`Context::snapshot`].
    pub fn snapshot(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        self.context.snapshot(bytes)
    }

    /// Compresses `message` into `out` and returns the number of bytes. A message of no bytes
    /// becomes none but those of the framing, and one that the model cannot shorten grows by one.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] if the message is longer than the scratch, or `out` too short for what it
    /// becomes; [`Error::Snapshot`] for a primed state of another model; as [`Session::step`].
    /// After an error a state that was to be carried on is that of no message: start afresh.
    pub fn compress(
        &mut self,
        message: &[u8],
        start: Start<'_>,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let count = self.tokenizer.encode(message, self.tokens)?;
        self.begin(start)?;
        let (given, body) = (out.len(), 2 * self.framing.identity as usize);
        let check = self.framing.check.bytes();
        let (head, room) = out.split_at_mut(body.min(given));
        // Whatever is longer is stored.
        let room_len = room.len().saturating_sub(check);
        let limit = room_len.min(message.len() + 1);
        let mut encoder = Some(Encoder::new(&mut room[..limit]));
        for index in 0..count {
            let token = self.tokens[index];
            if let Some(running) = &mut encoder {
                match running.put(self.context.logits()?, token) {
                    Err(Error::Buffer { .. }) => encoder = None,
                    result => result?,
                }
            }
            self.context.push(token)?;
        }
        let coded = encoder.and_then(|encoder| encoder.finish().ok());
        let needed = |len: usize| Error::Buffer { needed: body + len + check, given };
        let len = match coded {
            Some(len) => len,
            None if room_len <= message.len() => return Err(needed(message.len() + 1)),
            None => {
                room[0] = STORED;
                room[1..=message.len()].copy_from_slice(message);
                message.len() + 1
            }
        };
        if given < body + check {
            return Err(needed(len));
        }
        let (identity, sum) = (self.identity(), self.sum(message));
        head.copy_from_slice(&identity.to_le_bytes()[..body]);
        room[len..len + check].copy_from_slice(&sum.to_le_bytes()[..check]);
        Ok(body + len + check)
    }

    /// Decompresses a message, which is exactly `bytes`, into `out` and returns its length.
    ///
    /// # Errors
    ///
    /// [`Error::Message`] for bytes that are not a message of this model and framing;
    /// [`Error::Buffer`] if `out` is too short for the message, or the scratch for one that is
    /// stored; [`Error::Snapshot`] for a primed state of another model; as [`Session::step`]. What
    /// `out` then has is not the message.
    pub fn decompress(
        &mut self,
        bytes: &[u8],
        start: Start<'_>,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let wrong = Error::Message;
        let (head, rest) = bytes
            .split_at_checked(2 * self.framing.identity as usize)
            .ok_or(wrong(MessageProblem::Truncated))?;
        let (body, check) = rest
            .len()
            .checked_sub(self.framing.check.bytes())
            .and_then(|len| rest.split_at_checked(len))
            .ok_or(wrong(MessageProblem::Truncated))?;
        if let &[low, high] = head {
            let (found, expected) = (u16::from_le_bytes([low, high]), self.identity());
            if found != expected {
                return Err(wrong(MessageProblem::Model { found, expected }));
            }
        }
        self.begin(start)?;
        let len = match body.split_first() {
            Some((&STORED, stored)) => self.copy(stored, out)?,
            _ => self.decode(body, out)?,
        };
        match self.sum(&out[..len]).to_le_bytes().starts_with(check) {
            true => Ok(len),
            false => Err(wrong(MessageProblem::Check)),
        }
    }

    fn decode(&mut self, body: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let (mut decoder, mut len, given) = (Decoder::new(body), 0, out.len());
        while !decoder.is_at_end()? {
            let token = decoder.take(self.context.logits()?)?;
            self.context.push(token)?;
            let text = self.tokenizer.decode(token, |byte| {
                if let Some(place) = out.get_mut(len) {
                    *place = byte;
                }
                len += 1;
            });
            // A token without text, which no message has.
            text.map_err(|_| Error::Message(MessageProblem::Malformed))?;
            if len > given {
                return Err(Error::Buffer { needed: len, given });
            }
        }
        Ok(len)
    }

    /// A message that is stored: the model reads it, for those that come after it.
    fn copy(&mut self, stored: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let (needed, given) = (stored.len(), out.len());
        let short = Error::Buffer { needed, given };
        out.get_mut(..needed).ok_or(short)?.copy_from_slice(stored);
        self.read(stored)?;
        Ok(needed)
    }

    /// Puts the model where a message begins.
    fn begin(&mut self, start: Start<'_>) -> Result<(), Error> {
        match start {
            Start::Carried => return Ok(()),
            Start::Fresh => self.context.clear(),
            Start::Primed(snapshot) => self.context.restore(snapshot)?,
        }
        self.history = 0;
        Ok(())
    }

    /// The model's short identity.
    fn identity(&self) -> u16 {
        self.context.model().identity().0 as u16
    }

    /// The check of a message after those before it.
    fn sum(&mut self, message: &[u8]) -> u32 {
        let mut digest = CRC.digest();
        digest.update(&self.context.model().identity().0.to_le_bytes());
        digest.update(&self.history.to_le_bytes());
        digest.update(message);
        self.history = digest.finalize();
        self.history
    }
}

/// Omits the memory.
impl<M> core::fmt::Debug for Codec<'_, '_, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Codec").field("framing", &self.framing).finish_non_exhaustive()
    }
}
