//! Tokenizers of other programs: those of `tests/fixtures/tokenizers`, and GPT-2's rules on a
//! device.

use resnet_bk_core::tokenizer::Rule;
use serde_json::json;

use super::*;
use crate::corpus::{Corpus, Split};
use crate::error::Error;

fn fixtures() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizers")
}

fn fixture(name: &str) -> Tokenizer {
    Tokenizer::load(&fixtures().join(name).with_extension("json")).unwrap()
}

fn fixture_file(name: &str) -> Value {
    let path = fixtures().join(name).with_extension("json");
    serde_json::from_slice(&files::read(&path).unwrap()).unwrap()
}

fn fixture_text() -> String {
    files::read_text(&fixtures().join("text.txt")).unwrap()
}

/// A section that a device reads, as long as the test does.
fn device(tokenizer: &Tokenizer) -> Vec<u8> {
    let section = tokenizer.section().unwrap();
    core::Tokenizer::from_bytes(&section, tokenizer.vocab() as u32).unwrap();
    section
}

fn decoded(section: &[u8], vocab: usize, tokens: &[u32]) -> Vec<u8> {
    let device = core::Tokenizer::from_bytes(section, vocab as u32).unwrap();
    let mut bytes = Vec::new();
    for &token in tokens {
        device.decode(token, |byte| bytes.push(byte)).unwrap();
    }
    bytes
}

/// Rust and Python, and all bytes of the text counted, whatever a normalizer does.
#[test]
fn every_kind_encodes_and_decodes_as_its_library_in_python() {
    let expected: Value =
        serde_json::from_slice(&files::read(&fixtures().join("expected.json")).unwrap()).unwrap();
    let text = fixture_text();
    assert_eq!(expected.as_object().unwrap().len(), 6);
    for (name, expected) in expected.as_object().unwrap() {
        let tokenizer = fixture(name);
        let Encoded { tokens, bytes } = tokenizer.encode_with_bytes(&text).unwrap();
        assert_eq!(json!(tokens), expected["tokens"], "{name}");
        assert_eq!(bytes.len(), tokens.len());
        let total: u32 = bytes.iter().sum();
        assert_eq!(total as usize, text.len(), "{name}");
        let shown = String::from_utf8(tokenizer.decode(&tokens).unwrap()).unwrap();
        let wanted = expected["text"].as_str().unwrap();
        // What is taken off the beginning of a text belongs there where a text goes on.
        let shown = match name.as_str() {
            "llama" | "unigram" => shown.strip_prefix(' ').unwrap(),
            _ => &shown,
        };
        assert_eq!(shown, wanted, "{name}");
        // The file comes back.
        let again = Tokenizer::from_bytes(&tokenizer.to_bytes(), Path::new("x")).unwrap();
        assert_eq!(again.sha256(), tokenizer.sha256(), "{name}");
        assert!(again.is_same(&tokenizer) && !again.is_same(&TOKENIZER));
    }
}

#[test]
fn a_device_encodes_decodes_or_has_nothing() {
    let text = fixture_text();
    for name in ["gpt2", "neox"] {
        let tokenizer = fixture(name);
        assert_eq!(tokenizer.only_decodes(), None, "{name}");
        let (section, tokens) = (device(&tokenizer), tokenizer.encode(&text).unwrap());
        let blob = core::Tokenizer::from_bytes(&section, tokenizer.vocab() as u32).unwrap();
        assert_eq!(blob.encode_vec(text.as_bytes()).unwrap(), tokens, "{name}");
        assert_eq!(decoded(&section, tokenizer.vocab(), &tokens), text.as_bytes(), "{name}");
        // From the blob comes a tokenizer that does the same, to the last byte of its section.
        let back = Tokenizer::from_blob(&blob).unwrap();
        assert!(back.is_same(&tokenizer), "{name}");
        assert_eq!(back.section().unwrap(), section, "{name}");
        assert_eq!(back.encode(&text).unwrap(), tokens, "{name}");
    }
    for (name, reason) in
        [("llama", "normalizer"), ("unigram", "Unigram"), ("characters", "pre_tokenizer")]
    {
        let tokenizer = fixture(name);
        let why = tokenizer.only_decodes().unwrap();
        assert!(why.contains(reason), "{name}: {why}");
        let (section, tokens) = (device(&tokenizer), tokenizer.encode(&text).unwrap());
        let shown = decoded(&section, tokenizer.vocab(), &tokens);
        assert_eq!(shown, tokenizer.decode(&tokens).unwrap(), "{name}");
        let blob = core::Tokenizer::from_bytes(&section, tokenizer.vocab() as u32).unwrap();
        assert_eq!(blob.encode_vec(b"x"), Err(core::Error::NoEncoder));
        assert!(matches!(Tokenizer::from_blob(&blob), Err(Error::Blob(core::Error::NoEncoder))));
    }
    let Err(Error::TokenizerOnDevice(reason)) = fixture("wordpiece").section() else {
        panic!("a device holds WordPiece")
    };
    assert!(reason.contains("`decoder` WordPiece"), "{reason}");
}

