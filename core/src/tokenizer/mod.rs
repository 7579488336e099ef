//! Byte-level byte-pair encoding from tables in the blob.
//!
//! A tokenizer section is 256 `u16` (the token of each byte) followed by two `u16` tokens per merge
//! in order of rank; merge i makes token 256 + i. A merge refers only to earlier tokens, so one
//! pass over the merges in order, each applied from left to right, gives the result of the usual
//! priority queue without extra memory.
//!
//! Pre-tokenization splits the text into pieces that no token crosses: a run of non-space bytes
//! with the one space (0x20) directly before it, or the rest of a run of white space. White space
//! is the bytes 0x20, 0x09, 0x0a and 0x0d.

mod decoder;

use heapless::Vec;

use crate::blob::{Limits, pair_u16};
use crate::error::Error;
pub use decoder::Decoder;

const BYTE_TABLE: usize = 512;
/// Limit on the bytes of a token. A merge can double the length, so without a limit the text of a
/// token could be exponentially long in the size of the table.
pub const MAX_TOKEN_BYTES: usize = 256;
/// Limit on the total bytes of all tokens, which bounds the time of validation. It is twice that of
/// 2^16 tokens of eight bytes.
pub const MAX_TEXT_BYTES: u32 = 1 << 20;

/// A tokenizer, read in place from a blob.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'a> {
    byte_tokens: &'a [u8],
    merges: &'a [u8],
}

impl<'a> Tokenizer<'a> {
    /// Validates a section: every token must be below `vocab`, every merge must refer to earlier
    /// tokens and make a token of at most [`MAX_TOKEN_BYTES`] bytes, and all tokens must total at
    /// most [`MAX_TEXT_BYTES`]. Takes time linear in the section and the tokens' bytes.
    ///
    /// # Errors
    ///
    /// [`Error::TokenizerText`] for too many bytes in total, otherwise
    /// [`Error::TokenizerSection`].
    pub fn from_bytes(bytes: &'a [u8], vocab: u32) -> Result<Self, Error> {
        if bytes.len() < BYTE_TABLE || !(bytes.len() - BYTE_TABLE).is_multiple_of(4) {
            return Err(Error::TokenizerSection);
        }
        let (byte_tokens, merges) = bytes.split_at(BYTE_TABLE);
        let count = merges.len() / 4;
        let mut seen = [false; 256];
        for byte in 0..256 {
            let token = pair_u16(byte_tokens, byte) as usize;
            if token >= 256 || core::mem::replace(&mut seen[token], true) {
                return Err(Error::TokenizerSection);
            }
        }
        let ordered = (0..count).all(|i| {
            let (left, right) = pair(merges, i);
            (left.max(right) as usize) < 256 + i
        });
        let known = vocab.min(Limits::VOCAB) as usize;
        if !ordered || 256 + count > known {
            return Err(Error::TokenizerSection);
        }
        let tokenizer = Self { byte_tokens, merges };
        let mut left = MAX_TEXT_BYTES - 256;
        for token in 256..256 + count {
            let mut len = 0;
            tokenizer.walk(token as u32, |_| len += 1)?;
            let limit = MAX_TEXT_BYTES;
            left = left.checked_sub(len).ok_or(Error::TokenizerText { limit })?;
        }
        Ok(tokenizer)
    }

