//! A tokenizer of any kind.

use std::path::Path;

use rayon::prelude::*;
use resnet_bk_core as core;
use resnet_bk_core::tokenizer::Rule;
use tokenizers::models::bpe::{BPE, Vocab};

use super::byte_level::ByteLevel;
use super::encoded::Encoded;
use super::file::{self, Parts};
use super::foreign;
use super::library::{library, problem};
use super::merge::Merge;
use super::stored::Stored;
use super::{pieces, vocabulary};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::files;

/// A tokenizer of any kind.
pub struct Tokenizer {
    /// Encodes a text without what a file may add to or cut off from single inputs: special
    /// tokens, truncation, padding.
    pub(super) inner: tokenizers::Tokenizer,
    /// The whole file.
    file: Vec<u8>,
    pub(super) stored: Stored,
    vocab: usize,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub fn load(path: &Path) -> Result<Self> {
        Self::from_bytes(&files::read(path)?, path)
    }

    /// Parses the content of a `tokenizer.json`; `path` is for messages.
    ///
    /// # Errors
    /// [`Error::TokenizerFile`] if the library cannot read it.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        match file::parse(bytes) {
            Ok(parts) => Self::from_parts(parts),
            Err(_) => Self::from_library(foreign::read(bytes, path)?),
        }
    }

    /// The tokenizer contained in a blob, if it can be rebuilt from it.
    ///
    /// # Errors
    /// [`Error::Blob`] if the blob's one only decodes.
    pub fn from_blob(tokenizer: &core::Tokenizer<'_>) -> Result<Self> {
        match tokenizer.rule() {
            Some(Rule::Words) => {}
            Some(Rule::Gpt2) => {
                let file = ByteLevel::from_blob(tokenizer)?.file().to_string();
                return Self::from_library(foreign::read(file.as_bytes(), Path::new("the blob"))?);
            }
            None => return Err(Error::Blob(core::Error::NoEncoder)),
        }
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

    /// The section of a blob that [`core::Tokenizer`] reads.
    ///
    /// # Errors
    /// [`Error::TokenizerOnDevice`] if no blob can hold it.
    pub fn section(&self) -> Result<Vec<u8>> {
        self.stored.section()
    }

    /// Why a device does not encode with it, if it does not.
    pub fn only_decodes(&self) -> Option<&str> {
        self.stored.only_decodes()
    }

    /// Whether another tokenizer gives every text the same tokens: it has the same file, or a blob
    /// holds the same of both.
    pub fn is_same(&self, other: &Self) -> bool {
        let sections = || self.section().ok().zip(other.section().ok());
        let encode = self.only_decodes().is_none();
        self.file == other.file || encode && sections().is_some_and(|(one, two)| one == two)
    }

    /// The content of the `tokenizer.json`; deterministic.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.file.clone()
    }

    /// SHA-256 of [`Tokenizer::to_bytes`] in hexadecimal: equal for equal tokenizers, whatever the
    /// formatting of their files.
    pub fn sha256(&self) -> String {
        sha256(&self.file)
    }

    /// Writes the `tokenizer.json` atomically.
    pub fn save(&self, path: &Path) -> Result<()> {
        files::write_atomically(path, &self.file)
    }

    /// Fails unless this is the tokenizer of a model with `vocab` tokens and, if known, the
    /// [`Tokenizer::sha256`] `expected`. `name` and `model` describe both in messages. A model may
    /// have more tokens than a tokenizer of another program: vocabularies are often padded.
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
        let fits = self.vocab == vocab || self.is_foreign() && self.vocab < vocab;
        match expected {
            Some(expected) if expected != found => Err(Error::TokenizerMismatch {
                tokenizer: name.into(),
                found,
                model: model.into(),
                expected: expected.into(),
            }),
            _ if !fits => {
                let count = self.vocab;
                Err(Error::Tokenizer(format!("{name} has {count} tokens, but {model} has {vocab}")))
            }
            _ => Ok(()),
        }
    }

    /// Whether it follows other rules than those of this module.
    pub fn is_foreign(&self) -> bool {
        !matches!(self.stored, Stored::Own(_))
    }

    /// Number of tokens: one more than the largest.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// The tokens of a text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with_bytes(text).map(|encoded| encoded.tokens)
    }

    /// The tokens of a text, each with the bytes of the text that it stands for.
    ///
    /// A tokenizer that may replace or leave out parts of a text says where a token comes from;
    /// what lies between two tokens counts for the second one, and the rest for the last, so that
    /// all bytes of the text are counted once.
    pub fn encode_with_bytes(&self, text: &str) -> Result<Encoded> {
        let chunks = match &self.stored {
            Stored::Own(_) => Some(pieces::chunks(text)),
            Stored::ByteLevel(byte_level) => Some(byte_level.chunks(text, pieces::CHUNK)),
            // Nothing says where such a text may be cut.
            Stored::Table(..) | Stored::Nothing(_) => None,
        };
        if let Some(chunks) = chunks {
            let encode = |chunk: &&str| {
                let encoding = self.inner.encode_fast(*chunk, false).map_err(problem)?;
                Ok(encoding.get_ids().to_vec())
            };
            let tokens = chunks.par_iter().map(encode).collect::<Result<Vec<_>>>()?.concat();
            let bytes = self.lengths(&tokens).unwrap_or_default();
            return Ok(Encoded { tokens, bytes });
        }
        let encoding = self.inner.encode(text, false).map_err(problem)?;
        let ends = encoding.get_offsets().iter().map(|&(_, end)| end);
        Ok(Encoded::new(encoding.get_ids().to_vec(), ends, text.len()))
    }

    /// The bytes of text that each of these tokens stands for, if that does not depend on the text
    /// around them.
    pub fn lengths(&self, tokens: &[u32]) -> Option<Vec<u32>> {
        let table = self.stored.lossless()?;
        let length = |&token: &u32| table.get(token as usize).map_or(0, Vec::len) as u32;
        Some(tokens.iter().map(length).collect())
    }

    /// The bytes of every token, if text is nothing but the bytes of its tokens.
    pub fn table(&self) -> Option<&[Vec<u8>]> {
        self.stored.table()
    }

    /// The text of these tokens in UTF-8, except where tokens split or break characters. Tokens
    /// without text are left out.
    pub fn decode(&self, tokens: &[u32]) -> Result<Vec<u8>> {
        match self.stored.table() {
            Some(table) => {
                let bytes = |&token: &u32| table.get(token as usize);
                Ok(tokens.iter().filter_map(bytes).flatten().copied().collect())
            }
            None => Ok(self.inner.decode(tokens, false).map_err(problem)?.into_bytes()),
        }
    }

    /// A tokenizer that follows this module's rules: from vocabulary and merges, as a blob holds
    /// them.
    pub(super) fn from_parts(parts: Parts) -> Result<Self> {
        let texts: Vec<String> = parts.tokens.iter().map(|t| vocabulary::text(t)).collect();
        let text = |token: u32| texts[token as usize].clone();
        let pairs = parts.merges.iter().map(|m| (text(m.left), text(m.right))).collect();
        let numbers: Vocab = texts.iter().cloned().zip(0..).collect();
        let model = BPE::builder().vocab_and_merges(numbers, pairs).build().map_err(problem)?;
        let inner = library(model)?;
        let (file, vocab) = (written(&inner), parts.tokens.len());
        let tokenizer = Self { inner, file, stored: Stored::Own(parts), vocab };
        // Valid if the blob's reader accepts it.
        core::Tokenizer::from_bytes(&tokenizer.section()?, vocab as u32)
            .map_err(|error| Error::Tokenizer(format!("no blob can hold it: {error}")))?;
        Ok(tokenizer)
    }

    /// A tokenizer that the library has read.
    fn from_library(mut inner: tokenizers::Tokenizer) -> Result<Self> {
        let file = written(&inner);
        foreign::prepare(&mut inner)?;
        let vocab = inner.get_vocab(true).into_values().max().map_or(0, |token| token as usize + 1);
        let stored = Stored::of(&inner);
        Ok(Self { inner, file, stored, vocab })
    }
}

/// The library's file of a tokenizer.
fn written(inner: &tokenizers::Tokenizer) -> Vec<u8> {
    inner.to_string(true).expect("a tokenizer serialises").into_bytes()
}
