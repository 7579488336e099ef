//! `resnet-bk generate`.

mod vocabulary;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use resnet_bk_core as core;
use resnet_bk_core::{Generator, LogitsDigest, Predictor, Sampler, Session};
use serde_json::json;

use super::common::{Loaded, carried, check_tokenizer, is_blob, parse_blob, print_json};
use crate::cli::Global;
use crate::cli::numbers;
use crate::error::{Error, Result};
use crate::files::Content;
use crate::reference::{Model, Stream};
use crate::terminal::{Stderr, Stdout};
use crate::threads;
use crate::tokenizer::Tokenizer;
use vocabulary::Vocabulary;

const EXAMPLES: &str = "\
Examples:
  What a device would write (a blob runs through the same integer core as on a device):
      resnet-bk generate static.rbk --prompt 'The river ' --tokens 100 --temperature 0.8 --seed 3

  One line that does not repeat itself:
      resnet-bk generate static.rbk --prompt 'The river ' --repetition-penalty 1.2 --stop $'\\n'

  The FP32 model:
      resnet-bk generate model.safetensors --prompt 'The river '

  A model without a tokenizer, whose tokens are numbers:
      resnet-bk generate model.safetensors --ids 1,5,9

  A digest of the logits, to compare with the one that a device prints:
      resnet-bk generate static.rbk --tokens 256 --json";

/// Generate text with a checkpoint or a blob.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`generate --help` shows examples.")]
pub(crate) struct Args {
    /// Checkpoint or blob; its chain must be causal.
    model: PathBuf,
    /// Text to continue.
    #[arg(long, default_value = "The ", value_name = "TEXT")]
    prompt: String,
    /// Token ids to continue, in place of a text. Without a tokenizer, ids are printed, too.
    #[arg(long, value_name = "ID,…", value_delimiter = ',', conflicts_with = "prompt")]
    ids: Option<Vec<u32>>,
    /// Number of tokens to generate.
    #[arg(long, value_parser = numbers::tokens(0), default_value_t = 64, value_name = "N")]
    tokens: usize,
    /// Sampling temperature; 0 always takes the most likely token.
    #[arg(long, value_parser = numbers::not_negative::<f32>, default_value_t = 0.0,
        value_name = "X", allow_negative_numbers = true)]
    temperature: f32,
    /// Top-k sampling: sample among this many most likely tokens, at most 64; 0 samples among all.
    #[arg(long, value_parser = numbers::within(0..=core::sampler::MAX_TOP_K as u64),
        default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Top-p (nucleus) sampling: sample among the most likely tokens that together reach this
    /// probability, above 0; 1 samples among all.
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f32,
    /// Repetition penalty for the last 64 distinct tokens, including the prompt's: divides their
    /// positive logits by this value and multiplies the others by it. 1 has no effect, 1.1 to 1.3
    /// are usual.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    repetition_penalty: f32,
    /// Stop before this text, which must be a single token, such as a line break; without a
    /// tokenizer, before this token id. May be repeated.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Seed of the sampler.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Tokenizer, any tokenizer.json, for a blob that contains none or a checkpoint without one
    /// beside it.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Trust a blob that was verified before: skip its checksum and the check of FP16 weights. A
    /// large blob is mapped into memory, so that the first token need not wait until all of it is
    /// read; later ones take longer than in memory of its own.
    #[arg(long)]
    no_verify: bool,
}

/// Bytes of a blob from which threads share a token; those of smaller ones would mostly wait.
const LARGE: usize = 4 << 20;
/// Distinct tokens that the repetition penalty covers.
const RECENT: usize = 64;

