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
    /// What the user can do about it.
    pub fn help(&self) -> String {
        match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::IsADirectory => {
                "name a file, not a directory".into()
            }
            Self::Io { action: "read", .. } => {
                "check that the path is spelled correctly and that you may read it".into()
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "the disk is full; free some space or write elsewhere (nothing was left half written)"
                    .into()
            }
            Self::Io { .. } => "check that the directory exists and that you may write to it".into(),
            Self::WrongKind { remedy, .. } => (*remedy).into(),
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
            Self::Format { kind, .. } => format_help(kind).into(),
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
            Self::Window { positions, .. } => {
                format!("name a --window of at most {positions}, or none")
            }
            Self::Tokenizer(_) => {
                "train a tokenizer with this tool, or pass the tokenizer.json that the model was \
                 trained with"
                    .into()
            }
            Self::TokenizerFile { .. } => {
                "pass the tokenizer.json that `resnet-bk train` wrote; one of another program can \
                 be used only if it has these values and does without the rest"
                    .into()
            }
            Self::TokenizerMismatch { expected, .. } => format!(
                "pass the tokenizer.json that the model was trained with (--tokenizer), of which \
                 `sha256sum` begins with {}; a blob that carries its tokenizer needs none",
                expected.get(..12).unwrap_or(expected)
            ),
            Self::TokenOutOfRange { .. } => {
                "cut the text into tokens with the model's own tokenizer".into()
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
            Self::Budget(_) => {
                "allow more bytes or a larger --max-kl, or train another model".into()
            }
            Self::Quantize(_) => {
                "the blob format's limits are in docs/format.md; retrain within them".into()
            }
            Self::WeightTooLarge { .. } => {
                "give the tensor another precision with a policy file, or check the checkpoint".into()
            }
            Self::Overflow { .. } => {
                "its weights, or those of a layer before it, are too large for FP32: check the \
                 checkpoint with `resnet-bk inspect`, or use an earlier one"
                    .into()
            }
            Self::Singular { .. } => {
                "calibrate on more text (--calibration-tokens), or leave second moments out with \
                 --without gptq,descent,refit"
                    .into()
            }
            Self::Blob(error) | Self::BlobFile { error, .. } => core_help(error).into(),
            Self::Stdout(_) => {
                "free some space or send the output elsewhere; files that the command writes are whole"
                    .into()
            }
            Self::Usage(_) => {
                "change what the message names; `resnet-bk COMMAND --help` explains every flag".into()
            }
        }
    }

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

/// What to do about a file that is not of this kind.
fn format_help(kind: &str) -> &'static str {
    match kind {
        "checkpoint" => "pass a model.safetensors that `resnet-bk train` or `import` wrote",
        "safetensors file" => "it is damaged or of another kind: copy or export it again, whole",
        "tokenizer" => "pass the tokenizer.json that the model was trained with",
        "training state" => "remove it to begin again, or restore it from a copy",
        "frontier" => "pass the frontier.json that `cargo xtask frontier` wrote",
        kind if kind.starts_with("importance file") => {
            "write it again with `resnet-bk analyze`, or name another"
        }
        _ => "write it again with the command that it comes from, or name another",
    }
}

