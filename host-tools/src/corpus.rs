//! Text for training and evaluation.

use crate::error::{Error, Result};
use crate::files;
use crate::token_file::{self, TokenType};
use std::path::{Path, PathBuf};

/// Environment variable with the default corpus directory.
pub const DIRECTORY_VARIABLE: &str = "WIKITEXT2_DIR";

/// Split of a corpus, stored as `train.txt`, `valid.txt` and `test.txt`, or as tokens in files of
/// the same names with another ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// For training and calibration.
    Train,
    /// For choosing settings.
    Valid,
    /// For reporting results.
    Test,
}

impl Split {
    /// `train`, `valid` or `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }

    /// Seed for sampling this split, derived from `seed` so that splits are independent (output
    /// function of SplitMix64; Steele, Lea and Flood, 2014).
    pub fn seed(self, seed: u64) -> u64 {
        let step = self as u64 + 1;
        let mut mixed = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// What a file has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Text, for a tokenizer.
    Text(String),
    /// Tokens.
    Tokens(Vec<u32>),
}

impl Content {
    /// Reads a file: token ids if its name ends like those of [`crate::token_file`], otherwise
    /// text. `width` is that of tokens in a file that does not say so.
    pub fn read(path: &Path, width: Option<TokenType>) -> Result<Self> {
        match token_file::is_token_file(path) {
            true => token_file::read(path, width).map(Self::Tokens),
            false => read_text(path).map(Self::Text),
        }
    }
}

/// A directory of files, one for each split.
#[derive(Clone, Debug, PartialEq)]
pub struct Corpus {
    directory: PathBuf,
    width: Option<TokenType>,
}

impl Corpus {
    /// The corpus in `directory`, by default the one named by `WIKITEXT2_DIR`.
    pub fn find(directory: Option<&Path>) -> Result<Self> {
        let named = directory.map(Path::to_path_buf);
        let variable = || std::env::var_os(DIRECTORY_VARIABLE).filter(|v| !v.is_empty());
        let directory = named.or_else(|| variable().map(PathBuf::from));
        let directory = directory.ok_or(Error::CorpusMissing)?;
        // Checked here, so that a missing directory gets its own message.
        std::fs::read_dir(&directory).map_err(Error::io("read", &directory))?;
        Ok(Self { directory, width: None })
    }

    /// The same with tokens of this width in files that do not say so.
    pub fn with_token_type(self, width: Option<TokenType>) -> Self {
        Self { width, ..self }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Path of a split's file, which may not exist: text if there is one, otherwise tokens.
    pub fn file(&self, split: Split) -> PathBuf {
        let named = |extension| self.directory.join(split.name()).with_extension(extension);
        let tokens = || token_file::EXTENSIONS.into_iter().map(named).find(|path| path.exists());
        let text = named("txt");
        if text.exists() { text } else { tokens().unwrap_or(text) }
    }

    /// The text or the tokens of a split.
    pub fn content(&self, split: Split) -> Result<Content> {
        let path = self.file(split);
        if !path.exists() {
            let (directory, split) = (self.directory.clone(), split.name().to_string());
            return Err(Error::SplitMissing { directory, split });
        }
        Content::read(&path, self.width)
    }

    /// The text of a split.
    pub fn text(&self, split: Split) -> Result<String> {
        match self.content(split)? {
            Content::Text(text) => Ok(text),
            Content::Tokens(_) => Err(Error::TokenFile {
                path: self.file(split),
                reason: "text is needed here".into(),
                remedy: format!("put a UTF-8 text `{}.txt` beside it", split.name()),
            }),
        }
    }
}

/// Reads a text file; fails if it is empty or not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let text = files::read_text(path)?;
    if text.is_empty() { Err(Error::TextEmpty(path.to_path_buf())) } else { Ok(text) }
}

/// Fails unless a text of `tokens` tokens holds a window of `window` tokens and the token after it.
pub fn require_window(what: &str, tokens: usize, window: usize) -> Result<()> {
    if tokens > window {
        Ok(())
    } else {
        Err(Error::TextShort { what: what.into(), tokens, needed: window + 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn splits_have_seeds_of_their_own() {
        // SplitMix64 from state 0: the first three outputs.
        let seeds = [Split::Train, Split::Valid, Split::Test].map(|split| split.seed(0));
        let expected = [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        assert_eq!(seeds, expected);
    }

    #[test]
    fn every_way_to_fail_has_its_own_message() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("nowhere");
        let error = Corpus::find(Some(&missing)).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
        let corpus = Corpus::find(Some(directory.path())).unwrap();
        let error = corpus.text(Split::Valid).unwrap_err();
        assert!(error.to_string().contains("valid.txt"), "{error}");
        fs::write(directory.path().join("train.txt"), "").unwrap();
        assert!(matches!(corpus.text(Split::Train), Err(Error::TextEmpty(_))));
        fs::write(directory.path().join("train.txt"), b"ab\xc3").unwrap();
        let error = corpus.text(Split::Train).unwrap_err();
        assert!(matches!(error, Error::TextNotUtf8 { offset: 2, .. }), "{error}");
        fs::write(directory.path().join("train.txt"), "text").unwrap();
        assert_eq!(corpus.text(Split::Train).unwrap(), "text");
        // Tokens stand in where there is no text.
        for split in ["train", "valid"] {
            fs::write(directory.path().join(split).with_extension("u16"), [1, 0, 2, 0]).unwrap();
        }
        assert_eq!(corpus.content(Split::Train).unwrap(), Content::Text("text".into()));
        assert_eq!(corpus.content(Split::Valid).unwrap(), Content::Tokens(vec![1, 2]));
        let error = corpus.text(Split::Valid).unwrap_err();
        assert!(error.to_string().contains("valid.u16") && error.help().contains("valid.txt"));
        fs::write(directory.path().join("test.bin"), [1, 0, 2, 0]).unwrap();
        assert!(corpus.content(Split::Test).is_err(), "nothing says how wide tokens are");
        let wide = corpus.with_token_type(Some(TokenType::U32));
        assert_eq!(wide.content(Split::Test).unwrap(), Content::Tokens(vec![131_073]));
        assert!(require_window("train", 129, 128).is_ok());
        let error = require_window("train", 128, 128).unwrap_err();
        assert!(error.to_string().contains("129"), "{error}");
    }
}
