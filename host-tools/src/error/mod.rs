//! What can go wrong, in words: each error says what happened ([`std::fmt::Display`]) and what to
//! do about it ([`Error::help`]).

mod help;

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
    /// A file of one kind where another kind is wanted.
    #[error("{} is {found}, but {wanted} is wanted here", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// What it is, with its article.
        found: &'static str,
        /// What it should be, with its article.
        wanted: &'static str,
        /// What to do about it.
        remedy: &'static str,
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
    /// Windows that are longer than the model can see.
    #[error("a window of {window} tokens is longer than the model's position table of {positions}")]
    Window {
        /// The length that was asked for.
        window: usize,
        /// Length of the position table.
        positions: usize,
    },
    /// The tokenizer could not be trained or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A tokenizer file that does not follow the rules that a device follows.
    #[error("cannot use the tokenizer {}:{}", path.display(), list(problems))]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it, by name.
        problems: Vec<String>,
    },
    /// A tokenizer other than the one that a model was trained with.
    #[error(
        "{tokenizer} is not the tokenizer of {model}: its SHA-256 is {found}, that of the model's \
         is {expected}"
    )]
    TokenizerMismatch {
        /// What the tokenizer is, in words.
        tokenizer: String,
        /// Its hash.
        found: String,
        /// The model, in words.
        model: String,
        /// The hash of the tokenizer that the model was trained with.
        expected: String,
    },
    /// A token that a model does not have.
    #[error("the text has token {token}, but the model only {vocab} tokens")]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// The size of the model's vocabulary.
        vocab: usize,
    },
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
    /// A model computes infinities or NaNs, or a statistic of what it computes is one.
    #[error("{what} computes numbers that are not finite on {text}")]
    Overflow {
        /// The first layer in the order of inference, or the model.
        what: String,
        /// Which text.
        text: &'static str,
    },
    /// Second moments of a layer's inputs that no damping makes positive definite.
    #[error("the second moments of the inputs of `{tensor}` cannot be inverted")]
    Singular {
        /// The tensor that was to be quantized.
        tensor: String,
    },
    /// A blob file that the integer core refused.
    #[error("{}: {error}", path.display())]
    BlobFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: resnet_bk_core::Error,
    },
    /// The integer core refused, or the FP32 model for the same reason.
    #[error("{0}")]
    Blob(resnet_bk_core::Error),
    /// Standard output was closed, or cannot be written to.
    #[error("cannot write to standard output: {0}")]
    Stdout(std::io::Error),
    /// A wrong argument, found after the command line was parsed.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Whether the command line is wrong, rather than what it names.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::Window { .. })
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
