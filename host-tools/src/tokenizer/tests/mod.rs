use std::path::Path;

use resnet_bk_core as core;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::encoded::Encoded;
use super::file::Parts;
use super::library::library;
use super::merge::Merge;
use super::stored::Stored;
use super::*;
use crate::files;
use proptest::prelude::*;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::LazyLock;

use foreign::{harmless, put, refused, said};

mod foreign;
mod kinds;

const TEXT: &str = "the cat sat on the mat , and the dog ate the rat .\n The end\n\n of  the\ttale";
static TOKENIZER: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::train(&[TEXT, TEXT], 270).unwrap());

/// What the tests read of a tokenizer that follows the module's rules.
trait Rules {
    fn tokens(&self) -> &[Vec<u8>];
    fn merges(&self) -> &[Merge];
}

impl Rules for Tokenizer {
    fn tokens(&self) -> &[Vec<u8>] {
        self.table().unwrap()
    }

    fn merges(&self) -> &[Merge] {
        match &self.stored {
            Stored::Own(parts) => &parts.merges,
            _ => panic!("a tokenizer with other rules"),
        }
    }
}

/// The module's rules applied to bytes, as on the device.
fn encode_by_the_rules(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let bytes = text.as_bytes();
    let begins = |i: usize| pieces::begins(bytes, i);
    let single = |byte: u8| tokenizer.tokens().iter().position(|t| t[..] == [byte]).unwrap();
    let (mut all, mut start) = (Vec::new(), 0);
    while start < bytes.len() {
        let end = (start + 1..bytes.len()).find(|&i| begins(i)).unwrap_or(bytes.len());
        let mut piece: Vec<u32> = bytes[start..end].iter().map(|&b| single(b) as u32).collect();
        'merging: loop {
            for merge in tokenizer.merges() {
                let pair = [merge.left, merge.right];
                if let Some(at) = piece.windows(2).position(|w| w == pair) {
                    piece.splice(at..at + 2, [merge.result]);
                    continue 'merging;
                }
            }
            break;
        }
        all.extend(piece);
        start = end;
    }
    all
}

proptest! {
    #[test]
    fn any_text_comes_back(text in "\\PC*|[ \t\r\n a-e,é漢😀\u{a0}\u{2028}]*") {
        let tokens = TOKENIZER.encode(&text).unwrap();
        prop_assert_eq!(TOKENIZER.decode(&tokens).unwrap(), text.as_bytes());
        prop_assert_eq!(tokens, encode_by_the_rules(&TOKENIZER, &text));
    }

    #[test]
    fn arbitrary_characters_come_back(text: String) {
        let tokens = TOKENIZER.encode(&text).unwrap();
        prop_assert_eq!(TOKENIZER.decode(&tokens).unwrap(), text.as_bytes());
        prop_assert_eq!(tokens, encode_by_the_rules(&TOKENIZER, &text));
    }
}

#[test]
fn a_long_text_is_cut_only_between_pieces() {
    for line in ["of  the\nend , caf\u{e9} \n\n tale\t", "the\ncat\n", "thecat"] {
        let text = line.repeat(5000);
        let whole = TOKENIZER.inner.encode_fast(text.as_str(), false).unwrap();
        assert_eq!(TOKENIZER.encode(&text).unwrap(), whole.get_ids(), "{line:?}");
    }
}

#[test]
fn training_is_deterministic_and_the_file_comes_back() {
    let bytes = TOKENIZER.to_bytes();
    assert_eq!(Tokenizer::train(&[TEXT, TEXT], 270).unwrap().to_bytes(), bytes);
    let read = Tokenizer::from_bytes(&bytes, Path::new("x")).unwrap();
    assert_eq!(read.tokens(), TOKENIZER.tokens());
    assert_eq!(read.merges(), TOKENIZER.merges());
    assert_eq!(read.to_bytes(), bytes);
    assert_eq!(read.vocab(), 270);
    assert_eq!(read.merges().len(), 270 - 256);
}

