//! What several subcommands share: loading models, progress, tables.

use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use resnet_bk_core as core;
use sha2::{Digest, Sha256};

use crate::checkpoint::Checkpoint;
use crate::cli::Global;
use crate::corpus::{Corpus, Split};
pub(crate) use crate::digest::hex;
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::eval::text::{TextSource, Tokens};
use crate::files;
use crate::importance::{Importance, Settings, Text};
use crate::output::Plan;
use crate::quantize::calibration::Calibration;
use crate::quantize::tokenizer::section;
use crate::quantize::{Methods, Source};
use crate::reference::Model;
use crate::tokenizer::Tokenizer;

/// A checkpoint file and what belongs to it.
pub(crate) struct Loaded {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) bytes: u64,
    pub(crate) sha256: [u8; 32],
}

impl Loaded {
    /// Reads a checkpoint and its tokenizer: the file that is named, else the `tokenizer.json` that
    /// lies beside the checkpoint, if there is one.
    pub(crate) fn read(path: &Path, tokenizer: Option<&Path>) -> Result<Self> {
        let bytes = files::read(path)?;
        let checkpoint = Checkpoint::from_bytes(&bytes, path)?;
        let beside = path.with_file_name("tokenizer.json");
        let tokenizer = match tokenizer {
            Some(path) => Some(Tokenizer::load(path)?),
            None if beside.exists() => Some(Tokenizer::load(&beside)?),
            None => None,
        };
        if let Some(tokenizer) = &tokenizer
            && tokenizer.vocab() != checkpoint.config.vocab
        {
            return Err(Error::Tokenizer(format!(
                "it has {} tokens, the model {}",
                tokenizer.vocab(),
                checkpoint.config.vocab
            )));
        }
        let sha256 = Sha256::digest(&bytes).into();
        Ok(Self { checkpoint, tokenizer, bytes: bytes.len() as u64, sha256 })
    }

    /// SHA-256 of the file in hexadecimal.
    pub(crate) fn sha256_hex(&self) -> String {
        hex(&self.sha256)
    }

    /// The quantizer's view of the checkpoint, with its tokenizer unless that is to stay behind.
    pub(crate) fn source(&self, embed_tokenizer: bool) -> Result<Source> {
        let tokenizer = self.tokenizer.as_ref().filter(|_| embed_tokenizer);
        let section = tokenizer.map(section).transpose()?;
        Source::new(&self.checkpoint, self.sha256, self.bytes, section)
    }

    /// What importance that is computed on this calibration text depends on.
    pub(crate) fn settings(
        &self,
        calibration: &Tokens,
        text: &TextArgs,
        methods: Methods,
    ) -> Result<Settings> {
        let tokenizer = self.tokenizer.as_ref().map(Tokenizer::to_bytes).transpose()?;
        Ok(Settings {
            model_sha256: self.sha256_hex(),
            tokenizer_sha256: tokenizer.as_deref().map(sha256),
            text: Text::of(calibration),
            window: text.window,
            seed: text.seed,
            methods,
        })
    }

    /// Reads the importance file of this checkpoint.
    pub(crate) fn importance(&self, path: &Path) -> Result<Importance> {
        if !path.exists() {
            return Err(Error::ImportanceMissing(path.to_path_buf()));
        }
        Importance::read(path, &self.sha256_hex())
    }
}

/// The files that [`Loaded::read`] reads.
pub(crate) fn model_files(model: &Path, tokenizer: Option<&Path>) -> [PathBuf; 2] {
    let beside = || model.with_file_name("tokenizer.json");
    [model.to_path_buf(), tokenizer.map_or_else(beside, Path::to_path_buf)]
}

/// The flag that lifts the rule about what may be replaced.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Force {
    /// Replace what is in the way: an input, a file of another kind, a finished model, what other
    /// settings left.
    #[arg(long)]
    pub(crate) force: bool,
}

impl Force {
    /// A plan of what is written, after these inputs.
    pub(crate) fn plan(self, inputs: impl IntoIterator<Item: AsRef<Path>>) -> Plan {
        Plan::new(self.force).reads(inputs)
    }
}

/// Flags that choose a text.
#[derive(Debug, clap::Args)]
pub(crate) struct TextArgs {
    /// Directory with train.txt, valid.txt and test.txt [default: the directory in WIKITEXT2_DIR;
    /// without either, text is sampled from the FP32 model].
    #[arg(long, value_name = "DIR")]
    pub(crate) corpus: Option<PathBuf>,
    /// A text file to use instead.
    #[arg(long, value_name = "FILE", conflicts_with = "corpus")]
    pub(crate) text: Option<PathBuf>,
    /// Tokens per window; each window starts with a fresh state.
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub(crate) window: usize,
    /// Seed of everything random.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
}

impl TextArgs {
    /// The files that the text may be read from.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let corpus = Corpus::find(self.corpus.as_deref()).into_iter().flat_map(|corpus| {
            [Split::Train, Split::Valid, Split::Test].map(|split| corpus.file(split))
        });
        self.text.clone().into_iter().chain(corpus).collect()
    }

    /// Reads or samples the text.
    pub(crate) fn tokens(
        &self,
        split: Split,
        limit: Option<usize>,
        model: Option<&Model>,
        tokenizer: Option<&Tokenizer>,
        global: Global,
    ) -> Result<Tokens> {
        if self.window == 0 {
            return Err(Error::Usage("--window must be at least 1".into()));
        }
        let positions = model.and_then(|model| model.config().positions);
        if let Some(positions) = positions.filter(|&positions| positions < self.window) {
            return Err(Error::Usage(format!(
                "--window {} is longer than the model's position table of {positions}",
                self.window
            )));
        }
        let source = TextSource::find(self.text.as_deref(), self.corpus.as_deref(), split)?;
        let bar = bar("sampling text", global);
        let tokens = source.tokens(model, tokenizer, limit, self.window, self.seed, |share| {
            set(&bar, share);
        });
        bar.finish_and_clear();
        tokens
    }

    /// Calibrates a quantizer on `limit` tokens of the training split, or its stand-in.
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
            });
        bar.finish_and_clear();
        for (layer, rows) in calibration.rows().filter(|(_, rows)| *rows < 256) {
            note(global, &format!("`{layer}` saw only {rows} calibration tokens"));
        }
        Ok((calibration, text))
    }
}

/// A progress bar for a share between 0 and 1.
pub(crate) fn bar(message: &'static str, global: Global) -> ProgressBar {
    if global.quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {bar:24} {percent:>3}% · {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(1000).with_style(style).with_message(message)
}

/// Shows the share that is done.
pub(crate) fn set(bar: &ProgressBar, share: f64) {
    bar.set_position((share * 1000.0) as u64);
}

/// A remark on standard error.
pub(crate) fn note(global: Global, text: &str) {
    if !global.quiet {
        eprintln!("note: {text}");
    }
}

/// Prints a JSON value on standard output.
pub(crate) fn print_json(value: &serde_json::Value) {
    println!("{value:#}");
}

/// Whether a file begins like a blob.
pub(crate) fn is_blob(bytes: &[u8]) -> bool {
    bytes.starts_with(&core::blob::MAGIC)
}

/// Parses a blob; the error names its path.
pub(crate) fn parse_blob<'a>(bytes: &'a [u8], path: &Path) -> Result<core::Model<'a>> {
    core::Model::from_bytes(bytes)
        .map_err(|error| Error::BlobFile { path: path.to_path_buf(), error })
}
