//! Byte-level BPE: text to token numbers and back, without loss.
//!
//! A tokenizer is stored as a Hugging Face `tokenizer.json`, and trained and run by their library;
//! but its rules are chosen so that a microcontroller can follow them on bytes:
//!
//! 1. *Pieces.* White space is the four bytes space, `\t`, `\n`, `\r`; everything else, all of
//!    non-ASCII included, is not. A piece begins at the start of the text and before byte i where
//!    - byte i is a space and byte i + 1 exists and is not white space (a single space belongs to
//!      the word that it precedes), or
//!    - byte i is white space and byte i − 1 is not (white space after a word), or
//!    - byte i is not white space and byte i − 1 is white space, but not a space (a word at the
//!      start of a line).
//!
//!    So `"of  the\nend"` has the pieces `of`, one space, ` the`, `\n`, `end`.
//! 2. *Merges.* A piece starts as one token per byte. As long as any two neighbours can merge, the
//!    pair with the lowest merge rank merges, the leftmost first. Pieces are independent.
//!
//! All 256 bytes are tokens, so every text can be written, and there are no special tokens.

use crate::error::{Error, Result};
use crate::files;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

/// The piece rule of the module documentation as a regular expression.
const PIECES: &str = r" ?[^ \t\n\r]+|[ \t\n\r]+(?= [^ \t\n\r])|[ \t\n\r]+";

/// Two neighbouring tokens and the token that they merge into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Merge {
    /// First token.
    pub left: u32,
    /// Second token.
    pub right: u32,
    /// Result.
    pub result: u32,
}

/// A byte-level BPE tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    tokens: Vec<Vec<u8>>,
    merges: Vec<Merge>,
}