/// What to do about something that the integer core refuses.
fn core_help(error: &resnet_bk_core::Error) -> &'static str {
    use resnet_bk_core::Error as Core;
    match error {
        Core::NotABlob => "pass a blob that `resnet-bk quantize` wrote",
        Core::Version { .. } => "quantize the checkpoint again with this version of the tool",
        Core::Truncated { .. } | Core::TrailingBytes { .. } | Core::Checksum { .. } => {
            "copy or flash the blob again, whole; if that does not help, quantize again"
        }
        Core::Dimension { .. } | Core::OffDiagonal { .. } | Core::TokenizerText { .. } => {
            "the blob format's limits are in docs/format.md; train a model within them"
        }
        Core::NoTokenizer => "pass --tokenizer FILE, or quantize again without --no-tokenizer",
        Core::Token { .. } => "pass the tokenizer.json that the model was trained with",
        Core::EndOfPositions { .. } => {
            "ask for fewer --tokens or give a shorter --prompt: the model ends with its position table"
        }
        Core::NotCausal => "score it with `resnet-bk eval`, or train with --chain half to generate",
        Core::EmptyWindow => "give a text of at least one token",
        Core::Memory { .. } | Core::Buffer { .. } => {
            "choose a shorter --window, or a machine with more memory"
        }
        Core::TopK { .. } => "choose a smaller --top-k, or 0 for all tokens",
        Core::TopP => "choose a --top-p above 0 and at most 1",
        Core::Temperature => "choose a --temperature of 0 (greedy) or a positive number",
        _ => "quantize the checkpoint again, and copy or flash the blob whole",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use resnet_bk_core::Error as Core;

    fn io(action: &'static str, kind: std::io::ErrorKind) -> Error {
        Error::io(action, Path::new("x"))(kind.into())
    }

    fn format(kind: &'static str) -> Error {
        Error::Format { kind, path: "x".into(), reason: "reason".into() }
    }

    /// Each error with a word that its remedy needs.
    #[test]
    fn every_remedy_fits_its_cause() {
        use std::io::ErrorKind::{IsADirectory, NotFound, StorageFull};
        let text = || "x".to_string();
        let path = || PathBuf::from("x");
        let blob = Error::Blob;
        let cases = [
            (io("read", NotFound), "spelled"),
            (io("read", IsADirectory), "not a directory"),
            (io("write", StorageFull), "free some space"),
            (io("write", NotFound), "directory exists"),
            (
                Error::WrongKind { path: path(), found: "a", wanted: "b", remedy: "swap them" },
                "swap them",
            ),
            (format("checkpoint"), "`resnet-bk train`"),
            (format("safetensors file"), "again, whole"),
            (format("tokenizer"), "tokenizer.json"),
            (format("training state"), "begin again"),
            (format("frontier"), "cargo xtask frontier"),
            (format("importance file"), "resnet-bk analyze"),
            (format("importance file for this target"), "resnet-bk analyze"),
            (format("something else"), "write it again"),
            (Error::Tensors(vec![]), "export it again"),
            (Error::Budget(text()), "more bytes or a larger --max-kl"),
            (Error::NotFinite { tensor: text(), index: 0, value: f32::NAN }, "diverged"),
            (Error::Config(text()), "dimension"),
            (Error::Import { path: path(), problems: vec![], remedy: "this".into() }, "this"),
            (Error::CorpusMissing, "--corpus DIR"),
            (Error::SplitMissing { directory: path(), split: "valid".into() }, "`valid.txt`"),
            (Error::TextEmpty(path()), "put text"),
            (Error::TextNotUtf8 { path: path(), offset: 0 }, "UTF-8"),
            (Error::TextShort { what: text(), tokens: 1, needed: 2 }, "longer text"),
            (Error::Window { window: 128, positions: 64 }, "--window of at most 64"),
            (Error::Tokenizer(text()), "tokenizer.json"),
            (Error::ResumeMismatch { path: path(), differences: vec![] }, "new --out"),
            (Error::Diverged { step: 1, loss: f64::NAN }, "lower --lr"),
            (Error::Policy(text()), "policies"),
            (Error::Quantize(text()), "docs/format.md"),
            (Error::WeightTooLarge { tensor: text(), precision: "fp16" }, "another precision"),
            (Error::Stdout(std::io::ErrorKind::StorageFull.into()), "elsewhere"),
            (Error::Usage(text()), "--help"),
            (blob(Core::NotABlob), "a blob that `resnet-bk quantize` wrote"),
            (blob(Core::Version { found: 9, supported: 2 }), "this version"),
            (blob(Core::Truncated { needed: 2, given: 1 }), "whole"),
            (blob(Core::TrailingBytes { expected: 1, given: 2 }), "whole"),
            (blob(Core::Checksum { stored: 1, computed: 2 }), "whole"),
            (blob(Core::Header), "quantize the checkpoint again"),
            (blob(Core::ChainSection), "quantize the checkpoint again"),
            (blob(Core::Dimension { name: "width", value: 0, limit: 1 }), "docs/format.md"),
            (blob(Core::NoTokenizer), "--tokenizer FILE"),
            (blob(Core::Token { token: 9, vocab: 8 }), "tokenizer.json"),
            (blob(Core::EndOfPositions { positions: 64 }), "fewer --tokens"),
            (blob(Core::NotCausal), "--chain half"),
            (blob(Core::EmptyWindow), "at least one token"),
            (blob(Core::Memory { needed: 2, given: 1 }), "more memory"),
            (blob(Core::Buffer { needed: 2, given: 1 }), "more memory"),
            (blob(Core::TopK { asked: 100, limit: 64 }), "--top-k"),
            (blob(Core::Temperature), "--temperature"),
            (blob(Core::TopP), "--top-p"),
            (blob(Core::OffDiagonal { found: u32::MAX, limit: 1 }), "docs/format.md"),
            (blob(Core::TokenizerText { limit: 1 }), "docs/format.md"),
            (Error::Overflow { what: text(), text: "x" }, "an earlier one"),
            (Error::Singular { tensor: text() }, "--calibration-tokens"),
            (Error::BlobFile { path: path(), error: Core::NotABlob }, "resnet-bk quantize"),
        ];
        for (error, word) in cases {
            assert!(error.help().contains(word), "{error:?}: {}", error.help());
        }
    }
}
