//! A tokenizer that only decodes: the bytes of every token.

use super::MAX_TEXT_BYTES;
use crate::error::Error;

/// Bytes of text of each token, one byte each, and all texts one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    lengths: &'a [u8],
    text: &'a [u8],
}

impl<'a> Table<'a> {
    /// Reads a table of `count` tokens, of at most `vocab`.
    pub(super) fn new(bytes: &'a [u8], count: usize, vocab: u32) -> Result<Self, Error> {
        let (lengths, text) = bytes.split_at_checked(count).ok_or(Error::TokenizerSection)?;
        let table = Self { lengths, text };
        let limit = MAX_TEXT_BYTES;
        match text.len() {
            len if len != table.start(count) || count > vocab as usize => {
                Err(Error::TokenizerSection)
            }
            len if len > limit as usize => Err(Error::TokenizerText { limit }),
            _ => Ok(table),
        }
    }

    /// Number of tokens.
    pub(super) fn count(&self) -> usize {
        self.lengths.len()
    }

    /// The text of a token; `None` if it has none.
    pub(super) fn text(&self, token: u32) -> Option<&'a [u8]> {
        let token = token as usize;
        let len = *self.lengths.get(token)? as usize;
        let text = self.text.get(self.start(token)..)?.get(..len)?;
        (len > 0).then_some(text)
    }

    /// Where the text of a token begins.
    fn start(&self, token: usize) -> usize {
        self.lengths.iter().take(token).map(|&len| len as usize).sum()
    }
}
