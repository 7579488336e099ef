//! The Hugging Face library, configured with this module's rules.

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::pieces;
use crate::error::{Error, Result};

/// The library's tokenizer with this module's rules and `model`.
pub(super) fn library(model: BPE) -> Result<tokenizers::Tokenizer> {
    let pattern = SplitPattern::Regex(pieces::PIECES.into());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(problem)?;
    let byte_level = ByteLevel::new(false, false, false);
    let mut library = tokenizers::Tokenizer::new(model);
    library.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        PreTokenizerWrapper::Split(split),
        PreTokenizerWrapper::ByteLevel(byte_level),
    ]))));
    library.with_decoder(Some(byte_level));
    Ok(library)
}

pub(super) fn problem(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}
