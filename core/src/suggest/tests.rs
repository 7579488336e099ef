use std::collections::BTreeMap;
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::model::Model;
use crate::numeric::shares::Shares;

static MODEL: &[u8] = crate::include_blob!("../../tests/golden/v3/half-mixed.rbk");

/// Shares of every token after some tokens, in units of 2^−24.
fn shares(model: &Model<'_>, tokens: &[u32]) -> Vec<u32> {
    let mut context = Context::new(Session::allocate(model.clone()).unwrap());
    tokens.iter().for_each(|&token| context.push(token).unwrap());
    Shares::new(context.logits().unwrap()).sizes().collect()
}

fn bytes(tokenizer: &Tokenizer<'_>, tokens: &[u32]) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for &token in tokens {
        tokenizer.decode(token, |byte| bytes.push(byte)).ok()?;
    }
    Some(bytes)
}

fn suggest(text: &str, unit: Unit, steps: usize, count: usize) -> Vec<(Vec<u8>, f64)> {
    let session = Session::allocate(Model::from_bytes(MODEL).unwrap()).unwrap();
    let (mut tokens, mut state) = ([0; 256], [0; 4096]);
    let mut suggester = Suggester::new(session, &mut tokens, &mut state).unwrap();
    let mut out = vec![Suggestion::NONE; count];
    let found = suggester.suggest(text.as_bytes(), unit, steps, &mut out).unwrap();
    out[..found].iter().map(|s| (s.text().to_vec(), f64::from(s.probability()))).collect()
}

/// Every word of at most two tokens after a text, with its probability given what is typed.
fn words(text: &str) -> Vec<(Vec<u8>, f64)> {
    let model = Model::from_bytes(MODEL).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let (before, typed) = text.as_bytes().split_at(last_word(text.as_bytes()));
    let before = tokenizer.encode_vec(before).unwrap();
    let known = 256 + tokenizer.merges().count() as u32;
    let (mut words, mut total) = (BTreeMap::<Vec<u8>, f64>::new(), 0.0);
    let first = shares(&model, &before);
    let mut visit = |tokens: &[u32], share: f64| {
        let text = bytes(&tokenizer, tokens).unwrap();
        let space = |&token: &u32| is_space(&bytes(&tokenizer, &[token]).unwrap()[0]);
        let word = text.strip_prefix(b" ").unwrap_or(&text);
        if !word.is_empty() && !word.iter().any(is_space) && text.starts_with(typed) {
            let next = shares(&model, &[&before[..], tokens].concat());
            let ends: u32 = (0..known).filter(space).map(|token| next[token as usize]).sum();
            *words.entry(text).or_default() += share * f64::from(ends) / 16_777_216.0;
        }
    };
    for a in 0..known {
        let share = f64::from(first[a as usize]) / 16_777_216.0;
        let text = bytes(&tokenizer, &[a]).unwrap();
        if text.starts_with(typed) {
            total += share;
            visit(&[a], share);
        } else if !typed.starts_with(&text) {
            continue;
        }
        let second = shares(&model, &[&before[..], &[a]].concat());
        for b in 0..known {
            let share = share * f64::from(second[b as usize]) / 16_777_216.0;
            if !text.starts_with(typed) && bytes(&tokenizer, &[a, b]).unwrap().starts_with(typed) {
                total += share;
            }
            visit(&[a, b], share);
        }
    }
    let total = if typed.is_empty() { 1.0 } else { total };
    let mut words: Vec<_> = words.into_iter().map(|(word, share)| (word, share / total)).collect();
    words.sort_by(|a, b| b.1.total_cmp(&a.1));
    words
}

/// With steps enough, no word is likelier than those that are suggested, and their probabilities
/// are those of the model.
#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn the_likeliest_words_are_found() {
    for text in ["The c", "a", "the "] {
        let all = words(text);
        let found = suggest(text, Unit::Word, 400, 3);
        assert_eq!(found.len(), 3);
        for ((word, probability), (_, other)) in found.iter().zip(&all) {
            let own = all.iter().find(|(other, _)| other == word);
            // A word of more tokens is not in the table, but must be likelier than its place there.
            let exact = own.map_or(*probability, |own| own.1);
            assert!((probability - exact).abs() < 0.02 * exact + 1e-6, "{probability} {exact}");
            assert!(*probability > 0.98 * other, "{text}: {probability} {other}");
        }
    }
}