impl Tokenizer {
    /// Trains a vocabulary of `vocab` tokens, 256 of them the bytes, on these texts. The same texts
    /// give the same tokenizer.
    pub fn train(texts: &[&str], vocab: usize) -> Result<Self> {
        if vocab < 256 {
            return Err(Error::Tokenizer(format!(
                "a vocabulary of {vocab} cannot hold the 256 bytes"
            )));
        }
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        let split =
            Split::new(SplitPattern::Regex(PIECES.into()), SplitDelimiterBehavior::Isolated, false)
                .map_err(problem)?;
        let byte_level = ByteLevel::new(false, false, false);
        inner.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(byte_level),
        ]))));
        inner.with_decoder(Some(byte_level));
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let chunks: Vec<&str> = texts.iter().flat_map(|text| chunks(text)).collect();
        let mut trainer = TrainerWrapper::from(trainer);
        inner.train(&mut trainer, chunks.into_iter()).map_err(problem)?;
        let tokenizer = Self::new(inner).map_err(Error::Tokenizer)?;
        if tokenizer.vocab() != vocab {
            return Err(Error::Tokenizer(format!(
                "the text has only enough repetition for {} tokens, not {vocab}; use a longer text \
                 or a smaller vocabulary",
                tokenizer.vocab()
            )));
        }
        Ok(tokenizer)
    }

    /// Reads a `tokenizer.json` and checks that it follows this module's rules.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_bytes(&files::read(path)?, path)
    }

    /// Parses the content of a `tokenizer.json`; `path` is for messages.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let bad =
            |reason: String| Error::Format { kind: "tokenizer", path: path.to_path_buf(), reason };
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| bad(e.to_string()))?;
        Self::new(inner).map_err(bad)
    }

    /// The content of the `tokenizer.json`; the same tokenizer gives the same bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.inner.to_string(true).map_err(problem)?.into_bytes())
    }

    /// Writes the `tokenizer.json`, wholly or not at all.
    pub fn save(&self, path: &Path) -> Result<()> {
        files::write_atomically(path, &self.to_bytes()?)
    }

    /// Number of tokens.
    pub fn vocab(&self) -> usize {
        self.tokens.len()
    }

    /// The bytes of each token.
    pub fn tokens(&self) -> &[Vec<u8>] {
        &self.tokens
    }

    /// The merges, lowest rank first.
    pub fn merges(&self) -> &[Merge] {
        &self.merges
    }

    /// The tokens of a text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encode = |chunk: &&str| {
            let encoding = self.inner.encode_fast(*chunk, false).map_err(problem)?;
            Ok(encoding.get_ids().to_vec())
        };
        let parts = chunks(text).par_iter().map(encode).collect::<Result<Vec<_>>>()?;
        Ok(parts.concat())
    }

    /// The bytes of these tokens; of a cut text they may end inside a UTF-8 sequence.
    ///
    /// # Panics
    /// If a token is not below [`Tokenizer::vocab`].
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().flat_map(|&t| &self.tokens[t as usize]).copied().collect()
    }

    /// Number of bytes that each token stands for.
    pub fn token_lengths(&self) -> Vec<usize> {
        self.tokens.iter().map(Vec::len).collect()
    }

    fn new(inner: tokenizers::Tokenizer) -> Result<Self, String> {
        let json = inner.to_string(false).map_err(|e| e.to_string())?;
        let json: serde_json::Value = serde_json::from_str(&json).map_err(|e| e.to_string())?;
        let rules = [
            ("/model/type", "\"BPE\""),
            ("/normalizer", "null"),
            ("/post_processor", "null"),
            ("/added_tokens", "[]"),
            ("/model/ignore_merges", "false"),
            ("/pre_tokenizer/pretokenizers/0/behavior", "\"Isolated\""),
            ("/pre_tokenizer/pretokenizers/0/invert", "false"),
            ("/pre_tokenizer/pretokenizers/1/type", "\"ByteLevel\""),
            ("/pre_tokenizer/pretokenizers/1/add_prefix_space", "false"),
            ("/pre_tokenizer/pretokenizers/1/use_regex", "false"),
        ];
        for (pointer, expected) in rules {
            let found = json.pointer(pointer).unwrap_or(&serde_json::Value::Null).to_string();
            if found != expected {
                return Err(format!(
                    "it is {found} at {pointer}; only {expected} is supported, because the device \
                     follows the same rules"
                ));
            }
        }
        let pattern = json.pointer("/pre_tokenizer/pretokenizers/0/pattern/Regex");
        if pattern.and_then(|p| p.as_str()) != Some(PIECES) {
            return Err("it splits text into other pieces than this tool's tokenizers".into());
        }
        let ids = inner.get_vocab(false);
        let to_byte = byte_of_character();
        let mut tokens = vec![None; ids.len()];
        for (text, &id) in &ids {
            let bytes: Option<Vec<u8>> = text.chars().map(|c| to_byte.get(&c).copied()).collect();
            match (tokens.get_mut(id as usize), bytes) {
                (Some(slot @ None), Some(bytes)) => *slot = Some(bytes),
                _ => return Err(format!("token `{text}` with number {id} is not a byte string")),
            }
        }
        // As many distinct numbers as tokens, all in range: no slot is left empty.
        let tokens: Vec<Vec<u8>> = tokens.into_iter().flatten().collect();
        for byte in 0..=255u8 {
            if !tokens.iter().any(|t| t[..] == [byte]) {
                return Err(format!("byte {byte:#04x} has no token"));
            }
        }
        let merges = json.pointer("/model/merges").and_then(|m| m.as_array());
        let merges = merges.ok_or("it has no merges")?;
        let merge = |pair: &serde_json::Value| {
            let (left, right) = (pair.get(0)?.as_str()?, pair.get(1)?.as_str()?);
            let result = *ids.get(&format!("{left}{right}"))?;
            Some(Merge { left: *ids.get(left)?, right: *ids.get(right)?, result })
        };
        let merges: Option<Vec<Merge>> = merges.iter().map(merge).collect();
        Ok(Self { inner, tokens, merges: merges.ok_or("a merge names an unknown token")? })
    }
}

/// Cuts a long text where a piece begins whatever stands around it, so that the parts can be encoded
/// one by one and in parallel.
fn chunks(text: &str) -> Vec<&str> {
    const TARGET: usize = 1 << 14;
    let bytes = text.as_bytes();
    let white = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
    let (mut start, mut parts) = (0, Vec::new());
    while bytes.len() - start > TARGET {
        let cut =
            (start + TARGET..bytes.len() - 1).find(|&i| bytes[i] == b' ' && !white(bytes[i + 1]));
        let Some(cut) = cut else { break };
        parts.push(&text[start..cut]);
        start = cut;
    }
    parts.push(&text[start..]);
    parts
}

