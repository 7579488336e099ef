//! The tokenizer.

use std::path::Path;

use rayon::prelude::*;
use resnet_bk_core as core;
use tokenizers::models::bpe::{BPE, Vocab};

use super::file::{self, Parts};
use super::library::{library, problem};
use super::merge::Merge;
use super::{pieces, vocabulary};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::files;

/// A byte-level BPE tokenizer.
pub struct Tokenizer {
    pub(super) inner: tokenizers::Tokenizer,
    pub(super) tokens: Vec<Vec<u8>>,
    pub(super) merges: Vec<Merge>,
}

impl Tokenizer {
    /// Reads a `tokenizer.json` and checks that it follows this module's rules.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_bytes(&files::read(path)?, path)
    }

    /// Parses the content of a `tokenizer.json`; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::TokenizerFile`] with every difference from what a blob can hold.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let parts = file::parse(bytes)
            .map_err(|problems| Error::TokenizerFile { path: path.to_path_buf(), problems })?;
        Self::from_parts(parts)
    }

    /// The tokenizer contained in a blob.
    pub fn from_blob(tokenizer: &core::Tokenizer<'_>) -> Result<Self> {
        let pairs = tokenizer.merges().zip(256..);
        let merges: Vec<Merge> =
            pairs.map(|((left, right), result)| Merge { left, right, result }).collect();
        let bytes = |token| {
            let mut bytes = Vec::new();
            tokenizer.decode(token, |byte| bytes.push(byte)).map_err(Error::Blob)?;
            Ok(bytes)
        };
        let tokens = (0..256 + merges.len() as u32).map(bytes).collect::<Result<_>>()?;
        Self::from_parts(Parts { tokens, merges })
    }

    /// The section of a blob that [`core::Tokenizer`] reads: the token of each byte, then the pair
    /// of each merge by rank, all `u16`, little-endian.
    pub fn section(&self) -> Vec<u8> {
        let mut byte_tokens = [0; 256];
        for (token, bytes) in (0u16..).zip(&self.tokens[..256]) {
            byte_tokens[usize::from(bytes[0])] = token;
        }
        let pairs = self.merges.iter().flat_map(|m| [m.left as u16, m.right as u16]);
        byte_tokens.into_iter().chain(pairs).flat_map(u16::to_le_bytes).collect()
    }

    /// The content of the `tokenizer.json`; deterministic.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.inner.to_string(true).expect("a tokenizer serialises").into_bytes()
    }

    /// SHA-256 of [`Tokenizer::to_bytes`] in hexadecimal: equal for equal tokenizers, whatever the
    /// formatting of their files.
    pub fn sha256(&self) -> String {
        sha256(&self.to_bytes())
    }

    /// Writes the `tokenizer.json` atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        files::write_atomically(path, &self.to_bytes())
    }

    /// Fails unless this is the tokenizer of a model with `vocab` tokens and, if known, the
    /// [`Tokenizer::sha256`] `expected`. `name` and `model` describe both in messages.
    ///
    /// # Errors
    /// [`Error::TokenizerMismatch`], or [`Error::Tokenizer`] if only the sizes are known.
    pub fn belongs_to(
        &self,
        name: &str,
        model: &str,
        vocab: usize,
        expected: Option<&str>,
    ) -> Result<()> {
        let found = self.sha256();
        match expected {
            Some(expected) if expected != found => Err(Error::TokenizerMismatch {
                tokenizer: name.into(),
                found,
                model: model.into(),
                expected: expected.into(),
            }),
            _ if self.vocab() != vocab => {
                let count = self.vocab();
                Err(Error::Tokenizer(format!("{name} has {count} tokens, but {model} has {vocab}")))
            }
            _ => Ok(()),
        }
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
        let parts = pieces::chunks(text).par_iter().map(encode).collect::<Result<Vec<_>>>()?;
        Ok(parts.concat())
    }

    /// The bytes of these tokens; may end within a UTF-8 sequence.
    ///
    /// # Panics
    /// If a token is not below [`Tokenizer::vocab`].
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        tokens.iter().flat_map(|&t| &self.tokens[t as usize]).copied().collect()
    }

    /// Number of bytes of each token.
    pub fn token_lengths(&self) -> Vec<usize> {
        self.tokens.iter().map(Vec::len).collect()
    }

    /// The only constructor: from vocabulary and merges, as a blob holds them.
    pub(super) fn from_parts(Parts { tokens, merges }: Parts) -> Result<Self> {
        let texts: Vec<String> = tokens.iter().map(|bytes| vocabulary::text(bytes)).collect();
        let text = |token: u32| texts[token as usize].clone();
        let pairs = merges.iter().map(|m| (text(m.left), text(m.right))).collect();
        let numbers: Vocab = texts.iter().cloned().zip(0..).collect();
        let model = BPE::builder().vocab_and_merges(numbers, pairs).build().map_err(problem)?;
        let tokenizer = Self { inner: library(model)?, tokens, merges };
        // Valid if the blob's reader accepts it.
        core::Tokenizer::from_bytes(&tokenizer.section(), tokenizer.vocab() as u32)
            .map_err(|error| Error::Tokenizer(format!("no blob can hold it: {error}")))?;
        Ok(tokenizer)
    }
}
