//! Text and token ids: what a prompt is made of, and how tokens are shown.

use resnet_bk_core as core;

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// What is known about the tokens of a model.
#[derive(Clone, Copy)]
pub(super) enum Vocabulary<'a> {
    /// Their tokenizer.
    Tokenizer(&'a Tokenizer),
    /// What a blob's tokenizer that only decodes makes of them.
    Decoder(core::Tokenizer<'a>),
    /// Nothing: they are numbers.
    Numbers,
}

impl<'a> Vocabulary<'a> {
    /// Whether tokens are shown as text.
    pub(super) fn is_text(self) -> bool {
        !matches!(self, Self::Numbers)
    }

    /// The tokens of a text; without a tokenizer that encodes, its numbers.
    pub(super) fn encode(self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Tokenizer(tokenizer) => tokenizer.encode(text),
            Self::Decoder(_) | Self::Numbers => {
                let numbers = text.split([',', ' ']).filter(|number| !number.is_empty());
                numbers.map(|number| number.parse().map_err(|_| no_number(number))).collect()
            }
        }
    }

    /// Shows a text that begins with a prompt of these tokens, as a text if it was given as one.
    pub(super) fn show(self, prompt: Option<&str>, tokens: &[u32]) -> Result<Shown<'a>> {
        let mut shown =
            Shown { vocabulary: self, text: String::new(), pending: Vec::new(), whole: None };
        match (self, prompt) {
            (Self::Tokenizer(tokenizer), _) if tokenizer.table().is_none() => {
                shown.whole = Some(tokens.to_vec());
            }
            (Self::Tokenizer(_), Some(prompt)) => shown.text.push_str(prompt),
            _ => tokens.iter().try_for_each(|&token| shown.push(token))?,
        }
        Ok(shown)
    }
}

fn no_number(found: &str) -> Error {
    Error::Usage(format!(
        "`{found}` is no token id: without a tokenizer there is no text; name one (--tokenizer), \
         or give ids, such as 12"
    ))
}

/// A text that grows by tokens.
pub(super) struct Shown<'a> {
    vocabulary: Vocabulary<'a>,
    text: String,
    /// Bytes of an incomplete character.
    pending: Vec<u8>,
    /// All tokens, where a token's text depends on the others: shown at the end.
    whole: Option<Vec<u32>>,
}

impl Shown<'_> {
    /// What is shown so far; grows only at its end.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Adds a token.
    pub(super) fn push(&mut self, token: u32) -> Result<()> {
        match (self.vocabulary, &mut self.whole) {
            (_, Some(tokens)) => tokens.push(token),
            (Vocabulary::Tokenizer(tokenizer), None) => {
                self.pending.extend(tokenizer.decode(&[token])?);
                self.complete();
            }
            (Vocabulary::Decoder(decoder), None) => {
                // A token without text shows nothing.
                let _ = decoder.decode(token, |byte| self.pending.push(byte));
                self.complete();
            }
            (Vocabulary::Numbers, None) => {
                let comma = if self.text.is_empty() { "" } else { "," };
                self.text.push_str(&format!("{comma}{token}"));
            }
        }
        Ok(())
    }

    /// Ends the text.
    pub(super) fn finish(&mut self) -> Result<()> {
        if let (Vocabulary::Tokenizer(tokenizer), Some(tokens)) = (self.vocabulary, &self.whole) {
            self.text = String::from_utf8_lossy(&tokenizer.decode(tokens)?).into_owned();
        }
        self.text.push_str(&String::from_utf8_lossy(&self.pending));
        self.pending.clear();
        Ok(())
    }

    /// Moves what is complete of the pending bytes to the text; what is not UTF-8 shows as U+FFFD.
    fn complete(&mut self) {
        loop {
            let (valid, broken) = match std::str::from_utf8(&self.pending) {
                Ok(text) => (text.len(), Some(0)),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            self.text.push_str(&String::from_utf8_lossy(&self.pending[..valid]));
            // Without a length it may still become a character.
            let Some(broken) = broken else {
                self.pending.drain(..valid);
                return;
            };
            if broken > 0 {
                self.text.push(char::REPLACEMENT_CHARACTER);
            }
            self.pending.drain(..valid + broken);
            if self.pending.is_empty() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However tokens split it.
        #[test]
        fn text_is_as_the_standard_library_has_it(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), prop::sample::select(b"a\xc3\xa9\xe2\x82\xac\xf0\x9f".to_vec())],
                0..40,
            ),
            size in 1usize..5,
        ) {
            let mut shown = Vocabulary::Numbers.show(None, &[]).unwrap();
            for part in bytes.chunks(size) {
                shown.pending.extend(part);
                shown.complete();
            }
            shown.finish().unwrap();
            prop_assert_eq!(shown.text(), String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn numbers_stand_in_for_text() {
        assert_eq!(Vocabulary::Numbers.encode("1, 5 9").unwrap(), [1, 5, 9]);
        let error = Vocabulary::Numbers.encode("1 The").unwrap_err();
        assert!(error.to_string().contains("`The` is no token id"), "{error}");
        let mut shown = Vocabulary::Numbers.show(None, &[1, 5]).unwrap();
        shown.push(9).unwrap();
        shown.finish().unwrap();
        assert_eq!(shown.text(), "1,5,9");
    }
}