#[test]
fn a_blob_gives_the_same_tokenizer_back() {
    let section = TOKENIZER.section().unwrap();
    let blob = core::Tokenizer::from_bytes(&section, 270).unwrap();
    let back = Tokenizer::from_blob(&blob).unwrap();
    assert_eq!(back.to_bytes(), TOKENIZER.to_bytes());
    assert_eq!(back.sha256(), TOKENIZER.sha256());
}

#[test]
fn the_models_of_the_repository_have_the_tokenizers_that_they_record() {
    for model in ["tiny", "wikitext2", "small-seed2", "small-seed3"] {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models").join(model);
        let path = directory.join("tokenizer.json");
        let tokenizer = Tokenizer::load(&path).unwrap();
        assert_eq!(tokenizer.to_bytes(), files::read(&path).unwrap(), "{model}");
        let checkpoint =
            crate::checkpoint::Checkpoint::read(&directory.join("model.safetensors")).unwrap();
        assert_eq!(checkpoint.provenance["tokenizer_sha256"], tokenizer.sha256(), "{model}");
    }
}

/// Pseudorandom words, with repetitions.
fn words(count: usize) -> Vec<String> {
    let mut state = 1u64;
    let mut below = |n: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % n
    };
    let mut word = |_| (0..2 + below(5)).map(|_| char::from(b'a' + below(6) as u8)).collect();
    (0..count).map(&mut word).collect()
}

#[test]
fn texts_with_short_pieces_train_what_the_library_trains_on_the_whole() {
    use ::tokenizers::models::TrainerWrapper;
    use ::tokenizers::models::bpe::BpeTrainer;
    let text = words(20_000).join(" ").replace("fa ", "fa\n\n ").replace("eb ", "eb\n");
    let mut whole = library(BPE::default()).unwrap();
    let trainer = BpeTrainer::builder()
        .vocab_size(400)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    whole.train(&mut TrainerWrapper::from(trainer), [text.as_str()].into_iter()).unwrap();
    let ours = Tokenizer::train(&[&text], 400).unwrap();
    assert_eq!(ours.to_bytes(), whole.to_string(true).unwrap().into_bytes());
}

#[test]
fn a_text_without_white_space_trains_tokens_that_a_blob_can_hold() {
    let text = "a".repeat(400 * 256);
    let tokenizer = Tokenizer::train(&[&text], 264).unwrap();
    assert_eq!(tokenizer.tokens().iter().map(Vec::len).max(), Some(256));
    assert_eq!(tokenizer.encode(&text).unwrap(), [263; 400]);
    let error = Tokenizer::train(&[&text], 265).err().unwrap().to_string();
    assert!(error.contains("only enough repetition for 264 tokens"), "{error}");
    let text = words(100_000).concat();
    assert_eq!(Tokenizer::train(&[&text], 300).unwrap().vocab(), 300);
}

#[test]
fn nothing_but_white_space_is_a_text_too() {
    let text = " \n".repeat(1_000_000);
    let tokenizer = Tokenizer::train(&[&text], 260).unwrap();
    let tokens = tokenizer.encode(&text).unwrap();
    assert_eq!(tokenizer.decode(&tokens).unwrap(), text.as_bytes());
    let section = tokenizer.section().unwrap();
    let device =
        core::Tokenizer::from_bytes(&section, 260).unwrap().encode_vec(text.as_bytes()).unwrap();
    assert!(tokens == device);
}

