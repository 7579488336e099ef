//! Sources of calibration and evaluation tokens.

use std::ops::Range;
use std::path::{Path, PathBuf};

use resnet_bk_schema::blocks::{Block, Blocks};

use super::articles::articles;
use super::sample::{sample, stream_length};
use crate::corpus::{self, Content, Corpus, Split};
use crate::error::{Error, Result};
use crate::reference::Model;
use crate::token_file::TokenType;
use crate::tokenizer::{Encoded, Tokenizer};

/// A source of text.
#[derive(Clone, Debug, PartialEq)]
pub enum TextSource {
    /// A split of a corpus directory.
    Split(Corpus, Split),
    /// A file of text or tokens, these of the given width: all of it, or the part that serves as a
    /// split.
    File(PathBuf, Option<TokenType>, Option<Split>),
    /// Text sampled from the FP32 model, different for each split.
    Sampled(Split),
}

/// Where the articles or other parts of a text begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Kind of part.
    pub part: Block,
    /// First token of each part, ascending. Tokens before the first belong to a part that began
    /// before the text.
    pub starts: Vec<usize>,
}

/// Tokens with the name of their source.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// Name for tables and provenance.
    pub name: String,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Bytes of text that each of them stands for, where that is known.
    pub bytes: Option<Vec<u32>>,
    /// Its parts, if it has several.
    pub parts: Option<Parts>,
}

impl Tokens {
    /// Blocks of windows for standard errors of measurements on this text.
    ///
    /// # Panics
    /// If `window` is 0.
    pub fn blocks(&self, window: usize) -> Blocks {
        let count = self.tokens.len();
        match &self.parts {
            Some(parts) => Blocks::starting_at(parts.part, &parts.starts, count, window),
            None => Blocks::runs(count, window),
        }
    }

    /// The text restricted to a range of its tokens.
    ///
    /// # Panics
    /// If the range exceeds the tokens.
    fn cut(mut self, range: Range<usize>) -> Self {
        if let Some(parts) = &mut self.parts {
            parts.starts.retain(|start| range.contains(start));
            parts.starts.iter_mut().for_each(|start| *start -= range.start);
        }
        for numbers in [Some(&mut self.tokens), self.bytes.as_mut()].into_iter().flatten() {
            numbers.truncate(range.end);
            numbers.drain(..range.start);
        }
        self
    }
}

/// Token range of a file that serves as a split.
fn share(split: Split, tokens: usize) -> Range<usize> {
    let (valid, test) = (tokens / 10 * 8, tokens / 10 * 9);
    match split {
        Split::Train => 0..valid,
        Split::Valid => valid..test,
        Split::Test => test..tokens,
    }
}

impl TextSource {
    /// The file, if given, of which the first eight tenths serve for training and calibration and a
    /// tenth each for validation and test; otherwise the split of the corpus, if there is one (by
    /// flag or environment); otherwise text sampled from the model. `width` is that of tokens in
    /// files that do not say so.
    pub fn find(
        file: Option<&Path>,
        corpus: Option<&Path>,
        width: Option<TokenType>,
        split: Split,
    ) -> Result<Self> {
        if let Some(file) = file {
            return Ok(Self::File(file.to_path_buf(), width, Some(split)));
        }
        match Corpus::find(corpus) {
            Ok(corpus) => Ok(Self::Split(corpus.with_token_type(width), split)),
            Err(Error::CorpusMissing) => Ok(Self::Sampled(split)),
            Err(error) => Err(error),
        }
    }

    /// The same source, but all of a file.
    pub fn whole(self) -> Self {
        match self {
            Self::File(path, width, _) => Self::File(path, width, None),
            other => other,
        }
    }

    /// The file, unless it is sampled.
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Split(corpus, split) => Some(corpus.file(*split)),
            Self::File(path, ..) => Some(path.clone()),
            Self::Sampled(_) => None,
        }
    }

    /// Name for tables and provenance.
    pub fn name(&self, seed: u64) -> String {
        match self {
            Self::Split(corpus, split) => {
                let directory = corpus.directory();
                let corpus = directory.file_name().unwrap_or(directory.as_os_str());
                format!("{} {}", corpus.to_string_lossy(), split.name())
            }
            Self::File(path, _, split) => {
                let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                match split {
                    None => file.into(),
                    Some(Split::Train) => format!("{file}, first 80 %"),
                    Some(Split::Valid) => format!("{file}, 80 to 90 %"),
                    Some(Split::Test) => format!("{file}, last 10 %"),
                }
            }
            Self::Sampled(split) => format!("self-sampled {}, seed {seed}", split.name()),
        }
    }

    /// At most `limit` tokens from the middle of the text, so that different limits overlap; `None`
    /// for all of it. Sampled text needs a limit and defaults to 16,384.
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
        let lengths = |tokens: &[u32]| tokenizer.and_then(|tokenizer| tokenizer.lengths(tokens));
        let content = match self {
            Self::Sampled(split) => {
                let model = model.ok_or_else(|| {
                    Error::Usage(
                        "without a corpus, text is sampled from the FP32 model: name a checkpoint, \
                         --corpus or --text"
                            .into(),
                    )
                })?;
                let count = limit.unwrap_or(16_384).max(window + 1);
                let tokens = sample(model, count, split.seed(seed), progress)?;
                let bytes = lengths(&tokens);
                if model.config().chain == crate::checkpoint::Chain::Full {
                    let name = format!("random tokens {}, seed {seed}", split.name());
                    return Ok(Tokens { name, tokens, bytes, parts: None });
                }
                let length = stream_length(model);
                let starts = (0..count).step_by(length).collect();
                let parts = Some(Parts { part: Block::Stream, starts });
                return Ok(Tokens { name, tokens, bytes, parts });
            }
            Self::Split(corpus, split) => corpus.content(*split)?,
            Self::File(path, width, _) => Content::read(path, *width)?,
        };
        let mut found = match content {
            Content::Tokens(tokens) => {
                Tokens { name, bytes: lengths(&tokens), tokens, parts: None }
            }
            Content::Text(text) => {
                let tokenizer = tokenizer.ok_or_else(|| Error::TokenizerMissing {
                    text: self.path().map_or(name.clone(), |path| path.display().to_string()),
                })?;
                let Encoded { tokens, bytes } = tokenizer.encode_with_bytes(&text)?;
                let parts = parts(&text, &bytes);
                Tokens { name, tokens, bytes: Some(bytes), parts }
            }
        };
        if let Self::File(_, _, Some(split)) = self {
            let range = share(*split, found.tokens.len());
            found = found.cut(range);
        }
        let tokens = found.tokens.len();
        corpus::require_window(&found.name, tokens, window)?;
        if let Some(limit) = limit.filter(|&limit| limit < tokens) {
            let start = (tokens - limit) / 2;
            let length = limit.max(window + 1).min(tokens - start);
            found = found.cut(start..start + length);
        }
        Ok(found)
    }
}

