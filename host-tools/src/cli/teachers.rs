//! Checkpoints that `train` and `finetune` distil from.

use std::path::PathBuf;

use crate::cli::Global;
use crate::cli::common::Loaded;
use crate::error::{Error, Result};
use crate::reference::{Ensemble, Model};
use crate::tokenizer::Tokenizer;

/// One or more models of the same tokenizer.
pub(super) struct Teachers {
    models: Vec<Model>,
    sha256: Vec<String>,
}

impl Teachers {
    /// A checkpoint and others, which must predict the same tokens.
    pub(super) fn read(first: &Loaded, others: &[PathBuf], global: Global) -> Result<Self> {
        let (mut models, mut sha256) = (Vec::new(), Vec::new());
        let mut add = |loaded: &Loaded| {
            models.push(Model::from_checkpoint(&loaded.checkpoint));
            sha256.push(loaded.sha256_hex());
        };
        add(first);
        for path in others {
            let other = Loaded::read(path, None, global)?;
            let tokenizer = |of: &Loaded| of.tokenizer.as_ref().map(Tokenizer::sha256);
            let same_size = other.checkpoint.config.vocab == first.checkpoint.config.vocab;
            if !same_size || tokenizer(&other) != tokenizer(first) {
                return Err(Error::Usage(format!(
                    "{} has another tokenizer: teachers must predict the same tokens",
                    path.display()
                )));
            }
            add(&other);
        }
        Ok(Self { models, sha256 })
    }

    /// The first model.
    pub(super) fn first(&self) -> &Model {
        &self.models[0]
    }

    /// All models.
    pub(super) fn models(&self) -> &[Model] {
        &self.models
    }

    /// Their average.
    pub(super) fn ensemble(&self) -> Ensemble<'_> {
        Ensemble::new(&self.models)
    }

    /// SHA-256 of each checkpoint, by a name for the record of a run.
    pub(super) fn hashes(&self) -> impl Iterator<Item = (String, String)> {
        self.sha256.iter().enumerate().map(|(i, sha256)| match i {
            0 => ("teacher_sha256".to_owned(), sha256.clone()),
            _ => (format!("teacher_{}_sha256", i + 1), sha256.clone()),
        })
    }
}
