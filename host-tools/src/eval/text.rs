//! Where the tokens of a calibration or an evaluation come from.

use std::path::{Path, PathBuf};

use super::sample::sample;
use crate::corpus::{self, Corpus, Split};
use crate::error::{Error, Result};
use crate::reference::Model;
use crate::tokenizer::Tokenizer;

/// A source of text.
#[derive(Clone, Debug, PartialEq)]
pub enum TextSource {
    /// A split of a corpus directory.
    Split(PathBuf, Split),
    /// A text file.
    File(PathBuf),
    /// What the FP32 model writes itself.
    Sampled,
}

/// Tokens with the name of their source.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// Name for tables and provenance.
    pub name: String,
    /// The tokens.
    pub tokens: Vec<u32>,
}

impl TextSource {
    /// The file, if one is named; else the split of the corpus, if there is one (by flag or
    /// environment); else text sampled from the model.
    pub fn find(file: Option<&Path>, corpus: Option<&Path>, split: Split) -> Result<Self> {
        if let Some(file) = file {
            return Ok(Self::File(file.to_path_buf()));
        }
        match Corpus::find(corpus) {
            Ok(corpus) => Ok(Self::Split(corpus.directory().to_path_buf(), split)),
            Err(Error::CorpusMissing) => Ok(Self::Sampled),
            Err(error) => Err(error),
        }
    }

    /// Name for tables and provenance.
    pub fn name(&self, seed: u64) -> String {
        match self {
            Self::Split(directory, split) => {
                let corpus = directory.file_name().unwrap_or(directory.as_os_str());
                format!("{} {}", corpus.to_string_lossy(), split.name())
            }
            Self::File(path) => {
                path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into()
            }
            Self::Sampled => format!("self-sampled, seed {seed}"),
        }
    }

    /// At most `limit` tokens of the text (`None` for all of it; sampled text needs a limit, for
    /// which 16,384 stands in): from its middle, so that limits of different sizes overlap.
    pub fn tokens(
        &self,
        model: Option<&Model>,
        tokenizer: Option<&Tokenizer>,
        limit: Option<usize>,
        window: usize,
        seed: u64,
        progress: impl Fn(f64) + Sync,
    ) -> Result<Tokens> {
        let name = self.name(seed);
        let text = match self {
            Self::Sampled => {
                let model = model.ok_or_else(|| {
                    Error::Usage(
                        "without a corpus, text is sampled from the FP32 model: name a checkpoint, \
                         --corpus or --text"
                            .into(),
                    )
                })?;
                let count = limit.unwrap_or(16_384).max(window + 1);
                let tokens = sample(model, count, seed, progress)?;
                let random = model.config().chain == crate::checkpoint::Chain::Full;
                let name = if random { format!("random tokens, seed {seed}") } else { name };
                return Ok(Tokens { name, tokens });
            }
            Self::Split(directory, split) => Corpus::find(Some(directory))?.text(*split)?,
            Self::File(path) => corpus::read_text(path)?,
        };
        let tokenizer = tokenizer.ok_or_else(|| {
            Error::Tokenizer("text has to be cut into tokens, and there is no tokenizer".into())
        })?;
        let mut tokens = tokenizer.encode(&text)?;
        corpus::require_window(&name, tokens.len(), window)?;
        if let Some(limit) = limit.filter(|&limit| limit < tokens.len()) {
            let start = (tokens.len() - limit) / 2;
            tokens =
                tokens[start..start + limit.max(window + 1).min(tokens.len() - start)].to_vec();
        }
        Ok(Tokens { name, tokens })
    }
}
