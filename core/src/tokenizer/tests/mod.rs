mod kinds;

use super::merges::BYTES;
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
            tokenizer.decode(255 + merges as u32, |byte| len += (byte == b'a') as usize).unwrap();
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
    section.resize(BYTES + 4 * 65_280, 0);
    assert!(Tokenizer::from_bytes(&section, u32::MAX).is_ok());
    section.resize(BYTES + 4 * 65_281, 0);
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