#[test]
fn the_likeliest_tokens_are_found() {
    let model = Model::from_bytes(MODEL).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let shares = shares(&model, &tokenizer.encode_vec(b"The\n").unwrap());
    let mut order: Vec<u32> = (0..256 + tokenizer.merges().count() as u32).collect();
    order.sort_by_key(|&token| std::cmp::Reverse(shares[token as usize]));
    let found = suggest("The\n", Unit::Token, 1, 5);
    assert_eq!(found.len(), 5);
    for ((text, probability), token) in found.into_iter().zip(order) {
        assert_eq!(text, bytes(&tokenizer, &[token]).unwrap());
        assert_eq!(probability, f64::from(shares[token as usize]) / 16_777_216.0);
    }
}

#[test]
fn suggestions_begin_with_what_is_typed() {
    for (text, typed) in [("", ""), ("The ca", " ca"), ("ca", "ca"), ("a  ", " "), ("a\t", "")] {
        for unit in [Unit::Word, Unit::Token] {
            let found = suggest(text, unit, 60, 4);
            assert!(!found.is_empty(), "{text:?}");
            assert!(found.is_sorted_by(|a, b| a.1 >= b.1));
            for (word, probability) in &found {
                assert!(word.starts_with(typed.as_bytes()), "{text:?}");
                assert!((0.0..=1.0).contains(probability), "{probability}");
                let inner = word.strip_prefix(b" ").unwrap_or(word);
                assert!(unit == Unit::Token || !inner.iter().any(is_space), "{inner:?}");
            }
        }
    }
}

/// A text that is typed letter by letter gets the suggestions that it gets at once.
#[test]
#[cfg_attr(miri, ignore = "too slow")]
fn typing_on_changes_nothing() {
    let session = Session::allocate(Model::from_bytes(MODEL).unwrap()).unwrap();
    let (mut tokens, mut state) = ([0; 256], [0; 4096]);
    let mut suggester = Suggester::new(session, &mut tokens, &mut state).unwrap();
    let mut ask = |text: &str| {
        let mut out = vec![Suggestion::NONE; 3];
        let found = suggester.suggest(text.as_bytes(), Unit::Word, 20, &mut out).unwrap();
        out.truncate(found);
        out.iter().map(|s| (s.text().to_vec(), f64::from(s.probability()))).collect::<Vec<_>>()
    };
    let text = "A castle in the air";
    for end in 0..=text.len() {
        assert_eq!(ask(&text[..end]), suggest(&text[..end], Unit::Word, 20, 3), "{end}");
    }
    for other in ["A castle", "", "Another castle", "A"] {
        assert_eq!(ask(other), suggest(other, Unit::Word, 20, 3), "{other}");
    }
}

#[test]
fn limits_are_kept() {
    let model = Model::from_bytes(MODEL).unwrap();
    let (mut tokens, mut state) = ([0; 8], [0; 4096]);
    let needed = 4 + model.dims().snapshot_len();
    let session = || Session::allocate(model.clone()).unwrap();
    let error = Suggester::new(session(), &mut tokens, &mut state[..7]).unwrap_err();
    assert_eq!(error, Error::Buffer { needed, given: 7 });
    let mut suggester = Suggester::new(session(), &mut tokens, &mut state).unwrap();
    let mut out = [Suggestion::NONE; 2];
    assert_eq!(suggester.suggest(b"abc ", Unit::Word, 0, &mut out), Ok(0));
    assert_eq!(suggester.suggest(b"abc ", Unit::Word, 10, &mut []), Ok(0));
    let error = suggester.suggest(b"abc de ", Unit::Word, 1, &mut out).unwrap_err();
    assert_eq!(error, Error::Buffer { needed: 12, given: 8 });
    // Nothing is suggested for more than a suggestion can hold.
    let long = String::from("x").repeat(100);
    assert_eq!(suggester.suggest(long.as_bytes(), Unit::Word, 300, &mut out), Ok(0));
    assert!(suggester.suggest(b"abc ", Unit::Word, 10, &mut out).unwrap() > 0);
}