/// The printable character that the byte-level scheme writes for each byte: itself where it is
/// printable and not a space, else the next unused one from U+0100.
fn byte_of_character() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=255u8)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (char::from(byte), byte),
            _ => {
                next += 1;
                (char::from_u32(next - 1).expect("below the surrogates"), byte)
            }
        })
        .collect()
}

fn problem(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    const TEXT: &str =
        "the cat sat on the mat , and the dog ate the rat .\n The end\n\n of  the\ttale";
    static TOKENIZER: LazyLock<Tokenizer> =
        LazyLock::new(|| Tokenizer::train(&[TEXT, TEXT], 270).unwrap());

    /// The module's rules on bytes, as the device follows them.
    fn encode_by_the_rules(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        let bytes = text.as_bytes();
        let white = |b: u8| matches!(b, b' ' | b'\t' | b'\n' | b'\r');
        let begins = |i: usize| {
            i == 0
                || (bytes[i] == b' ' && bytes.get(i + 1).is_some_and(|&b| !white(b)))
                || (white(bytes[i]) && !white(bytes[i - 1]))
                || (!white(bytes[i]) && white(bytes[i - 1]) && bytes[i - 1] != b' ')
        };
        let single = |byte: u8| tokenizer.tokens.iter().position(|t| t[..] == [byte]).unwrap();
        let (mut all, mut start) = (Vec::new(), 0);
        while start < bytes.len() {
            let end = (start + 1..bytes.len()).find(|&i| begins(i)).unwrap_or(bytes.len());
            let mut piece: Vec<u32> = bytes[start..end].iter().map(|&b| single(b) as u32).collect();
            'merging: loop {
                for merge in &tokenizer.merges {
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
            prop_assert_eq!(TOKENIZER.decode(&tokens), text.as_bytes());
            prop_assert_eq!(tokens, encode_by_the_rules(&TOKENIZER, &text));
        }

        #[test]
        fn arbitrary_characters_come_back(text: String) {
            let tokens = TOKENIZER.encode(&text).unwrap();
            prop_assert_eq!(TOKENIZER.decode(&tokens), text.as_bytes());
            prop_assert_eq!(tokens, encode_by_the_rules(&TOKENIZER, &text));
        }
    }

    #[test]
    fn a_long_text_is_cut_only_between_pieces() {
        let text = "of  the\nend , caf\u{e9} \n\n tale\t".repeat(5000);
        let whole = TOKENIZER.inner.encode_fast(text.as_str(), false).unwrap();
        assert_eq!(TOKENIZER.encode(&text).unwrap(), whole.get_ids());
        assert!(chunks(&text).len() > 3);
    }

    #[test]
    fn training_is_deterministic_and_the_file_comes_back() {
        let bytes = TOKENIZER.to_bytes().unwrap();
        assert_eq!(Tokenizer::train(&[TEXT, TEXT], 270).unwrap().to_bytes().unwrap(), bytes);
        let read = Tokenizer::from_bytes(&bytes, Path::new("x")).unwrap();
        assert_eq!(read.tokens, TOKENIZER.tokens);
        assert_eq!(read.merges, TOKENIZER.merges);
        assert_eq!(read.vocab(), 270);
        assert_eq!(read.merges.len(), 270 - 256);
    }

    #[test]
    fn foreign_rules_and_impossible_sizes_are_refused() {
        let text = String::from_utf8(TOKENIZER.to_bytes().unwrap()).unwrap();
        let other = text.replace("\"use_regex\": false", "\"use_regex\": true");
        assert!(Tokenizer::from_bytes(other.as_bytes(), Path::new("x")).is_err());
        assert!(Tokenizer::from_bytes(b"{}", Path::new("x")).is_err());
        assert!(Tokenizer::train(&[TEXT], 255).is_err());
        assert!(Tokenizer::train(&["abc"], 300).is_err());
    }
}
