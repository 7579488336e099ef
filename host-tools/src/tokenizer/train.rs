//! Training a tokenizer.

use super::library::{library, problem};
use super::{Tokenizer, file, pieces};
use crate::error::{Error, Result};
use resnet_bk_core::tokenizer::MAX_TOKEN_BYTES;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

impl Tokenizer {
    /// Trains a vocabulary of `vocab` tokens, including the 256 bytes. Deterministic.
    ///
    /// Pieces longer than a token may be, 256 bytes, are split before counting: for text without
    /// white space (minified code, languages written without spaces) the trainer would otherwise
    /// update one piece of the whole text's length at every merge. Encoding does not split.
    ///
    /// # Errors
    /// If `vocab` is below 256 or the texts have too little repetition for `vocab` tokens.
    pub fn train(texts: &[&str], vocab: usize) -> Result<Self> {
        if vocab < 256 {
            return Err(Error::Tokenizer(format!(
                "a vocabulary of {vocab} cannot hold the 256 bytes"
            )));
        }
        let mut inner = library(BPE::default())?;
        let trainer = BpeTrainer::builder()
            .vocab_size(vocab)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let chunks = texts.iter().flat_map(|text| pieces::bounded_chunks(text, MAX_TOKEN_BYTES));
        let chunks: Vec<&str> = chunks.collect();
        inner.train(&mut TrainerWrapper::from(trainer), chunks.into_iter()).map_err(problem)?;
        let trained = inner.to_string(false).map_err(problem)?;
        let tokenizer = file::parse(trained.as_bytes())
            .and_then(|parts| Self::from_parts(parts).map_err(|error| vec![error.to_string()]))
            .map_err(|problems| Error::Tokenizer(problems.join("; ")))?;
        if tokenizer.vocab() != vocab {
            return Err(Error::Tokenizer(format!(
                "the text has only enough repetition for {} tokens, not {vocab}; use a longer text \
                 or a smaller vocabulary",
                tokenizer.vocab()
            )));
        }
        Ok(tokenizer)
    }
}