    /// The two tokens that each merge joins, in order of rank; merge i makes token 256 + i.
    pub fn merges(&self) -> impl Iterator<Item = (u32, u32)> + 'a {
        let merges = self.merges;
        (0..merges.len() / 4).map(move |index| pair(merges, index))
    }

    /// Encodes `text` into `tokens` and returns the number of tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] if `tokens` is shorter than `text`: encoding starts with a token per byte.
    pub fn encode(&self, text: &[u8], tokens: &mut [u32]) -> Result<usize, Error> {
        if tokens.len() < text.len() {
            return Err(Error::Buffer { needed: text.len(), given: tokens.len() });
        }
        let mut total = 0;
        for piece in (Pieces { rest: text }) {
            let room = &mut tokens[total..][..piece.len()];
            for (token, &byte) in room.iter_mut().zip(piece) {
                *token = self.byte_token(byte);
            }
            total += self.merge(room);
        }
        Ok(total)
    }

    /// A streaming decoder, which returns whole characters.
    pub fn decoder(&self) -> Decoder<'a> {
        Decoder::new(*self)
    }

    /// Encodes `text` into a vector.
    #[cfg(feature = "alloc")]
    pub fn encode_vec(&self, text: &[u8]) -> alloc::vec::Vec<u32> {
        let mut tokens = alloc::vec![0; text.len()];
        // Cannot fail: the buffer has a token per byte.
        let count = self.encode(text, &mut tokens).unwrap_or(0);
        tokens.truncate(count);
        tokens
    }

    /// Calls `each` with the bytes of `token`, at most [`MAX_TOKEN_BYTES`]. They may split a
    /// character; [`Tokenizer::decoder`] returns whole ones.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] for a token without text, inside or outside of the vocabulary.
    pub fn decode(&self, token: u32, mut each: impl FnMut(u8)) -> Result<(), Error> {
        let known = 256 + self.merges.len() / 4;
        if token as usize >= known {
            return Err(Error::Token { token, vocab: known as u32 });
        }
        self.walk(token, |first| {
            let byte = (0..=255u8).find(|&byte| self.byte_token(byte) == first);
            each(byte.unwrap_or(0));
        })
    }

    /// The token of a byte.
    pub(crate) fn byte_token(&self, byte: u8) -> u32 {
        pair_u16(self.byte_tokens, byte as usize) as u32
    }

    /// The byte token that `token` begins with; `None` for a token without text.
    pub(crate) fn first(&self, mut token: u32) -> Option<u32> {
        if token as usize >= 256 + self.merges.len() / 4 {
            return None;
        }
        while token >= 256 {
            token = pair(self.merges, token as usize - 256).0;
        }
        Some(token)
    }

    /// Calls `each` with the byte tokens of `token`, from left to right. Fails for a token of more
    /// than [`MAX_TOKEN_BYTES`], after at most that many calls.
    fn walk(&self, mut token: u32, mut each: impl FnMut(u32)) -> Result<(), Error> {
        // Every pending token is at least a byte, so the capacity suffices for allowed tokens.
        let mut pending: Vec<u16, MAX_TOKEN_BYTES> = Vec::new();
        for _ in 0..MAX_TOKEN_BYTES {
            while token >= 256 {
                let (left, right) = pair(self.merges, token as usize - 256);
                pending.push(right as u16).map_err(|_| Error::TokenizerSection)?;
                token = left;
            }
            each(token);
            match pending.pop() {
                Some(next) => token = next as u32,
                None => return Ok(()),
            }
        }
        Err(Error::TokenizerSection)
    }

    /// Applies every merge in order of rank; returns how many tokens remain at the front.
    fn merge(&self, tokens: &mut [u32]) -> usize {
        let mut count = tokens.len();
        for rank in 0..self.merges.len() / 4 {
            if count < 2 {
                break;
            }
            let (left, right) = pair(self.merges, rank);
            let (mut read, mut write) = (0, 0);
            while read < count {
                let joined = tokens[read] == left && read + 1 < count && tokens[read + 1] == right;
                tokens[write] = if joined { 256 + rank as u32 } else { tokens[read] };
                read += if joined { 2 } else { 1 };
                write += 1;
            }
            count = write;
        }
        count
    }
}