#[test]
fn a_vocabulary_may_be_padded_but_not_cut() {
    let tokenizer = fixture("gpt2");
    for (vocab, fits) in [(399, false), (400, true), (512, true)] {
        assert_eq!(tokenizer.belongs_to("it", "model", vocab, None).is_ok(), fits, "{vocab}");
    }
    assert!(tokenizer.belongs_to("it", "model", 400, Some("another")).is_err());
    assert!(TOKENIZER.belongs_to("it", "model", 271, None).is_err());
}

/// Files that a device could not follow, by what differs.
#[test]
fn what_a_device_does_not_do_is_told_by_its_name() {
    let added = |flag: &str| {
        json!({
            "id": 0, "content": "<|endoftext|>", "single_word": flag == "single_word",
            "lstrip": flag == "lstrip", "rstrip": false, "normalized": false, "special": true
        })
    };
    let digits = json!({"type": "Digits", "individual_digits": true});
    for (pointer, value, name) in [
        ("/normalizer", json!({"type": "NFC"}), "normalizer"),
        ("/pre_tokenizer", digits, "pre_tokenizer"),
        ("/pre_tokenizer/add_prefix_space", json!(true), "pre_tokenizer"),
        ("/pre_tokenizer/use_regex", json!(false), "pre_tokenizer"),
        ("/decoder", json!({"type": "Fuse"}), "decoder"),
        ("/model/ignore_merges", json!(true), "model.ignore_merges"),
        ("/model/end_of_word_suffix", json!("</w>"), "model.end_of_word_suffix"),
        ("/model/merges/3", json!(null), "joins what no merge before it makes"),
        ("/added_tokens/0", added("lstrip"), "looks at what stands around it"),
        ("/added_tokens/0", added("single_word"), "looks at what stands around it"),
    ] {
        let mut file = fixture_file("gpt2");
        if pointer == "/model/merges/3" {
            // The library forgets one of two that are alike, and with it what made a later token.
            let first = file["model"]["merges"][0].clone();
            put(&mut file, pointer, first);
        } else {
            put(&mut file, pointer, value);
        }
        let tokenizer = Tokenizer::from_bytes(file.to_string().as_bytes(), Path::new("x"));
        let tokenizer = tokenizer.unwrap_or_else(|error| panic!("{pointer}: {error}"));
        let why = tokenizer.only_decodes().unwrap_or_default();
        assert!(why.contains(name), "{pointer}: {why:?}");
        device(&tokenizer);
    }
}

/// The tokenizer of the fixture with its tokens in another order, or some of its texts added.
fn varied(order: u32, split: bool, added: &[&str]) -> Value {
    let mut file = fixture_file("gpt2");
    let vocab = file["model"]["vocab"].as_object_mut().unwrap();
    let count = vocab.len() as u32;
    for token in vocab.values_mut() {
        *token = json!((token.as_u64().unwrap() as u32 * order) % count);
    }
    file["added_tokens"] = json!([]);
    for (i, content) in added.iter().enumerate() {
        let token = json!({
            "id": count as usize + i, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": i % 2 == 1, "special": i % 2 == 0
        });
        file["added_tokens"].as_array_mut().unwrap().push(token);
    }
    if split {
        let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
        let byte_level = file["pre_tokenizer"].clone();
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": gpt2}, "behavior": "Isolated", "invert": false},
            byte_level,
        ]});
        put(&mut file, "/pre_tokenizer/pretokenizers/1/use_regex", json!(false));
    }
    file
}

/// Text of many scripts, with what the rule looks at more often than in nature.
fn mixed() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[a-z]{1,6}|[A-Z][a-z]{0,4}",
        3 => " {1,3}|\n{1,2}|[\t\r\u{a0}\u{2003}\u{3000}\u{85}]",
        2 => "'(s|t|re|ve|m|ll|d|r|x|S)?",
        2 => "[0-9]{1,4}|[½Ⅷ٣²]",
        2 => "[!-/:-@\\[-`{-~]{1,3}",
        2 => "[éßΩжא漢가ह😀\u{301}\u{200b}]{1,4}",
        1 => "<\\|end\\|>|<\\|end|  \\|>",
        1 => "\\PC{1,3}",
    ];
    proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

