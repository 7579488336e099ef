//! The texts of a training run, or their tokens.

use std::collections::BTreeMap;

use crate::cli::common::require_vocabulary;
use crate::corpus::{Content, Corpus, Split};
use crate::digest::{sha256, sha256_of_tokens};
use crate::error::{Error, Result};
use crate::tokenizer::{Encoded, Tokenizer};

/// The splits that a run reads.
const SPLITS: [Split; 2] = [Split::Train, Split::Valid];

/// Training and validation text.
pub(super) struct Texts([Content; 2]);

/// The tokens of a text.
pub(super) struct Tokens {
    pub(super) tokens: Vec<u32>,
    /// Bytes of text that each stands for, where that is known.
    pub(super) bytes: Option<Vec<u32>>,
}

impl Texts {
    pub(super) fn read(corpus: &Corpus) -> Result<Self> {
        let [train, valid] = SPLITS.map(|split| corpus.content(split));
        Ok(Self([train?, valid?]))
    }

    /// Whether any of it has to be encoded.
    pub(super) fn need_tokenizer(&self) -> bool {
        self.0.iter().any(|content| matches!(content, Content::Text(_)))
    }

    /// Trains a tokenizer on the training text.
    pub(super) fn train_tokenizer(&self, vocab: usize) -> Result<Tokenizer> {
        match &self.0[0] {
            Content::Text(text) => Tokenizer::train(&[text], vocab),
            Content::Tokens(_) => Err(Error::Usage(
                "the training split has token ids, but the validation split has text: name the \
                 --tokenizer of the tokens"
                    .into(),
            )),
        }
    }

    /// Says that nothing tells how many tokens the model is to have.
    pub(super) fn vocabulary_missing(&self, corpus: &Corpus) -> Error {
        let largest = self.0.iter().filter_map(|content| match content {
            Content::Tokens(tokens) => tokens.iter().max(),
            Content::Text(_) => None,
        });
        Error::Usage(format!(
            "{} has token ids up to {}: name the number of the model's tokens, --vocab",
            corpus.file(Split::Train).display(),
            largest.max().unwrap_or(&0)
        ))
    }

    /// SHA-256 of every text, by a name for the record of a run.
    pub(super) fn hashes(&self) -> BTreeMap<String, String> {
        let hash = |(split, content): (Split, &Content)| {
            let sha256 = match content {
                Content::Text(text) => sha256(text.as_bytes()),
                Content::Tokens(tokens) => sha256_of_tokens(tokens),
            };
            (format!("{}_text_sha256", split.name()), sha256)
        };
        SPLITS.into_iter().zip(&self.0).map(hash).collect()
    }

    /// The tokens of every text, for a model with a vocabulary of this size.
    pub(super) fn tokens(
        self,
        corpus: &Corpus,
        tokenizer: Option<&Tokenizer>,
        vocab: usize,
    ) -> Result<[Tokens; 2]> {
        let tokens = |split: Split, content| {
            let path = corpus.file(split);
            let found = match content {
                Content::Tokens(tokens) => {
                    let bytes = tokenizer.and_then(|tokenizer| tokenizer.lengths(&tokens));
                    Tokens { tokens, bytes }
                }
                Content::Text(text) => {
                    let text_of = || Error::TokenizerMissing { text: path.display().to_string() };
                    let tokenizer = tokenizer.ok_or_else(text_of)?;
                    let Encoded { tokens, bytes } = tokenizer.encode_with_bytes(&text)?;
                    Tokens { tokens, bytes: Some(bytes) }
                }
            };
            require_vocabulary(&path, &found.tokens, vocab)?;
            Ok(found)
        };
        let [train, valid] = self.0;
        Ok([tokens(Split::Train, train)?, tokens(Split::Valid, valid)?])
    }
}