/// A file whose merges join arbitrary earlier tokens.
fn arbitrary_file() -> impl Strategy<Value = Value> {
    let merges = proptest::collection::vec((any::<u16>(), any::<u16>()), 0..40);
    (merges, any::<bool>()).prop_map(|(picks, narrow)| {
        let alphabet: Vec<u32> = (0..256)
            .filter(|&t| !narrow || b"ab \n".contains(&TOKENIZER.tokens()[t][0]))
            .map(|t| t as u32)
            .collect();
        let mut tokens = TOKENIZER.tokens()[..256].to_vec();
        let mut seen: HashSet<Vec<u8>> = tokens.iter().cloned().collect();
        let mut merges = Vec::new();
        for (left, right) in picks {
            let pick = |n: u16| match n as usize % (alphabet.len() + merges.len()) {
                n if n < alphabet.len() => alphabet[n],
                n => 256 + (n - alphabet.len()) as u32,
            };
            let (left, right) = (pick(left), pick(right));
            let joined = [&tokens[left as usize][..], &tokens[right as usize][..]].concat();
            if joined.len() <= 256 && seen.insert(joined.clone()) {
                merges.push(Merge { left, right, result: tokens.len() as u32 });
                tokens.push(joined);
            }
        }
        let tokenizer = Tokenizer::from_parts(Parts { tokens, merges }).unwrap();
        serde_json::from_slice(&tokenizer.to_bytes()).unwrap()
    })
}

/// A change to a file: of a field, or of the order or number of merges.
fn change() -> impl Strategy<Value = Option<(String, Value)>> {
    let refused = refused().into_iter().map(|(pointer, value, _)| (pointer, value));
    let all: Vec<_> = harmless().into_iter().chain(refused).collect();
    proptest::option::of(
        proptest::sample::select(all).prop_map(|(pointer, value)| (pointer.to_string(), value)),
    )
}

proptest! {
    /// Every reader of an accepted file encodes the same: the library from the file, this module,
    /// and a device from the blob.
    #[test]
    fn what_is_accepted_is_encoded_alike_everywhere(
        mut file in arbitrary_file(),
        changes in proptest::collection::vec(change(), 2),
        swap in proptest::option::of((0usize..40, 0usize..40)),
        text in "[ab \n]{0,200}|\\PC{0,40}|[ \t\r\n a-e,é漢😀]{0,80}",
    ) {
        for (pointer, value) in changes.into_iter().flatten() {
            let parent = pointer.rsplit_once('/').unwrap().0;
            let index = pointer.rsplit_once('/').unwrap().1.parse::<usize>();
            let place = file.pointer(parent);
            let there = place.is_some_and(|place| match index {
                Ok(index) => place.as_array().is_some_and(|items| index < items.len()),
                Err(_) => place.is_object() || (pointer.ends_with('-') && place.is_array()),
            });
            if there {
                put(&mut file, &pointer, value);
            }
        }
        if let (Some((a, b)), Some(merges)) = (swap, file["model"]["merges"].as_array_mut())
            && a.max(b) < merges.len()
        {
            merges.swap(a, b);
        }
        let bytes = file.to_string().into_bytes();
        if file::parse(&bytes).is_ok() {
            let tokenizer = Tokenizer::from_bytes(&bytes, Path::new("x")).unwrap();
            let host = tokenizer.encode(&text).unwrap();
            let library = tokenizers::Tokenizer::from_bytes(&bytes).unwrap();
            let by_library = library.encode_fast(text.as_str(), true).unwrap();
            prop_assert_eq!(&host, by_library.get_ids());
            let section = tokenizer.section().unwrap();
            let blob = core::Tokenizer::from_bytes(&section, tokenizer.vocab() as u32).unwrap();
            let device = blob.encode_vec(text.as_bytes()).unwrap();
            prop_assert_eq!(&host, &device);
            prop_assert_eq!(tokenizer.decode(&host).unwrap(), text.as_bytes());
        }
    }

    /// The trainer makes no token twice, for any text.
    #[test]
    fn what_is_trained_can_be_held(text in "[ab]{0,600}|[abc \n]{0,600}", more in 0usize..40) {
        match Tokenizer::train(&[&text], 256 + more) {
            Ok(tokenizer) => prop_assert_eq!(tokenizer.merges().len(), more),
            Err(error) => prop_assert!(error.to_string().contains("only enough repetition")),
        }
    }

    #[test]
    fn harmless_fields_are_accepted(
        mut file in arbitrary_file(),
        (pointer, value) in proptest::sample::select(harmless()),
    ) {
        put(&mut file, pointer, value);
        prop_assert_eq!(said(&file), Vec::<String>::new());
    }
}
