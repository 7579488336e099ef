//! Shared by several subcommands: loading models, progress, tables.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use resnet_bk_core as core;
use resnet_bk_core::tokenizer::Rule;
use resnet_bk_schema::Steps;
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use crate::checkpoint::{Checkpoint, TOKENIZER_KEY};
use crate::cli::Global;
use crate::cli::numbers;
pub(crate) use crate::cli::progress::{bar, set};
use crate::corpus::{Corpus, Split};
pub(crate) use crate::digest::hex;
use crate::error::{Error, Result};
use crate::eval::text::{TextSource, Tokens};
use crate::files::Content;
use crate::importance::{Importance, Settings, Text};
use crate::output::{Output, Plan};
use crate::quantize::Source;
use crate::quantize::calibration::Calibration;
use crate::reference::Model;
use crate::terminal::{Stderr, Stdout};
use crate::token_file::TokenType;
use crate::tokenizer::Tokenizer;

/// A checkpoint file, its hash and its tokenizer.
pub(crate) struct Loaded {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

impl Loaded {
    /// Reads a checkpoint and its tokenizer: the given file, otherwise the `tokenizer.json` beside
    /// the checkpoint, if any. It must be the one that the model was trained with; if the
    /// checkpoint does not record it, a note is printed.
    pub(crate) fn read(path: &Path, tokenizer: Option<&Path>, global: Global) -> Result<Self> {
        let bytes = Content::of(path)?;
        let checkpoint = Checkpoint::from_bytes(&bytes, path)?;
        let beside = path.with_file_name("tokenizer.json");
        let file = tokenizer.or_else(|| beside.exists().then_some(beside.as_path()));
        let tokenizer = file.map(Tokenizer::load).transpose()?;
        if let (Some(tokenizer), Some(file)) = (&tokenizer, file) {
            let recorded = checkpoint.provenance.get(TOKENIZER_KEY).map(String::as_str);
            let (name, model) = (file.display().to_string(), path.display().to_string());
            tokenizer.belongs_to(&name, &model, checkpoint.config.vocab, recorded)?;
            if recorded.is_none() {
                let remark = "does not record the tokenizer that it was trained with";
                note(global, &format!("{model} {remark}; {name} is assumed to be that one"));
            }
            let more = checkpoint.config.vocab - tokenizer.vocab();
            if more > 0 {
                note(global, &format!("{model} has {more} tokens that {name} does not have"));
            }
        }
        let sha256 = Sha256::digest(&*bytes).into();
        Ok(Self { checkpoint, tokenizer, bytes: bytes.len() as u64, sha256 })
    }

    /// SHA-256 of the file in hexadecimal.
    pub(crate) fn sha256_hex(&self) -> String {
        hex(&self.sha256)
    }

    /// The checkpoint prepared for quantization, without a tokenizer.
    pub(crate) fn source(&self) -> Result<Source> {
        Source::new(&self.checkpoint, self.sha256, self.bytes, None)
    }

    /// The checkpoint prepared for quantization, with its tokenizer if a blob can hold that.
    pub(crate) fn source_with_tokenizer(&self, global: Global) -> Result<Source> {
        let section = match self.tokenizer.as_ref().map(Tokenizer::section).transpose() {
            Err(error @ Error::TokenizerOnDevice(_)) => {
                note(global, &format!("the blob gets no tokenizer: {error}"));
                None
            }
            section => section?,
        };
        let only_decodes = self.tokenizer.as_ref().and_then(Tokenizer::only_decodes);
        if let (Some(_), Some(reason)) = (&section, only_decodes) {
            note(global, &format!("on a device the blob's tokenizer only decodes: {reason}"));
        }
        Source::new(&self.checkpoint, self.sha256, self.bytes, section)
    }

    /// Settings of importance computed on this calibration text.
    pub(crate) fn settings(&self, calibration: &Tokens, text: &TextArgs, steps: Steps) -> Settings {
        Settings {
            model_sha256: self.sha256_hex(),
            tokenizer_sha256: self.tokenizer.as_ref().map(Tokenizer::sha256),
            text: Text::of(calibration),
            window: text.window,
            seed: text.seed,
            steps,
        }
    }

    /// Reads the importance file of this checkpoint.
    pub(crate) fn importance(&self, path: &Path) -> Result<Importance> {
        if !path.exists() {
            return Err(Error::ImportanceMissing(path.to_path_buf()));
        }
        Importance::read(path, &self.sha256_hex())
    }

