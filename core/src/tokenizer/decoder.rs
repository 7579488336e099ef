//! Streaming UTF-8 decoding of tokens that may split characters.

use heapless::{String, Vec};

use super::Tokenizer;
use crate::error::Error;

/// Bytes of the longest UTF-8 character.
const MAX_CHARACTER: usize = 4;
/// Most bytes of text per callback.
const PART: usize = 32;

/// Streaming decoder from tokens to text, from [`Tokenizer::decoder`]. Buffers incomplete
/// characters across tokens. Invalid UTF-8 becomes U+FFFD, exactly as in `String::from_utf8_lossy`
/// of all tokens' bytes.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    tokenizer: Tokenizer<'a>,
    /// The bytes of an incomplete character.
    pending: Vec<u8, MAX_CHARACTER>,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(tokenizer: Tokenizer<'a>) -> Self {
        Self { tokenizer, pending: Vec::new() }
    }

    /// Calls `each` with the characters that `token` completes, in parts of at most 32 bytes;
    /// possibly not at all.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] for a token without text, inside or outside of the vocabulary. The decoder
    /// is then unchanged.
    pub fn decode(&mut self, token: u32, mut each: impl FnMut(&str)) -> Result<(), Error> {
        let mut part: String<PART> = String::new();
        let pending = &mut self.pending;
        let mut put = |character: char| {
            if part.push(character).is_err() {
                each(&part);
                part.clear();
                // Cannot fail: a part is longer than a character.
                let _ = part.push(character);
            }
        };
        self.tokenizer.decode(token, |byte| push(pending, byte, &mut put))?;
        if !part.is_empty() {
            each(&part);
        }
        Ok(())
    }

    /// Ends the text: an incomplete character becomes U+FFFD. The next token begins a new text.
    pub fn finish(&mut self, each: impl FnOnce(&str)) {
        if !self.pending.is_empty() {
            self.pending.clear();
            each("\u{fffd}");
        }
    }
}

/// Appends a byte to the pending character and calls `put` with characters that are complete.
fn push(pending: &mut Vec<u8, MAX_CHARACTER>, byte: u8, put: &mut impl FnMut(char)) {
    // Cannot fail: pending bytes are shorter than a character.
    let _ = pending.push(byte);
    match core::str::from_utf8(pending) {
        Ok(text) => text.chars().for_each(put),
        Err(error) if error.error_len().is_none() => return,
        Err(_) => {
            put(char::REPLACEMENT_CHARACTER);
            // A byte that does not continue the character is decoded again as a first byte.
            if pending.len() > 1 {
                pending.clear();
                return push(pending, byte, put);
            }
        }
    }
    pending.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String as Text;
    use std::vec;

    /// Identity byte table. Merges make tokens of two to eight bytes: whole characters, parts of
    /// characters and invalid UTF-8.
    fn section() -> std::vec::Vec<u8> {
        let mut bytes: std::vec::Vec<u8> = (0..256u16).flat_map(u16::to_le_bytes).collect();
        let merges: [[u16; 2]; 8] = [
            [0xe2, 0x82],
            [256, 0xac],
            [0xf0, 0x9f],
            [258, 0x98],
            [0x80, 0xc3],
            [0xff, 0xe2],
            [257, 257],
            [262, 259],
        ];
        bytes.extend(merges.iter().flatten().flat_map(|token| token.to_le_bytes()));
        bytes
    }

    /// The decoder's text of all tokens, and their bytes.
    fn decode(tokens: &[u32]) -> (Text, std::vec::Vec<u8>) {
        let section = section();
        let tokenizer = Tokenizer::from_bytes(&section, 300).unwrap();
        let mut decoder = tokenizer.decoder();
        let (mut text, mut bytes) = (Text::new(), std::vec::Vec::new());
        for &token in tokens {
            decoder.decode(token, |part| text.push_str(part)).unwrap();
            tokenizer.decode(token, |byte| bytes.push(byte)).unwrap();
            // A complete character is never left pending.
            assert!(decoder.pending.len() < MAX_CHARACTER);
        }
        decoder.finish(|part| text.push_str(part));
        decoder.finish(|_| unreachable!("nothing is left"));
        (text, bytes)
    }

    #[test]
    fn characters_wait_until_they_are_whole() {
        let section = section();
        let tokenizer = Tokenizer::from_bytes(&section, 300).unwrap();
        let mut decoder = tokenizer.decoder();
        let mut text = Text::new();
        decoder.decode(256, |part| text.push_str(part)).unwrap();
        assert_eq!(text, "");
        assert!(decoder.decode(264, |_| unreachable!("a token without text")).is_err());
        decoder.decode(0xac, |part| text.push_str(part)).unwrap();
        assert_eq!(text, "€");
        decoder.decode(259, |part| text.push_str(part)).unwrap();
        decoder.finish(|part| text.push_str(part));
        assert_eq!(text, "€\u{fffd}");
    }

    #[test]
    fn long_tokens_come_in_parts() {
        let mut section = section();
        // Token 262 is two euro signs, token 268 is 48.
        for token in [[262u16, 262], [264, 262], [265, 265], [266, 266], [267, 267]] {
            section.extend(token.iter().flat_map(|token| token.to_le_bytes()));
        }
        let tokenizer = Tokenizer::from_bytes(&section, 300).unwrap();
        let (mut text, mut parts) = (Text::new(), 0);
        let each = |part: &str| {
            assert!(part.len() <= PART);
            text.push_str(part);
            parts += 1;
        };
        tokenizer.decoder().decode(268, each).unwrap();
        assert_eq!((text, parts), ("€".repeat(48), 5));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 4_000 }))]

        /// Includes split characters, overlong forms, surrogates and invalid bytes.
        #[test]
        fn text_is_as_the_standard_library_has_it(
            tokens in proptest::collection::vec(
                prop_oneof![
                    0u32..264,
                    256u32..264,
                    prop::sample::select(vec![
                        0x41u32, 0x80, 0x8f, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf, 0xe0, 0xed, 0xef,
                        0xf0, 0xf4, 0xf5, 0xff,
                    ]),
                ],
                0..40,
            ),
        ) {
            let (text, bytes) = decode(&tokens);
            prop_assert_eq!(text, Text::from_utf8_lossy(&bytes));
        }

        /// Any text, split into bytes.
        #[test]
        fn every_split_of_a_text_gives_it_back(text in ".{0,20}") {
            let tokens: std::vec::Vec<u32> = text.bytes().map(u32::from).collect();
            prop_assert_eq!(decode(&tokens).0, text);
        }
    }
}