/// The articles of a text, if there are several. `bytes` are those of its tokens.
fn parts(text: &str, bytes: &[u32]) -> Option<Parts> {
    let articles = articles(text);
    if articles.len() < 2 {
        return None;
    }
    let begins: Vec<usize> = bytes
        .iter()
        .scan(0, |end, &bytes| {
            let begin = *end;
            *end += bytes as usize;
            Some(begin)
        })
        .collect();
    // A token that straddles a boundary belongs to the article before.
    let first = |byte: usize| begins.partition_point(|&begin| begin < byte);
    Some(Parts { part: Block::Article, starts: articles.into_iter().map(first).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    fn tiny() -> (Model, Tokenizer) {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny");
        let checkpoint = Checkpoint::read(&models.join("model.safetensors")).unwrap();
        let tokenizer = Tokenizer::load(&models.join("tokenizer.json")).unwrap();
        (Model::from_checkpoint(&checkpoint), tokenizer)
    }

    #[test]
    fn what_a_model_writes_for_one_split_is_in_no_other() {
        let (model, _) = tiny();
        let sampled = |split, count, seed| {
            TextSource::Sampled(split)
                .tokens(Some(&model), None, Some(count), 64, seed, |_| {})
                .unwrap()
        };
        let train = sampled(Split::Train, 3000, 1);
        let starts = vec![0, 1024, 2048];
        assert_eq!(train.parts, Some(Parts { part: Block::Stream, starts }));
        assert_eq!(train, sampled(Split::Train, 3000, 1), "the same seed writes the same text");
        // A shorter sample is a prefix of a longer one of the same split only.
        assert_eq!(sampled(Split::Train, 500, 1).tokens[..], train.tokens[..500]);
        for (split, seed) in [(Split::Valid, 1), (Split::Test, 1), (Split::Train, 2)] {
            let other = sampled(split, 3000, seed);
            assert_ne!(other.name, train.name);
            let runs = |text: &Tokens| -> std::collections::HashSet<Vec<u32>> {
                text.tokens.windows(24).map(<[u32]>::to_vec).collect()
            };
            assert!(runs(&other).is_disjoint(&runs(&train)), "{split:?} {seed}");
        }
    }

    #[test]
    fn a_file_has_a_part_for_each_split_and_knows_its_articles() {
        let (_, tokenizer) = tiny();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("book.txt");
        let article = |i: usize| format!(" \n = Title {i} = \n \n{} \n", " some words".repeat(40));
        let text: String = (0..30).map(article).collect();
        std::fs::write(&path, &text).unwrap();
        let read = |split: Option<Split>, limit| {
            let source = TextSource::File(path.clone(), None, split);
            source.tokens(None, Some(&tokenizer), limit, 16, 1, |_| {}).unwrap()
        };
        let whole = read(None, None);
        assert_eq!(whole.name, "book.txt");
        let parts = [Split::Train, Split::Valid, Split::Test].map(|split| read(Some(split), None));
        assert_eq!(parts.each_ref().map(|p| &p.tokens[..]).concat(), whole.tokens);
        let found = whole.parts.clone().unwrap();
        assert_eq!((found.part, found.starts.len()), (Block::Article, 30));
        for (i, &start) in found.starts.iter().enumerate() {
            let rest =
                String::from_utf8(tokenizer.decode(&whole.tokens[start..]).unwrap()).unwrap();
            let title = format!("= Title {i} = ");
            assert!(rest.trim_start().starts_with(&title), "{i}: {:?}", &rest[..20]);
        }
        // Article boundaries stay correct in a cut from the middle.
        let (middle, start) = (read(None, Some(101)), (whole.tokens.len() - 101) / 2);
        assert_eq!(middle.tokens, whole.tokens[start..start + 101]);
        let inside = found.starts.iter().filter(|s| (start..start + 101).contains(s));
        let inside: Vec<usize> = inside.map(|s| s - start).collect();
        assert_eq!(middle.parts.map(|p| p.starts), Some(inside));
    }
}