    /// The importance file that an output would go on with, if there is one. What cannot be read is
    /// kept, unless `force` replaces it.
    pub(crate) fn importance_before(
        &self,
        out: &Output,
        force: bool,
    ) -> Result<Option<Importance>> {
        if !out.is_occupied() {
            return Ok(None);
        }
        match self.importance(out.path()) {
            Err(_) if force => Ok(None),
            Err(Error::Format { path, reason, .. }) => Err(Error::Overwrite { path, reason }),
            found => found.map(Some),
        }
    }
}

/// The tokenizer contained in a blob, if there is one that encodes.
pub(crate) fn carried(model: &core::Model<'_>) -> Result<Option<Tokenizer>> {
    match model.tokenizer() {
        Ok(tokenizer) if tokenizer.rule().is_none() => Ok(None),
        Ok(tokenizer) => Tokenizer::from_blob(&tokenizer).map(Some),
        Err(core::Error::NoTokenizer) => Ok(None),
        Err(error) => Err(Error::Blob(error)),
    }
}

/// Fails unless `tokenizer`, called `name` in messages, is that of the blob at `path`. For a blob
/// without one only the size is checked.
pub(crate) fn check_tokenizer(
    tokenizer: &Tokenizer,
    name: &str,
    model: &core::Model<'_>,
    path: &Path,
) -> Result<()> {
    let (blob, vocab) = (path.display().to_string(), model.dims().vocab as usize);
    // Of a file of another program a blob holds what encodes or decodes, not all of it.
    let expected = match model.tokenizer() {
        Ok(held) if held.rule() != Some(Rule::Words) || tokenizer.is_foreign() => {
            return match tokenizer.section().is_ok_and(|section| section == held.section()) {
                true => Ok(()),
                false => Err(Error::Tokenizer(format!("{name} is not the tokenizer of {blob}"))),
            };
        }
        _ => carried(model)?.map(|tokenizer| tokenizer.sha256()),
    };
    tokenizer.belongs_to(name, &blob, vocab, expected.as_deref())
}

/// The files that [`Loaded::read`] reads.
pub(crate) fn model_files(model: &Path, tokenizer: Option<&Path>) -> [PathBuf; 2] {
    let beside = || model.with_file_name("tokenizer.json");
    [model.to_path_buf(), tokenizer.map_or_else(beside, Path::to_path_buf)]
}

/// The flag that permits replacing files.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Force {
    /// Overwrite protected files: an input, a file of another kind, a finished model, results of
    /// other settings.
    #[arg(long)]
    pub(crate) force: bool,
}

impl Force {
    /// A plan of outputs for a command with these inputs.
    pub(crate) fn plan(self, inputs: impl IntoIterator<Item: AsRef<Path>>) -> Plan {
        Plan::new(self.force).reads(inputs)
    }
}

/// The flag for files of token ids.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct TokenFileArgs {
    /// Width of the token ids in a file that ends in .bin.
    #[arg(long, value_enum, value_name = "TYPE")]
    pub(crate) token_type: Option<TokenType>,
}

/// Fails if the tokens of a file are not those of a model with a vocabulary of this size.
pub(crate) fn require_vocabulary(path: &Path, tokens: &[u32], vocab: usize) -> Result<()> {
    match tokens.iter().max() {
        Some(&token) if token as usize >= vocab => Err(Error::TokenFile {
            path: path.to_path_buf(),
            reason: format!("it has token {token}, but the model has only {vocab} tokens"),
            remedy:
                "encode the text with the model's own tokenizer; --token-type says how wide the \
                     tokens of a .bin are"
                    .into(),
        }),
        _ => Ok(()),
    }
}

/// Flags that choose a text.
#[derive(Debug, clap::Args)]
pub(crate) struct TextArgs {
    /// Directory with train.txt, valid.txt and test.txt, or with files of token ids of these names
    /// ending in .npy, .u16, .u32 or .bin [default: the directory in WIKITEXT2_DIR; without either,
    /// text is sampled from the FP32 model].
    #[arg(long, value_name = "DIR")]
    pub(crate) corpus: Option<PathBuf>,
    /// A file of text, or of token ids by its ending, to use instead: `eval` reads all of it; for
    /// other commands the first 80 % are the training split, the next 10 % the validation and the
    /// last 10 % the test split.
    #[arg(long, value_name = "FILE", conflicts_with = "corpus")]
    pub(crate) text: Option<PathBuf>,
    #[command(flatten)]
    tokens: TokenFileArgs,
    /// Tokens per window; each window starts with a fresh state [default: the length of the model's
    /// position table, or 128 without one].
    #[arg(long = "window", value_parser = numbers::window(), value_name = "N")]
    asked_window: Option<usize>,
    /// The resulting length, once the model is known.
    #[arg(skip)]
    pub(crate) window: usize,
    /// Tokens of the model, once it is known.
    #[arg(skip)]
    vocab: usize,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
}

impl TextArgs {
    /// Sets the window length for a model with this position table and vocabulary.
    pub(crate) fn fit(&mut self, positions: Option<usize>, vocab: usize) -> Result<()> {
        self.window = numbers::whole_window(self.asked_window, positions)?;
        self.vocab = vocab;
        Ok(())
    }

