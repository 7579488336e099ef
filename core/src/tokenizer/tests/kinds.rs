//! Sections with GPT-2's rule, and tables of bytes.

use std::string::String;
use std::vec::Vec;

use super::*;

/// Halves as bytes.
fn halves(halves: impl IntoIterator<Item = u16>) -> Vec<u8> {
    halves.into_iter().flat_map(u16::to_le_bytes).collect()
}

/// Numbers of bytes in reverse, merges "ab", "abc" and " a", and tokens as `ids` says.
fn gpt2(offset: u16, table: &[u16], literals: &[(u16, u8, &str)]) -> Vec<u8> {
    let of = |byte: u8| 255 - u16::from(byte);
    let merges = [of(b'a'), of(b'b'), 256, of(b'c'), of(b' '), of(b'a')];
    let mut bytes = halves([MARK, GPT2, 3, offset]);
    bytes.extend((table.len() as u32).to_le_bytes());
    bytes.extend(halves((0..256).map(|byte| 255 - byte).chain(merges)));
    bytes.extend(halves(table.iter().copied()));
    for &(token, stage, text) in literals {
        bytes.extend(halves([token]));
        bytes.extend([stage, text.len() as u8]);
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// Numbers of bytes and merges, from the highest token down.
fn reversed() -> Vec<u16> {
    let mut table: Vec<u16> = (0..259).rev().collect();
    // Two tokens without a number.
    table.insert(3, ids::NONE);
    table.push(ids::NONE);
    table
}

fn table(texts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = halves([MARK, TABLE]);
    bytes.extend((texts.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(texts.iter().map(|text| text.len() as u8));
    bytes.extend(texts.concat());
    bytes
}

fn decoded(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> String {
    let (mut text, mut decoder) = (String::new(), tokenizer.decoder());
    for &token in tokens {
        decoder.decode(token, |part| text.push_str(part)).unwrap();
    }
    decoder.finish(|part| text.push_str(part));
    text
}

const LITERALS: [(u16, u8, &str); 5] =
    [(0, 1, "<|end|>"), (1, 1, "<|end|>!"), (2, 2, "  "), (3, 2, "d|>"), (260, 0, "ab ")];

#[test]
fn tokens_stand_where_the_section_puts_them() {
    let byte = |byte: u8| 255 - u32::from(byte);
    let text = "abc ab ad\n";
    // "abc", " ", "ab", " a", "d", "\n"
    let numbers = [257, byte(b' '), 256, 258, byte(b'd'), byte(b'\n')];
    let shifted = gpt2(4, &[], &LITERALS);
    let shifted = Tokenizer::from_bytes(&shifted, 263).unwrap();
    let encoded = shifted.encode_vec(text.as_bytes()).unwrap();
    assert_eq!(encoded, numbers.map(|number| number + 4));
    assert_eq!(decoded(&shifted, &encoded), text);
    assert_eq!(shifted.rule(), Some(Rule::Gpt2));
    assert_eq!(shifted.tokens().last(), Some(Ok(262)));

    let table = reversed();
    let section = gpt2(ids::NONE, &table, &[(3, 0, "?")]);
    let listed = Tokenizer::from_bytes(&section, 261).unwrap();
    let encoded = listed.encode_vec(text.as_bytes()).unwrap();
    let place = |number: u32| table.iter().position(|&n| u32::from(n) == number).unwrap() as u32;
    assert_eq!(encoded, numbers.map(place));
    assert_eq!(decoded(&listed, &encoded), text);
    assert_eq!(decoded(&listed, &[3]), "?");
    // The last of the table stands for nothing.
    assert!(listed.decode(260, |_| ()).is_err() && listed.first(260).is_none());
    for tokenizer in [shifted, listed] {
        for token in tokenizer.tokens() {
            let (token, mut first) = (token.unwrap(), None);
            tokenizer.decode(token, |byte| first = first.or(Some(byte))).unwrap();
            assert_eq!(tokenizer.first(token), first.map(|byte| tokenizer.byte_token(byte)));
        }
    }
}

#[test]
fn literals_go_first_the_longest_of_the_first_stage_before_others() {
    let section = gpt2(4, &[], &LITERALS);
    let tokenizer = Tokenizer::from_bytes(&section, 263).unwrap();
    let byte = |byte: u8| 259 - u32::from(byte);
    for (text, tokens) in [
        ("<|end|><|end|>!<|end", &[0, 1, byte(b'<'), byte(b'|'), byte(b'e'), byte(b'n')][..]),
        ("d|>   \n", &[3, 2, byte(b' '), byte(b'\n')]),
        // Within a literal of the first stage there is none of the second.
        ("a<|end|>", &[byte(b'a'), 0]),
        // White space ends before a literal.
        ("a \n<|end|>", &[byte(b'a'), byte(b' '), byte(b'\n'), 0]),
        ("ab ", &[260, byte(b' ')]),
    ] {
        let found = tokenizer.encode_vec(text.as_bytes()).unwrap();
        let end = if text.ends_with("<|end") { found.len() - 1 } else { found.len() };
        assert_eq!(found[..end], *tokens, "{text:?}");
        assert_eq!(decoded(&tokenizer, &found), text);
    }
    assert_eq!(tokenizer.literals().count(), 5);
    assert_eq!(tokenizer.first(0), Some(tokenizer.byte_token(b'<')));
}

#[test]
fn a_table_decodes_and_says_that_it_does_not_encode() {
    let section = table(&[b"The", b"", b" ri", b"\xe2\x82", b"\xac"]);
    let tokenizer = Tokenizer::from_bytes(&section, 5).unwrap();
    assert_eq!(decoded(&tokenizer, &[0, 2, 3, 4, 3]), "The ri\u{20ac}\u{fffd}");
    for token in [1, 5, u32::MAX] {
        assert_eq!(tokenizer.decode(token, |_| ()), Err(Error::Token { token, vocab: 5 }));
    }
    assert_eq!(tokenizer.encode(b"The", &mut [0; 8]), Err(Error::NoEncoder));
    assert_eq!(tokenizer.encode_vec(b"The"), Err(Error::NoEncoder));
    assert_eq!(tokenizer.require_encoder(), Err(Error::NoEncoder));
    assert_eq!((tokenizer.rule(), tokenizer.merges().count()), (None, 0));
    assert_eq!(tokenizer.first(2), Some(tokenizer.byte_token(b' ')));
}

#[test]
fn what_is_malformed_is_refused() {
    let good = gpt2(4, &[], &LITERALS);
    let refused = |bytes: &[u8], vocab| {
        assert_eq!(Tokenizer::from_bytes(bytes, vocab).unwrap_err(), Error::TokenizerSection);
    };
    assert!(Tokenizer::from_bytes(&good, 263).is_ok());
    refused(&good, 262);
    for len in (0..good.len()).filter(|&len| {
        // Ends after a literal.
        let ends: Vec<usize> =
            (0..=LITERALS.len()).map(|n| gpt2(4, &[], &LITERALS[..n]).len()).collect();
        !ends.contains(&len)
    }) {
        refused(&good[..len], 263);
    }
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    // Another kind, a table that is not there, a byte twice, a merge of a later one.
    for (at, value) in [(2, 9), (8, 1), (6, 255), (12, 1), (12 + 512 + 1, 1)] {
        refused(&changed(at, value), 263);
    }
    refused(&gpt2(4, &[], &[(263, 1, "x")]), 263);
    refused(&gpt2(4, &[], &[(1, 3, "x")]), 263);
    refused(&gpt2(4, &[], &[(1, 1, "")]), 263);
    let mut twice = reversed();
    twice[0] = 257;
    // A number without a token is found when it is needed.
    let section = gpt2(ids::NONE, &twice, &[]);
    let tokenizer = Tokenizer::from_bytes(&section, 261).unwrap();
    assert_eq!(tokenizer.encode_vec(b" a"), Err(Error::TokenizerSection));
    refused(&gpt2(ids::NONE, &reversed()[1..], &[]), 261);
    refused(&gpt2(ids::NONE, &reversed(), &[]), 260);
    let mut high = reversed();
    high[0] = 259;
    refused(&gpt2(ids::NONE, &high, &[]), 261);

    let good = table(&[b"ab", b"c"]);
    assert!(Tokenizer::from_bytes(&good, 2).is_ok());
    refused(&good, 1);
    refused(&good[..good.len() - 1], 2);
    refused(&[&good[..], b"d"].concat(), 2);
    let long: Vec<&[u8]> = std::vec![&[0; 255]; 4200];
    let error = Tokenizer::from_bytes(&table(&long), 5000).unwrap_err();
    assert_eq!(error, Error::TokenizerText { limit: MAX_TEXT_BYTES });
}

proptest! {
    /// Any bytes, whatever the section says of them, come back.
    #[test]
    fn bytes_come_back(
        text in prop_oneof![
            "[abc <|end>!]{0,60}".prop_map(String::into_bytes),
            "\\PC{0,40}".prop_map(String::into_bytes),
            proptest::collection::vec(any::<u8>(), 0..60),
        ],
        listed: bool,
    ) {
        let section = match listed {
            true => gpt2(ids::NONE, &reversed(), &[(3, 1, "ab")]),
            false => gpt2(4, &[], &LITERALS),
        };
        let tokenizer = Tokenizer::from_bytes(&section, 300).unwrap();
        let mut bytes = Vec::new();
        for token in tokenizer.encode_vec(&text).unwrap() {
            tokenizer.decode(token, |byte| bytes.push(byte)).unwrap();
        }
        prop_assert_eq!(bytes, text);
    }

    /// No section makes it panic.
    #[test]
    fn arbitrary_sections_are_read_or_refused(
        at in proptest::collection::vec((0usize..700, any::<u8>()), 0..4),
        table in any::<bool>(),
        text in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut section = match table {
            true => super::kinds::table(&[b"a", b"bc", b""]),
            false => gpt2(ids::NONE, &reversed(), &LITERALS),
        };
        for (at, value) in at {
            let len = section.len();
            section[at % len] = value;
        }
        if let Ok(tokenizer) = Tokenizer::from_bytes(&section, 300) {
            for token in 0..310 {
                let _ = tokenizer.decode(token, |_| ());
                let _ = tokenizer.first(token);
            }
            let _ = tokenizer.encode_vec(&text);
        }
    }
}