proptest! {
    /// Bit for bit, whatever the tokens' order and whatever texts are added.
    #[test]
    fn a_device_encodes_gpt2_as_the_library(
        order in proptest::sample::select(vec![1u32, 7, 399]),
        split: bool,
        added in proptest::sample::subsequence(vec!["<|end|>", "  ", "<|end", "\n\n", "the", "'s"], 0..5),
        text in mixed(),
    ) {
        let file = varied(order, split, &added).to_string();
        let tokenizer = Tokenizer::from_bytes(file.as_bytes(), Path::new("x")).unwrap();
        prop_assert_eq!(tokenizer.only_decodes(), None);
        let library = tokenizers::Tokenizer::from_bytes(file.as_bytes()).unwrap();
        let by_library = library.encode_fast(text.as_str(), false).unwrap();
        let host = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(&host, by_library.get_ids());
        let section = device(&tokenizer);
        let blob = core::Tokenizer::from_bytes(&section, tokenizer.vocab() as u32).unwrap();
        prop_assert_eq!(blob.rule(), Some(Rule::Gpt2));
        prop_assert_eq!(&blob.encode_vec(text.as_bytes()).unwrap(), &host);
        prop_assert_eq!(decoded(&section, tokenizer.vocab(), &host), text.as_bytes());
        let back = Tokenizer::from_blob(&blob).unwrap();
        prop_assert_eq!(back.section().unwrap(), section);
        prop_assert_eq!(back.encode(&text).unwrap(), host);
    }

    /// However a long text is cut.
    #[test]
    fn chunks_are_encoded_as_the_whole(
        text in mixed(),
        size in 1usize..20,
        added in proptest::sample::subsequence(vec!["<|end|>", "  ", "\n\n", "the", "'s"], 0..4),
    ) {
        let file = varied(1, false, &added).to_string();
        let tokenizer = Tokenizer::from_bytes(file.as_bytes(), Path::new("x")).unwrap();
        let Stored::ByteLevel(byte_level) = &tokenizer.stored else { panic!("other rules") };
        let chunks = byte_level.chunks(&text, size);
        prop_assert_eq!(chunks.concat(), text.as_str());
        let whole = tokenizer.inner.encode_fast(text.as_str(), false).unwrap();
        let mut parts: Vec<u32> = Vec::new();
        for chunk in chunks {
            parts.extend(tokenizer.inner.encode_fast(chunk, false).unwrap().get_ids());
        }
        prop_assert_eq!(parts, whole.get_ids());
    }
}

/// Encodes a text on both sides, and after it `bytes` of pseudorandom text of many scripts.
fn compare(name: &str, mut text: String, bytes: usize) {
    let (mut runner, strategy) = (proptest::test_runner::TestRunner::deterministic(), mixed());
    let bytes = text.len() + bytes;
    while text.len() < bytes {
        use proptest::strategy::ValueTree;
        text.push_str(&strategy.new_tree(&mut runner).unwrap().current());
    }
    let tokenizer = fixture(name);
    let section = device(&tokenizer);
    let blob = core::Tokenizer::from_bytes(&section, tokenizer.vocab() as u32).unwrap();
    let host = tokenizer.encode(&text).unwrap();
    assert!(blob.encode_vec(text.as_bytes()).unwrap() == host, "{name}");
    assert!(decoded(&section, tokenizer.vocab(), &host) == text.as_bytes(), "{name}");
    let whole = tokenizer.inner.encode_fast(text.as_str(), false).unwrap();
    assert!(whole.get_ids() == host, "{name}: a chunk ends where it must not");
}

#[test]
fn a_long_text_is_the_same_on_a_device() {
    for name in ["gpt2", "neox"] {
        compare(name, fixture_text(), 300_000);
    }
}

/// Takes some minutes: `cargo test -p resnet-bk-tools --lib -- --ignored ten_megabytes`. With
/// `WIKITEXT2_DIR` also the training split there.
#[test]
#[ignore = "ten megabytes"]
fn ten_megabytes_are_the_same_on_a_device() {
    let corpus = Corpus::find(None).and_then(|corpus| corpus.text(Split::Train));
    let text = corpus.unwrap_or_else(|_| fixture_text());
    for name in ["gpt2", "neox"] {
        compare(name, text.clone(), 10_000_000);
    }
}