/// Inference state of a model within a text.
enum Writer<'a> {
    Reference { stream: Box<Stream<'a>>, logits: Vec<f16> },
    Core(Box<Session<'a, Vec<u32>>>),
}

/// A rejected token, in the error type that [`Predictor`] requires.
struct Refused(Error);

impl From<core::Error> for Refused {
    fn from(error: core::Error) -> Self {
        Self(Error::Blob(error))
    }
}

impl Predictor for Writer<'_> {
    type Error = Refused;

    fn feed(&mut self, token: u32) -> std::result::Result<(), Refused> {
        match self {
            Self::Reference { stream, .. } => stream.feed(&[token]).map_err(Refused),
            Self::Core(session) => Ok(session.feed(token)?),
        }
    }

    fn step(&mut self, token: u32) -> std::result::Result<&mut [f16], Refused> {
        match self {
            Self::Reference { stream, logits } => {
                let values = stream.step(&[token]).map_err(Refused)?;
                *logits = values.into_iter().map(f16::from_f32).collect();
                Ok(logits)
            }
            Self::Core(session) => Ok(session.step(token)?),
        }
    }
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let bytes = Content::of(&args.model)?;
    if is_blob(&bytes) {
        // What is verified is read in any case.
        let bytes = match args.no_verify {
            true => bytes,
            false => bytes.resident().map_err(Error::io("read", &args.model))?,
        };
        let model = match args.no_verify {
            true => core::Model::from_verified_bytes(&bytes)
                .map_err(|error| Error::BlobFile { path: args.model.clone(), error })?,
            false => parse_blob(&bytes, &args.model)?,
        };
        let large = bytes.len() >= LARGE;
        let model = if large { model.with_threads(Arc::new(threads::Pool)) } else { model };
        let writer = Writer::Core(Box::new(Session::allocate(model.clone()).map_err(Error::Blob)?));
        let named = args.tokenizer.as_deref().map(Tokenizer::load).transpose()?;
        if let (Some(named), Some(path)) = (&named, &args.tokenizer) {
            check_tokenizer(named, &path.display().to_string(), &model, &args.model)?;
        }
        let own = carried(&model)?;
        let vocabulary = match (own.as_ref().or(named.as_ref()), model.tokenizer()) {
            (Some(tokenizer), _) => Vocabulary::Tokenizer(tokenizer),
            (None, Ok(decoder)) if args.ids.is_some() => Vocabulary::Decoder(decoder),
            (None, Ok(_)) => return Err(Error::Blob(core::Error::NoEncoder)),
            (None, Err(_)) if args.ids.is_some() => Vocabulary::Numbers,
            (None, Err(error)) => return Err(Error::Blob(error)),
        };
        let write = || write(&args, writer, vocabulary, global);
        return if large { threads::awake(write) } else { write() };
    }
    let loaded = Loaded::read(&args.model, args.tokenizer.as_deref(), global)?;
    let vocabulary = match &loaded.tokenizer {
        Some(tokenizer) => Vocabulary::Tokenizer(tokenizer),
        None if args.ids.is_some() => Vocabulary::Numbers,
        None => return Err(missing_tokenizer(&args.model)),
    };
    let model = Model::from_checkpoint(&loaded.checkpoint);
    let stream = Box::new(Stream::new(&model)?);
    write(&args, Writer::Reference { stream, logits: Vec::new() }, vocabulary, global)
}

fn missing_tokenizer(model: &Path) -> Error {
    Error::Tokenizer(format!(
        "there is no tokenizer.json beside {}, and no --ids to continue",
        model.display()
    ))
}

/// Token ids of `--stop`.
fn stops(texts: &[String], vocabulary: Vocabulary<'_>) -> Result<Vec<u32>> {
    let token = |text: &String| match vocabulary.encode(text)?[..] {
        [token] => Ok(token),
        ref tokens => Err(Error::Usage(format!(
            "--stop {text:?} is {} tokens; choose a text of a single token, such as a line break",
            tokens.len()
        ))),
    };
    texts.iter().map(token).collect()
}

fn write(
    args: &Args,
    writer: Writer<'_>,
    vocabulary: Vocabulary<'_>,
    global: Global,
) -> Result<()> {
    let text = args.ids.is_none().then_some(args.prompt.as_str());
    let prompt = match &args.ids {
        Some(ids) => ids.clone(),
        None => vocabulary.encode(&args.prompt)?,
    };
    if prompt.is_empty() {
        return Err(Error::Usage(
            "--prompt must not be empty: there is nothing to continue".into(),
        ));
    }
    let stops = stops(&args.stop, vocabulary)?;
    let sampler = Sampler::builder()
        .temperature(args.temperature)
        .top_k(args.top_k)
        .top_p(args.top_p)
        .repetition_penalty::<RECENT>(args.repetition_penalty)
        .seed(args.seed)
        .build()
        .map_err(|error| bad_setting(args, error))?;
    let mut generator = Generator::new(writer, sampler).limit(args.tokens).stop_at(&stops);
    generator.feed(&prompt).map_err(|Refused(error)| error)?;
    let (mut digest, mut tokens) = (LogitsDigest::new(), Vec::new());
    let mut text = vocabulary.show(text, &prompt)?;
    let mut printed = 0;
    loop {
        let next = generator.next_token(|logits| digest.update(logits));
        let Some(token) = next.map_err(|Refused(error)| error)? else { break };
        tokens.push(token);
        text.push(token)?;
        if !global.json {
            write!(Stdout, "{}", &text.text()[printed..])?;
            printed = text.text().len();
        }
    }
    text.finish()?;
    if global.json {
        print_json(&json!({
            "text": vocabulary.is_text().then(|| text.text()), "prompt_tokens": prompt, "tokens": tokens,
            "steps": digest.steps(), "digest": format!("{:08x}", digest.value()),
        }))?;
    } else {
        writeln!(Stdout, "{}", &text.text()[printed..])?;
        if !global.quiet {
            writeln!(Stderr, "{} steps, logits digest {:08x}", digest.steps(), digest.value());
        }
    }
    Ok(())
}

/// Converts a sampler's error to one that names the flag.
fn bad_setting(args: &Args, error: core::Error) -> Error {
    match error {
        core::Error::TopP => Error::Usage(format!("--top-p {}: {error}", args.top_p)),
        core::Error::RepetitionPenalty => {
            let penalty = args.repetition_penalty;
            Error::Usage(format!("--repetition-penalty {penalty}: {error}"))
        }
        error => Error::Blob(error),
    }
}
