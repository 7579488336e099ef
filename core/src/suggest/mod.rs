//! Suggestions: the likeliest continuations of a text, as a keyboard or a command line shows them.
//!
//! The probabilities are the integers of the coder (`docs/numerics.md`, section 16), so that the
//! suggestions are the same on every machine.

mod search;
#[cfg(test)]
mod tests;

use heapless::Vec;

#[cfg(doc)]
use crate::blob::Dimensions;
use crate::context::Context;
use crate::error::Error;
use crate::session::Session;
use crate::tokenizer::{Tokenizer, is_space};
use search::Search;

/// Beginnings of suggestions that a search keeps at a time: the likeliest. Of more suggestions than
/// that, some may be missing.
pub const BEGINNINGS: usize = 16;
/// Bytes of the longest suggestion.
pub const LONGEST: usize = 48;
/// Fraction bits of a probability.
const BITS: u32 = 24;

/// What a suggestion is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Unit {
    /// A whole word: everything up to the next white space.
    #[default]
    Word,
    /// As much as one token adds to what has been typed.
    Token,
}

/// A continuation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    text: Vec<u8, LONGEST>,
    probability: u32,
}

impl Suggestion {
    /// No bytes, of probability 0.
    pub const NONE: Self = Self { text: Vec::new(), probability: 0 };

    /// Its bytes. They begin with what has been typed of the last word and the space before it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// How likely it is among all continuations that begin with what has been typed.
    pub fn probability(&self) -> f32 {
        self.probability as f32 / (1 << BITS) as f32
    }
}

impl Default for Suggestion {
    fn default() -> Self {
        Self::NONE
    }
}

/// Suggests how a text goes on.
///
/// ```
/// use resnet_bk_core::suggest::{Suggester, Suggestion, Unit};
/// use resnet_bk_core::{Error, Model, Session};
///
/// static MODEL: &[u8] = resnet_bk_core::include_blob!(concat!(
///     env!("CARGO_MANIFEST_DIR"),
///     "/tests/golden/v3/half-mixed.rbk"
/// ));
///
/// let session = Session::new(Model::from_bytes(MODEL)?, [0; 4096])?;
/// let (mut tokens, mut state) = ([0; 64], [0; 1024]);
/// let mut suggester = Suggester::new(session, &mut tokens, &mut state)?;
///
/// let mut found = [Suggestion::NONE; 3];
/// let count = suggester.suggest(b"The c", Unit::Word, 8, &mut found)?;
/// for suggestion in &found[..count] {
///     assert!(suggestion.text().starts_with(b" c"));
///     assert!(suggestion.probability() < 1.0);
/// }
/// # Ok::<(), Error>(())
/// ```
pub struct Suggester<'a, 't, M> {
    context: Context<'a, M>,
    tokenizer: Tokenizer<'a>,
    /// The tokens that the snapshot follows, then room for those of another text.
    tokens: &'t mut [u32],
    /// Number of the former.
    read: usize,
    snapshot: &'t mut [u8],
}

impl<'a, 't, M: AsRef<[u32]> + AsMut<[u32]>> Suggester<'a, 't, M> {
    /// Suggests with the model of a session. A text may have half as many bytes as `tokens` has
    /// elements; `snapshot` keeps the model's state after it, [`Dimensions::context_len`] bytes.
    ///
    /// # Errors
    ///
    /// [`Error::NoTokenizer`] if the blob has none, [`Error::NoEncoder`] if its one only decodes;
    /// [`Error::Buffer`] if `snapshot` is too short.
    pub fn new(
        session: Session<'a, M>,
        tokens: &'t mut [u32],
        snapshot: &'t mut [u8],
    ) -> Result<Self, Error> {
        let tokenizer = session.model().tokenizer()?;
        tokenizer.require_encoder()?;
        let context = Context::new(session);
        let (needed, given) = (context.model().dims().context_len(), snapshot.len());
        let snapshot = snapshot.get_mut(..needed).ok_or(Error::Buffer { needed, given })?;
        Ok(Self { context, tokenizer, tokens, read: 0, snapshot })
    }

    /// Writes the likeliest continuations of `text` to `out`, best first, and returns their number.
    ///
    /// It looks for them from the likeliest beginnings on, of which it keeps [`BEGINNINGS`], and
    /// asks the model for logits at most `steps` times: with fewer, suggestions may be missing. A
    /// longer `text` than before that begins with all of its whole words costs no more than what is
    /// new.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] if the text is longer than half of the scratch;
    /// [`Error::EndOfPositions`] past the end of the position table.
    pub fn suggest(
        &mut self,
        text: &[u8],
        unit: Unit,
        steps: usize,
        out: &mut [Suggestion],
    ) -> Result<usize, Error> {
        let (before, typed) = text.split_at(last_word(text));
        self.read(before)?;
        let mut search = Search::new(&self.tokenizer, typed, unit, out);
        for _ in 0..steps {
            let Some(next) = search.next() else { break };
            self.context.restore(self.snapshot)?;
            next.tokens().try_for_each(|token| self.context.push(token))?;
            search.extend(&next, self.context.logits()?);
        }
        Ok(search.finish())
    }

    /// Makes the snapshot that of the state after `text`.
    fn read(&mut self, text: &[u8]) -> Result<(), Error> {
        let (given, half) = (self.tokens.len(), self.tokens.len() / 2);
        if text.len() > half {
            return Err(Error::Buffer { needed: 2 * text.len(), given });
        }
        let (tokens, room) = self.tokens.split_at_mut(half);
        let count = self.tokenizer.encode(text, room)?;
        let (text, read) = (&room[..count], core::mem::take(&mut self.read));
        let known = if text.starts_with(&tokens[..read]) { read } else { 0 };
        match known {
            0 => self.context.clear(),
            _ => self.context.restore(self.snapshot)?,
        }
        text[known..].iter().try_for_each(|&token| self.context.push(token))?;
        self.context.snapshot(self.snapshot)?;
        tokens[..count].copy_from_slice(text);
        self.read = count;
        Ok(())
    }
}

/// Where the last word of a text begins, with the one space before it, as the tokenizer divides
/// texts. A text that ends with other white space has none yet.
fn last_word(text: &[u8]) -> usize {
    match text.iter().rposition(is_space) {
        Some(at) => at + usize::from(text[at] != b' '),
        None => 0,
    }
}

/// Omits the memory.
impl<M> core::fmt::Debug for Suggester<'_, '_, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Suggester").field("read", &self.read).finish_non_exhaustive()
    }
}