/// White space, which separates words.
pub(crate) fn is_space(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn pair(merges: &[u8], index: usize) -> (u32, u32) {
    (pair_u16(merges, 2 * index) as u32, pair_u16(merges, 2 * index + 1) as u32)
}

/// Iterator over the pieces of a text that no token crosses.
struct Pieces<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let first = self.rest.first()?;
        let word_after_space = *first == b' ' && self.rest.get(1).is_some_and(|b| !is_space(b));
        let len = if is_space(first) && !word_after_space {
            let run = self.rest.iter().take_while(|b| is_space(b)).count();
            // A space directly before a word belongs to the word.
            run - (run < self.rest.len() && self.rest[run - 1] == b' ') as usize
        } else {
            1 + self.rest[1..].iter().take_while(|b| !is_space(b)).count()
        };
        let (piece, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;

    /// Identity byte table and two merges: "ab" and "abc".
    fn section() -> std::vec::Vec<u8> {
        let mut bytes: std::vec::Vec<u8> = (0..256u16).flat_map(u16::to_le_bytes).collect();
        for token in [b'a' as u16, b'b' as u16, 256, b'c' as u16] {
            bytes.extend(token.to_le_bytes());
        }
        bytes
    }

    fn encode(text: &str) -> std::vec::Vec<u32> {
        let section = section();
        let tokenizer = Tokenizer::from_bytes(&section, 300).unwrap();
        let mut tokens = std::vec![0; text.len()];
        let count = tokenizer.encode(text.as_bytes(), &mut tokens).unwrap();
        tokens.truncate(count);
        tokens
    }

    #[test]
    fn merges_apply_in_order_of_rank() {
        assert_eq!(encode("abcab"), [257, 256]);
        assert_eq!(encode("ab c"), [256, b' ' as u32, b'c' as u32]);
    }

    #[test]
    fn pieces_keep_one_space_before_a_word() {
        let pieces: std::vec::Vec<_> = Pieces { rest: b"a  b c\n d\te \t " }.collect();
        let expected: [&[u8]; 8] = [b"a", b" ", b" b", b" c", b"\n", b" d", b"\t", b"e"];
        assert_eq!(pieces[..8], expected);
        assert_eq!(pieces[8], b" \t ");
    }

    #[test]
    fn malformed_sections_are_refused() {
        let good = section();
        let refused = |bytes: &[u8]| Tokenizer::from_bytes(bytes, 300).unwrap_err();
        assert_eq!(refused(&good[..510]), Error::TokenizerSection);
        assert_eq!(refused(&good[..514]), Error::TokenizerSection);
        let mut forward = good.clone();
        forward[512] = 0xff;
        forward[513] = 0xff;
        assert_eq!(refused(&forward), Error::TokenizerSection);
        let mut twice = good.clone();
        twice[0] = 1;
        assert_eq!(refused(&twice), Error::TokenizerSection);
        assert_eq!(Tokenizer::from_bytes(&good, 257).unwrap_err(), Error::TokenizerSection);
    }

    /// A section whose merges each add a byte to the longest token, or double it.
    fn growing(merges: u16, doubling: bool) -> std::vec::Vec<u8> {
        let mut bytes: std::vec::Vec<u8> = (0..256u16).flat_map(u16::to_le_bytes).collect();
        for i in 0..merges {
            let longest = if i == 0 { b'a' as u16 } else { 255 + i };
            bytes.extend(longest.to_le_bytes());
            bytes.extend(if doubling { longest } else { b'a' as u16 }.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn tokens_have_a_longest_length() {
        let known = |merges, doubling| {
            let section = growing(merges, doubling);
            Tokenizer::from_bytes(&section, 1 << 16).map(|tokenizer| {
                let mut len = 0;
                tokenizer
                    .decode(255 + merges as u32, |byte| len += (byte == b'a') as usize)
                    .unwrap();
                len
            })
        };
        assert_eq!(known(255, false), Ok(MAX_TOKEN_BYTES));
        assert_eq!(known(256, false), Err(Error::TokenizerSection));
        assert_eq!(known(8, true), Ok(MAX_TOKEN_BYTES));
        assert_eq!(known(9, true), Err(Error::TokenizerSection));
        assert_eq!(known(4000, true), Err(Error::TokenizerSection));
    }

    /// As many tokens of 256 bytes as the limit allows, and one more.
    #[test]
    fn all_tokens_together_have_a_longest_text() {
        let mut section = growing(8, true);
        let longest = (MAX_TOKEN_BYTES as u32, 263 - 1);
        let before: u32 = 256 + (1..=8).map(|i| 1 << i).sum::<u32>();
        let (mut bytes, mut count) = (before, 8);
        while bytes + longest.0 <= MAX_TEXT_BYTES {
            section.extend([longest.1 as u16; 2].iter().flat_map(|token| token.to_le_bytes()));
            (bytes, count) = (bytes + longest.0, count + 1);
        }
        assert!(Tokenizer::from_bytes(&section, 1 << 16).is_ok());
        assert!(count > 4000, "{count}");
        section.extend([longest.1 as u16; 2].iter().flat_map(|token| token.to_le_bytes()));
        let refused = Tokenizer::from_bytes(&section, 1 << 16).unwrap_err();
        assert_eq!(refused, Error::TokenizerText { limit: MAX_TEXT_BYTES });
    }

    #[test]
    fn tokens_fit_sixteen_bits() {
        let mut section = section();
        section.resize(BYTE_TABLE + 4 * 65_280, 0);
        assert!(Tokenizer::from_bytes(&section, u32::MAX).is_ok());
        section.resize(BYTE_TABLE + 4 * 65_281, 0);
        assert_eq!(Tokenizer::from_bytes(&section, u32::MAX).unwrap_err(), Error::TokenizerSection);
    }

    #[test]
    fn unknown_tokens_and_short_buffers_are_refused() {
        let section = section();
        let tokenizer = Tokenizer::from_bytes(&section, 300).unwrap();
        let error = tokenizer.decode(258, |_| ()).unwrap_err();
        assert_eq!(error, Error::Token { token: 258, vocab: 258 });
        assert!(tokenizer.decode(u32::MAX, |_| ()).is_err());
        let error = tokenizer.encode(b"abc", &mut [0; 2]).unwrap_err();
        assert_eq!(error, Error::Buffer { needed: 3, given: 2 });
        assert_eq!(tokenizer.encode(b"", &mut []), Ok(0));
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in ".{0,60}|[abc \n]{0,60}") {
            let section = section();
            let tokenizer = Tokenizer::from_bytes(&section, 300).unwrap();
            let mut bytes = std::vec::Vec::new();
            for token in encode(&text) {
                tokenizer.decode(token, |b| bytes.push(b)).unwrap();
            }
            prop_assert_eq!(String::from_utf8(bytes).unwrap(), text);
        }
    }
}
