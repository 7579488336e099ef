//! Models that `train` and `finetune` distil from.

use std::path::{Path, PathBuf};

use resnet_bk_core as core;

use crate::checkpoint::{Chain, Checkpoint};
use crate::cli::Global;
use crate::cli::common::{Loaded, carried, is_blob, parse_blob};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::files::Content;
use crate::reference::{Ensemble, Model, Predicts};
use crate::tokenizer::Tokenizer;

/// A file of a teacher: a checkpoint, with its tokenizer beside it, or a blob, with its own.
pub(super) struct TeacherFile {
    path: PathBuf,
    content: Weights,
    sha256: String,
    tokenizer: Option<Tokenizer>,
}

enum Weights {
    Checkpoint(Box<Checkpoint>),
    Blob(Content),
}

impl TeacherFile {
    /// Reads every file.
    pub(super) fn read_all(paths: &[PathBuf], global: Global) -> Result<Vec<Self>> {
        paths.iter().map(|path| Self::read(path, global)).collect()
    }

    fn read(path: &Path, global: Global) -> Result<Self> {
        let bytes = Content::of(path)?;
        let path = path.to_path_buf();
        if is_blob(&bytes) {
            let tokenizer = carried(&parse_blob(&bytes, &path)?)?;
            return Ok(Self {
                path,
                sha256: sha256(&bytes),
                content: Weights::Blob(bytes),
                tokenizer,
            });
        }
        let loaded = Loaded::read(&path, None, global)?;
        let sha256 = loaded.sha256_hex();
        let content = Weights::Checkpoint(Box::new(loaded.checkpoint));
        Ok(Self { path, content, sha256, tokenizer: loaded.tokenizer })
    }

    /// Its tokenizer.
    pub(super) fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Refuses a tokenizer other than the student's. A blob without one is only known by size.
    fn check(&self, vocab: usize, student: &Student<'_>) -> Result<()> {
        let same = match (self.tokenizer(), student.tokenizer) {
            (Some(own), Some(wanted)) => own.is_same(wanted),
            (None, None) => true,
            (None, _) => matches!(self.content, Weights::Blob(_)),
            (Some(_), None) => false,
        };
        if vocab == student.vocab && same {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "{} has another tokenizer than the model: both must predict the same tokens",
            self.path.display()
        )))
    }
}

/// Who learns from teachers.
pub(super) struct Student<'a> {
    pub(super) vocab: usize,
    pub(super) tokenizer: Option<&'a Tokenizer>,
    /// Whether it is taught what it may see anyway: a whole window.
    pub(super) whole_windows: bool,
}

/// One or more models of the same tokenizer.
pub(super) struct Teachers<'a> {
    average: Ensemble<'a>,
    sha256: Vec<String>,
    /// The shortest table of positions, with its file.
    table: Option<(usize, &'a Path)>,
}

impl<'a> Teachers<'a> {
    /// The models of the files and, before them, the checkpoint of the student itself, if any, with
    /// its hash.
    pub(super) fn new(
        own: Option<(&'a Model, String)>,
        files: &'a [TeacherFile],
        student: &Student<'_>,
    ) -> Result<Self> {
        let (mut members, mut hashes) = (Vec::<Box<dyn Predicts + 'a>>::new(), Vec::new());
        if let Some((model, sha256)) = own {
            members.push(Box::new(model));
            hashes.push(sha256);
        }
        let mut table: Option<(usize, &Path)> = None;
        for file in files {
            let (member, full, positions): (Box<dyn Predicts + 'a>, _, _) = match &file.content {
                Weights::Checkpoint(checkpoint) => {
                    let config = &checkpoint.config;
                    let (full, positions) = (config.chain == Chain::Full, config.positions);
                    (Box::new(Model::from_checkpoint(checkpoint)), full, positions)
                }
                Weights::Blob(bytes) => {
                    let model = parse_blob(bytes, &file.path)?;
                    let full = model.dims().chain == core::blob::Chain::Full;
                    let positions = Some(model.dims().positions as usize).filter(|&n| n > 0);
                    (Box::new(model), full, positions)
                }
            };
            file.check(member.vocab(), student)?;
            if full && !student.whole_windows {
                return Err(Error::Usage(format!(
                    "{} has full chains and sees the tokens that it predicts: name a --teacher \
                     that was trained with --chain half",
                    file.path.display()
                )));
            }
            let found = positions.map(|positions| (positions, file.path.as_path()));
            table = table.into_iter().chain(found).min();
            members.push(member);
            hashes.push(file.sha256.clone());
        }
        Ok(Self { average: Ensemble::new(members), sha256: hashes, table })
    }

    /// Their average.
    pub(super) fn average(&self) -> &Ensemble<'a> {
        &self.average
    }

    /// Tokens of the longest window that all of them predict, of files with a table of positions.
    pub(super) fn longest(&self) -> Option<usize> {
        self.table.map(|(positions, _)| positions)
    }

    /// Refuses windows that are too long for a file.
    pub(super) fn fit(&self, window: usize) -> Result<()> {
        match self.table {
            Some((positions, path)) if window > positions => Err(Error::Usage(format!(
                "{} has a table of {positions} positions: choose a --window of at most {positions} \
                 tokens",
                path.display()
            ))),
            _ => Ok(()),
        }
    }

    /// SHA-256 of each file, by a name for the record of a run.
    pub(super) fn hashes(&self) -> impl Iterator<Item = (String, String)> {
        self.sha256.iter().enumerate().map(|(i, sha256)| match i {
            0 => ("teacher_sha256".to_owned(), sha256.clone()),
            _ => (format!("teacher_{}_sha256", i + 1), sha256.clone()),
        })
    }
}
