//! What can go wrong, in words: each error says what happened ([`std::fmt::Display`]) and what to do
//! about it ([`Error::help`]).

use std::path::{Path, PathBuf};

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong outside the integer core.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried: "read", "write", "create", "remove", "lock".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason the operating system gave.
        source: std::io::Error,
    },
    /// An output would replace what must stay.
    #[error("{} would be replaced, but {reason}", path.display())]
    Overwrite {
        /// The output.
        path: PathBuf,
        /// What is there.
        reason: String,
    },
    /// Another process writes to the same place.
    #[error("another run{} holds {}", of(*process), path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
        /// The other process, where it is known.
        process: Option<u32>,
    },
    /// An importance file that is not there. Measuring one takes minutes, so none is made unasked.
    #[error("there is no importance file {}", .0.display())]
    ImportanceMissing(PathBuf),
    /// A table was measured with other settings than those that it would now be used or extended
    /// with.
    #[error("{} was measured with other steps or another calibration:{}", path.display(),
            list(differences))]
    OtherSettings {
        /// The importance file.
        path: PathBuf,
        /// One line per setting that differs.
        differences: Vec<String>,
    },
    /// A file is not what its name or position promises.
    #[error("{} is not a valid {kind}: {reason}", path.display())]
    Format {
        /// What the file should have been.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tensors of a checkpoint are not the ones that its configuration calls for.
    #[error("the tensors do not match the model's configuration:{}", list(.0))]
    Tensors(Vec<String>),
    /// A target that no mix of precisions meets.
    #[error("{0}")]
    Budget(String),
    /// A weight is NaN or infinite.
    #[error("tensor `{tensor}` holds {value} at index {index}")]
    NotFinite {
        /// Name of the tensor.
        tensor: String,
        /// Row-major index of the first such weight.
        index: usize,
        /// The weight.
        value: f32,
    },
    /// Model dimensions that no model can have.
    #[error("impossible model dimensions: {0}")]
    Config(String),
    /// A checkpoint of another program is not one of the models that can be imported.
    #[error("cannot import {}:{}", path.display(), list(problems))]
    Import {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<String>,
        /// What to do about it.
        remedy: String,
    },
    /// No corpus directory was named.
    #[error("no corpus directory was given")]
    CorpusMissing,
    /// The corpus directory has no file for a split.
    #[error("the corpus directory {} has no `{split}.txt`", directory.display())]
    SplitMissing {
        /// The directory.
        directory: PathBuf,
        /// The split: `train`, `valid` or `test`.
        split: String,
    },
    /// A text file holds nothing.
    #[error("{} is empty", .0.display())]
    TextEmpty(PathBuf),
    /// A text file is not UTF-8.
    #[error("{} is not UTF-8: invalid byte at offset {offset}", path.display())]
    TextNotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte that does not belong to a UTF-8 sequence.
        offset: usize,
    },
    /// A text is too short to cut a single window from.
    #[error("{what} has {tokens} tokens, but one window needs {needed}")]
    TextShort {
        /// Which text.
        what: String,
        /// Its length in tokens.
        tokens: usize,
        /// The shortest usable length.
        needed: usize,
    },
    /// The tokenizer could not be trained or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A training run was resumed with other settings than it was started with.
    #[error("{} belongs to another training run:{}", path.display(), list(differences))]
    ResumeMismatch {
        /// The state file.
        path: PathBuf,
        /// One line per setting that differs.
        differences: Vec<String>,
    },
    /// Training produced a loss that is not a number.
    #[error("the training loss became {loss} at step {step}")]
    Diverged {
        /// Step of the first such loss.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A policy that cannot be read or does not fit the model.
    #[error("{0}")]
    Policy(String),
    /// A model that the blob format cannot hold.
    #[error("cannot quantize: {0}")]
    Quantize(String),
    /// A weight beyond what a precision can represent.
    #[error("tensor `{tensor}` has values too large for {precision}")]
    WeightTooLarge {
        /// The tensor.
        tensor: String,
        /// The precision.
        precision: &'static str,
    },
    /// A blob file that the integer core refused.
    #[error("{}: {error}", path.display())]
    BlobFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: resnet_bk_core::Error,
    },
    /// The integer core refused.
    #[error("{0}")]
    Blob(resnet_bk_core::Error),
    /// A wrong argument, found after the command line was parsed.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// What the user can do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Io { action: "read", .. } => {
                "check that the path is spelled correctly and that you may read it".into()
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "the disk is full; free some space or write elsewhere (nothing was left half written)"
                    .into()
            }
            Self::Io { .. } => "check that the directory exists and that you may write to it".into(),
            Self::Overwrite { .. } => {
                "name another file or directory, or add --force to replace what is there".into()
            }
            Self::ImportanceMissing(path) => format!(
                "check that the path is spelled correctly, or write the file with \
                 `resnet-bk analyze MODEL --out {}`",
                path.display()
            ),
            Self::Busy { .. } => "wait until it has ended, or choose another --out".into(),
            Self::OtherSettings { .. } => {
                "repeat those settings, name another file, or begin it anew with `analyze --force`"
                    .into()
            }
            Self::Format { kind, .. } => {
                format!("pass a {kind} that this tool wrote, or write the file again")
            }
            Self::Tensors(_) => {
                "the checkpoint was written for other dimensions or is damaged; export it again \
                 or import it with the matching flags"
                    .into()
            }
            Self::NotFinite { .. } => {
                "the training that wrote it diverged; use an earlier checkpoint or train with a \
                 lower learning rate"
                    .into()
            }
            Self::Config(_) => "correct the dimension that the message names".into(),
            Self::Import { remedy, .. } => remedy.clone(),
            Self::CorpusMissing => {
                "pass --corpus DIR or set WIKITEXT2_DIR to a directory with train.txt, valid.txt \
                 and test.txt"
                    .into()
            }
            Self::SplitMissing { split, .. } => {
                format!("add a UTF-8 text file `{split}.txt` to that directory or name another")
            }
            Self::TextEmpty(_) => "put text into the file or name another".into(),
            Self::TextNotUtf8 { .. } => {
                "convert the file to UTF-8, for example with `iconv -t UTF-8`".into()
            }
            Self::TextShort { .. } => "use a longer text or a shorter --window".into(),
            Self::Tokenizer(_) => {
                "train a tokenizer with this tool, or pass the tokenizer.json that the model was \
                 trained with"
                    .into()
            }
            Self::ResumeMismatch { .. } => {
                "repeat the original settings to resume, choose another --out, or add --force to \
                 begin anew"
                    .into()
            }
            Self::Diverged { .. } => {
                "train again with a lower --lr or a longer --warmup".into()
            }
            Self::Policy(_) => {
                "see `resnet-bk quantize --help` for the policies and the form of policy files".into()
            }
            Self::Budget(_) => "ask for less, or train a smaller model".into(),
            Self::Quantize(_) => {
                "the blob format's limits are in docs/format.md; retrain within them".into()
            }
            Self::WeightTooLarge { .. } => {
                "give the tensor another precision with a policy file, or check the checkpoint".into()
            }
            Self::Blob(_) | Self::BlobFile { .. } => {
                "quantize the checkpoint again, and copy or flash the blob whole".into()
            }
            Self::Usage(_) => "see --help".into(),
        }
    }

    /// The operating system's refusal to do `action` to `path`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

fn of(process: Option<u32>) -> String {
    process.map_or_else(String::new, |process| format!(" (process {process})"))
}

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  - {line}")).collect()
}
