//! Errors, each with a message ([`std::fmt::Display`]) and a remedy ([`Error::help`]).

mod help;

use std::path::{Path, PathBuf};

/// Result of fallible functions in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What failed: "read", "write", "create", "remove", "lock".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason given by the operating system.
        source: std::io::Error,
    },
    /// A file of the wrong kind.
    #[error("{} is {found}, but {wanted} is needed here", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// Its kind, with article.
        found: &'static str,
        /// The required kind, with article.
        wanted: &'static str,
        /// The remedy.
        remedy: &'static str,
    },
    /// An output would replace a protected file.
    #[error("{} would be replaced, but {reason}", path.display())]
    Overwrite {
        /// The output.
        path: PathBuf,
        /// What is there.
        reason: String,
    },
    /// Another process is writing to the same place.
    #[error("another run{} holds {}", of(*process), path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
        /// Its process id, if known.
        process: Option<u32>,
    },
    /// A model is too large for the memory that a command may take.
    #[error("`{name}` of this model holds at least {:.1} GB, more than --memory allows, {:.1} GB",
            *needed as f64 / 1e9, *limit as f64 / 1e9)]
    Memory {
        /// The command.
        name: &'static str,
        /// Bytes that it needs in any case.
        needed: u64,
        /// Bytes that it may take.
        limit: u64,
    },
    /// The importance file does not exist. Measuring takes minutes, so it is not done implicitly.
    #[error("there is no importance file {}", .0.display())]
    ImportanceMissing(PathBuf),
    /// A table was measured with settings that differ from the current ones.
    #[error("{} was measured with other steps or another calibration:{}", path.display(),
            list(differences))]
    OtherSettings {
        /// The importance file.
        path: PathBuf,
        /// One line per setting that differs.
        differences: Vec<String>,
    },
    /// A file does not have the expected format.
    #[error("{} is not a valid {kind}: {reason}", path.display())]
    Format {
        /// The expected kind.
        kind: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tensors of a checkpoint do not match its configuration.
    #[error("the tensors do not match the model's configuration:{}", list(.0))]
    Tensors(Vec<String>),
    /// No mix of precisions meets the target.
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
    /// Invalid model dimensions.
    #[error("invalid model dimensions: {0}")]
    Config(String),
    /// A foreign checkpoint is not a model that can be imported.
    #[error("cannot import {}:{}", path.display(), list(problems))]
    Import {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<String>,
        /// The remedy.
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
    /// A text file is empty.
    #[error("{} is empty", .0.display())]
    TextEmpty(PathBuf),
    /// A text file is not UTF-8.
    #[error("{} is not UTF-8: invalid byte at offset {offset}", path.display())]
    TextNotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first invalid byte.
        offset: usize,
    },
    /// A file of token ids cannot be used.
    #[error("cannot take tokens from {}: {reason}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The remedy.
        remedy: String,
    },
    /// A text cannot be encoded, because there is no tokenizer.
    #[error("{text} has to be encoded, but no tokenizer was given")]
    TokenizerMissing {
        /// The text.
        text: String,
    },
    /// A text is shorter than one window.
    #[error("{what} has {tokens} tokens, but one window needs {needed}")]
    TextShort {
        /// Which text.
        what: String,
        /// Its length in tokens.
        tokens: usize,
        /// The shortest usable length.
        needed: usize,
    },
    /// Windows are longer than the position table.
    #[error("a window of {window} tokens is longer than the model's position table of {positions}")]
    Window {
        /// The requested length.
        window: usize,
        /// Length of the position table.
        positions: usize,
    },
    /// The tokenizer could not be trained or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A file is no tokenizer.
    #[error("cannot use the tokenizer {}:{}", path.display(), list(problems))]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it, by name.
        problems: Vec<String>,
        /// The remedy.
        remedy: String,
    },
    /// A tokenizer that a blob cannot hold.
    #[error("no blob can hold the tokenizer: {0}")]
    TokenizerOnDevice(String),
    /// A tokenizer other than the one that a model was trained with.
    #[error(
        "{tokenizer} is not the tokenizer of {model}: its SHA-256 is {found}, but that of the \
         model's tokenizer is {expected}"
    )]
    TokenizerMismatch {
        /// Description of the tokenizer.
        tokenizer: String,
        /// Its SHA-256.
        found: String,
        /// Description of the model.
        model: String,
        /// SHA-256 of the model's tokenizer.
        expected: String,
    },
    /// A token outside the model's vocabulary.
    #[error("the text has token {token}, but the model has only {vocab} tokens")]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
    /// A run was resumed with settings other than its own.
    #[error("{} belongs to another training run:{}", path.display(), list(differences))]
    ResumeMismatch {
        /// The state file.
        path: PathBuf,
        /// One line per setting that differs.
        differences: Vec<String>,
    },
    /// Training produced a non-finite loss.
    #[error("the training loss became {loss} at step {step}")]
    Diverged {
        /// Step of the first such loss.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A policy is invalid or does not fit the model.
    #[error("{0}")]
    Policy(String),
    /// The blob format cannot represent the model.
    #[error("cannot quantize: {0}")]
    Quantize(String),
    /// A weight exceeds the range of its precision.
    #[error("tensor `{tensor}` has values too large for {precision}")]
    WeightTooLarge {
        /// The tensor.
        tensor: String,
        /// The precision.
        precision: &'static str,
    },
    /// A model computes infinities or NaNs, or its statistics overflow.
    #[error("{what} produces values that are not finite on {text}")]
    Overflow {
        /// The first layer in order of inference, or the model.
        what: String,
        /// Which text.
        text: &'static str,
    },
    /// No damping makes a layer's second moments positive definite.
    #[error("the second moments of the inputs of `{tensor}` cannot be inverted")]
    Singular {
        /// The tensor that was to be quantized.
        tensor: String,
    },
    /// The integer core rejected a blob file.
    #[error("{}: {error}", path.display())]
    BlobFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: resnet_bk_core::Error,
    },
    /// The integer core failed, or the FP32 model for the same reason.
    #[error("{0}")]
    Blob(resnet_bk_core::Error),
    /// What was compressed does not come back.
    #[error("the compressed text does not give the text back; nothing was written")]
    Irreversible,
    /// Parts of a compressed text cannot be read.
    #[error("{} is damaged:{}", path.display(), list(lost))]
    Damaged {
        /// The compressed text.
        path: PathBuf,
        /// What is lost, a line each.
        lost: Vec<String>,
        /// Whether everything else was written.
        salvaged: bool,
    },
    /// Standard output was closed or cannot be written to.
    #[error("cannot write to standard output: {0}")]
    Stdout(std::io::Error),
    /// An invalid argument, found after parsing the command line.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Whether the command line itself is wrong, rather than a file that it names.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_) | Self::Window { .. })
    }

    /// An I/O error of `action` on `path`.
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