    /// Files that the text may be read from.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let corpus = Corpus::find(self.corpus.as_deref()).into_iter().flat_map(|corpus| {
            [Split::Train, Split::Valid, Split::Test].map(|split| corpus.file(split))
        });
        self.text.clone().into_iter().chain(corpus).collect()
    }

    /// Reads or samples the text of a split.
    pub(crate) fn tokens(
        &self,
        split: Split,
        limit: Option<usize>,
        model: Option<&Model>,
        tokenizer: Option<&Tokenizer>,
        global: Global,
    ) -> Result<Tokens> {
        self.read(&self.source(split)?, limit, model, tokenizer, global)
    }

    /// Reads or samples the text that a finished blob is measured on: the test split, which was not
    /// used to choose anything. If a corpus has none, the validation split, whose name then says
    /// so.
    pub(crate) fn reported(
        &self,
        limit: usize,
        model: &Model,
        tokenizer: Option<&Tokenizer>,
        global: Global,
    ) -> Result<Tokens> {
        let of = |split| self.tokens(split, Some(limit), Some(model), tokenizer, global);
        match of(Split::Test) {
            Err(Error::SplitMissing { .. }) => {
                note(global, "the corpus has no test split: measuring on the validation split");
                let valid = of(Split::Valid)?;
                Ok(Tokens { name: format!("{} (in-sample)", valid.name), ..valid })
            }
            found => found,
        }
    }

    /// Source of a split's text.
    pub(crate) fn source(&self, split: Split) -> Result<TextSource> {
        let width = self.tokens.token_type;
        TextSource::find(self.text.as_deref(), self.corpus.as_deref(), width, split)
    }

    /// Reads or samples a text.
    pub(crate) fn read(
        &self,
        source: &TextSource,
        limit: Option<usize>,
        model: Option<&Model>,
        tokenizer: Option<&Tokenizer>,
        global: Global,
    ) -> Result<Tokens> {
        let bar = bar("sampling text", global);
        let tokens = source.tokens(model, tokenizer, limit, self.window, self.seed, |share| {
            set(&bar, share);
        });
        bar.finish_and_clear();
        let tokens = tokens?;
        if let Some(path) = source.path() {
            require_vocabulary(&path, &tokens.tokens, self.vocab)?;
        }
        Ok(tokens)
    }

    /// Calibrates a quantizer on `limit` tokens of the training split or its substitute.
    pub(crate) fn calibrate(
        &self,
        source: &Source,
        limit: usize,
        tokenizer: Option<&Tokenizer>,
        global: Global,
    ) -> Result<(Calibration, Tokens)> {
        let folded = Model::from_checkpoint(&source.folded);
        let text = self.tokens(Split::Train, Some(limit), Some(&folded), tokenizer, global)?;
        let bar = bar("calibrating", global);
        let calibration =
            Calibration::collect(&folded, &text.tokens, self.window, self.seed, |share| {
                set(&bar, share);
            })?;
        bar.finish_and_clear();
        for (layer, rows) in calibration.rows().filter(|(_, rows)| *rows < FEW) {
            let seen = match rows {
                0 => "no calibration token: its inputs are unknown".into(),
                _ => format!("only {rows} calibration tokens"),
            };
            note(global, &format!("`{layer}` saw {seen}"));
        }
        if let Some(problem) = calibration.expectation().problem() {
            note(
                global,
                &format!(
                    "{} is not the kind of text that the model expects: {problem}; a blob \
                     calibrated on it may lose much on other text",
                    text.name
                ),
            );
        }
        Ok((calibration, text))
    }
}

/// Layers that saw fewer calibration tokens are reported.
const FEW: usize = 256;

/// Prints a note on standard error.
pub(crate) fn note(global: Global, text: &str) {
    if !global.quiet {
        writeln!(Stderr, "note: {text}");
    }
}

/// Prints a value as JSON on standard output, with sorted keys.
pub(crate) fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let value = serde_json::to_value(value).expect("plain structs serialise");
    writeln!(Stdout, "{value:#}")
}

/// A path or argument as UTF-8, for JSON and provenance: other bytes show as `\xNN`.
pub(crate) fn escaped(text: impl AsRef<OsStr>) -> String {
    let mut shown = String::new();
    for chunk in text.as_ref().as_encoded_bytes().utf8_chunks() {
        shown.push_str(chunk.valid());
        shown.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    shown
}

/// Whether a file starts with the magic number of a blob.
pub(crate) fn is_blob(bytes: &[u8]) -> bool {
    bytes.starts_with(&core::blob::MAGIC)
}

/// Parses a blob; the error names its path.
pub(crate) fn parse_blob<'a>(bytes: &'a [u8], path: &Path) -> Result<core::Model<'a>> {
    if !is_blob(bytes) && SafeTensors::read_metadata(bytes).is_ok() {
        return Err(Error::WrongKind {
            path: path.to_path_buf(),
            found: "a checkpoint",
            wanted: "a blob",
            remedy: "quantize it first: `resnet-bk quantize CHECKPOINT --policy static --out FILE`",
        });
    }
    core::Model::from_bytes(bytes)
        .map_err(|error| Error::BlobFile { path: path.to_path_buf(), error })
}
