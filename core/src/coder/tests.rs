//! The coder under made logits, where every message of a few tokens can be tried.

use half::f16;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;

use super::{Decoder, Encoder};
use crate::error::{Error, MessageProblem};
use crate::numeric::shares::Shares;

/// Logits of four tokens after some number of tokens.
type Table = [[f32; 4]];

fn logits(table: &Table, position: usize) -> [f16; 4] {
    table[position % table.len()].map(f16::from_f32)
}

fn encode(table: &Table, tokens: &[u32]) -> Vec<u8> {
    let mut out = std::vec![0xaa; 4 * tokens.len() + 8];
    let mut encoder = Encoder::new(&mut out);
    for (position, &token) in tokens.iter().enumerate() {
        encoder.put(&logits(table, position), token).unwrap();
    }
    let len = encoder.finish().unwrap();
    out.truncate(len);
    out
}

fn decode(table: &Table, bytes: &[u8], limit: usize) -> Result<Vec<u32>, Error> {
    let (mut decoder, mut tokens) = (Decoder::new(bytes), Vec::new());
    while !decoder.is_at_end()? {
        if tokens.len() == limit {
            return Err(Error::Buffer { needed: limit + 1, given: limit });
        }
        tokens.push(decoder.take(&logits(table, tokens.len()))?);
    }
    Ok(tokens)
}

/// Bits of the tokens' shares.
fn information(table: &Table, tokens: &[u32]) -> f64 {
    let bits = |(position, &token): (usize, &u32)| {
        24.0 - f64::from(Shares::new(&logits(table, position)).of(token).unwrap().size).log2()
    };
    tokens.iter().enumerate().map(bits).sum()
}

/// All sequences of at most `len` tokens.
fn sequences(len: usize) -> Vec<Vec<u32>> {
    let mut all: Vec<Vec<u32>> = std::vec![Vec::new()];
    let mut first = 0;
    for _ in 0..len {
        let last = all.len();
        for index in first..last {
            for token in 0..4 {
                all.push(all[index].iter().copied().chain([token]).collect());
            }
        }
        first = last;
    }
    all
}

const EVEN: &Table = &[[0.0; 4]];
/// A token of 99.99 %, one of 1e-4 and two that are hardly possible.
const CERTAIN: &Table = &[[9.2, 0.0, -9.0, -40.0]];
const MIXED: &Table = &[[3.0, 1.0, 0.0, -2.0], [0.0, 8.0, 0.0, 1.0], [0.0, 0.0, 0.1, 0.0]];

#[test]
fn every_message_has_a_code_of_its_own() {
    for table in [EVEN, CERTAIN, MIXED] {
        let mut codes = BTreeMap::new();
        for tokens in sequences(if cfg!(miri) { 2 } else { 7 }) {
            let code = encode(table, &tokens);
            assert_eq!(decode(table, &code, tokens.len()).as_ref(), Ok(&tokens));
            assert_eq!(codes.insert(code, tokens), None);
        }
        assert_eq!(codes[&Vec::new()], []);
    }
}

/// Short codes are not wasted: most strings of one byte, and of two, are messages.
#[test]
fn most_short_strings_are_messages() {
    for table in [EVEN, MIXED] {
        let used = |code: &[u8]| decode(table, code, 1_000).is_ok();
        let one = (0..=255u8).filter(|&byte| used(&[byte])).count();
        let two = (0..=u16::MAX).step_by(7).filter(|word| used(&word.to_be_bytes())).count();
        assert!(one >= 250, "{one} of 256");
        assert!(two >= 9_000, "{two} of 9,363");
    }
}

/// Bytes are whole and the end has to be known, but a message takes few bits more than its tokens.
/// Of those, three tell eight ends apart where the tokens themselves are certain.
#[test]
fn the_end_costs_less_than_a_byte() {
    for (table, bound) in [(EVEN, 4.0), (CERTAIN, 7.5), (MIXED, 5.0)] {
        let mut overhead = 0.0;
        for tokens in sequences(if cfg!(miri) { 2 } else { 7 }) {
            // As often as it occurs, if messages have an end after each token alike.
            let weight = (-information(table, &tokens)).exp2();
            let bits = (8 * encode(table, &tokens).len()) as f64 - information(table, &tokens);
            overhead += weight * bits / 8.0;
        }
        if !cfg!(miri) {
            assert!(overhead < bound, "{overhead} bits a message");
        }
    }
}

#[test]
fn refusals_are_errors() {
    let mut buffer = [0; 1];
    let mut encoder = Encoder::new(&mut buffer);
    let even = logits(EVEN, 0);
    assert_eq!(encoder.put(&even, 4), Err(Error::Token { token: 4, vocab: 4 }));
    let mut results = (0..9).map(|_| encoder.put(&even, 1));
    assert!(results.any(|result| matches!(result, Err(Error::Buffer { given: 1, .. }))));
    assert!(matches!(Encoder::new(&mut []).finish(), Ok(0)));
    // The first byte of a message that is stored is that of no code.
    let malformed = Err(Error::Message(MessageProblem::Malformed));
    assert_eq!(decode(EVEN, &[255], 9), malformed);
    // A decoder that is at the end stays there.
    let mut decoder = Decoder::new(&[]);
    assert_eq!(decoder.is_at_end(), Ok(true));
    assert!(decoder.take(&even).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 2_000 }))]

    #[test]
    fn decoding_undoes_encoding(
        table in prop::collection::vec(prop::array::uniform4(-12.0f32..12.0), 1..20),
        tokens in prop::collection::vec(0u32..4, 0..200),
    ) {
        let code = encode(&table, &tokens);
        prop_assert_eq!(decode(&table, &code, 200), Ok(tokens.clone()));
        let bits = information(&table, &tokens);
        prop_assert!(code.len() as f64 <= bits / 8.0 + 2.5, "{} bytes for {bits} bits", code.len());
    }

    /// Whatever is decoded is a message with this very code.
    #[test]
    fn any_bytes_end(
        table in prop::collection::vec(prop::array::uniform4(-12.0f32..12.0), 1..20),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        match decode(&table, &bytes, 5_000) {
            Ok(tokens) => prop_assert_eq!(encode(&table, &tokens), bytes),
            Err(Error::Buffer { .. } | Error::Message(MessageProblem::Malformed)) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
