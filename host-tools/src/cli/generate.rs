//! `resnet-bk generate`.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use half::f16;
use resnet_bk_core as core;
use resnet_bk_core::{LogitsDigest, Sampler, Session};
use serde_json::json;

use super::common::{Loaded, check_tokenizer, is_blob, parse_blob, print_json};
use crate::cli::Global;
use crate::cli::numbers;
use crate::error::{Error, Result};
use crate::files;
use crate::reference::{Model, Stream};
use crate::terminal::{Stderr, Stdout};
use crate::tokenizer::Tokenizer;

const EXAMPLES: &str = "\
Examples:
  What a device would write (a blob runs through the same integer core as on a device):
      resnet-bk generate static.rbk --prompt 'The river ' --tokens 100 --temperature 0.8 --seed 3

  The FP32 model:
      resnet-bk generate model.safetensors --prompt 'The river '

  A digest of the logits, to compare with the one that a device prints:
      resnet-bk generate static.rbk --tokens 256 --json";

/// Write text with a checkpoint or a blob.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`generate --help` shows examples.")]
pub(crate) struct Args {
    /// Checkpoint or blob; its chain must be causal.
    model: PathBuf,
    /// Text to continue.
    #[arg(long, default_value = "The ", value_name = "TEXT")]
    prompt: String,
    /// Tokens to write.
    #[arg(long, value_parser = numbers::tokens(0), default_value_t = 64, value_name = "N")]
    tokens: usize,
    /// Sampling temperature; 0 always takes the likeliest token.
    #[arg(long, value_parser = numbers::not_negative::<f32>, default_value_t = 0.0, value_name = "X",
        allow_negative_numbers = true)]
    temperature: f32,
    /// Sample among so many likeliest tokens only, at most 64; 0 samples among all.
    #[arg(long, value_parser = numbers::within(0..=core::sampler::MAX_TOP_K as u64), default_value_t = 0, value_name = "K")]
    top_k: usize,
    /// Sample among the likeliest tokens only that together have this probability, above 0; 1 samples among all.
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f32,
    /// Seed of the sampler.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Tokenizer, for a blob that carries none or a checkpoint without a tokenizer.json beside it.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
}

/// A model in the middle of a text.
enum Writer<'a> {
    Reference(Box<Stream<'a>>),
    Core(Session<'a, Vec<u32>>),
}

impl Writer<'_> {
    /// Takes a token whose logits nobody needs.
    fn feed(&mut self, token: u32) -> Result<()> {
        match self {
            Self::Reference(stream) => stream.feed(token),
            Self::Core(session) => session.feed(token).map_err(Error::Blob),
        }
    }

    /// Takes a token and returns the logits of the next one.
    fn step(&mut self, token: u32) -> Result<Cow<'_, [f16]>> {
        Ok(match self {
            Self::Reference(stream) => stream.step(token)?.into_iter().map(f16::from_f32).collect(),
            Self::Core(session) => Cow::Borrowed(session.step(token).map_err(Error::Blob)?),
        })
    }
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let bytes = files::read(&args.model)?;
    if is_blob(&bytes) {
        let model = parse_blob(&bytes, &args.model)?;
        let writer = Writer::Core(Session::allocate(model.clone()).map_err(Error::Blob)?);
        let named = args.tokenizer.as_deref().map(Tokenizer::load).transpose()?;
        if let (Some(named), Some(path)) = (&named, &args.tokenizer) {
            check_tokenizer(named, &path.display().to_string(), &model, &args.model)?;
        }
        let text = match (model.tokenizer(), &named) {
            (Ok(tokenizer), _) => TextCodec::Core(tokenizer),
            (Err(core::Error::NoTokenizer), Some(tokenizer)) => TextCodec::Host(tokenizer),
            (Err(error), _) => return Err(Error::Blob(error)),
        };
        return write(&args, writer, text, global);
    }
    let loaded = Loaded::read(&args.model, args.tokenizer.as_deref(), global)?;
    let tokenizer = loaded.tokenizer.as_ref().ok_or_else(|| missing_tokenizer(&args.model))?;
    let model = Model::from_checkpoint(&loaded.checkpoint);
    let writer = Writer::Reference(Box::new(Stream::new(&model)?));
    write(&args, writer, TextCodec::Host(tokenizer), global)
}

fn missing_tokenizer(model: &Path) -> Error {
    Error::Tokenizer(format!("there is no tokenizer.json beside {}", model.display()))
}

/// Text to tokens and back.
enum TextCodec<'a> {
    Host(&'a Tokenizer),
    Core(core::Tokenizer<'a>),
}

impl TextCodec<'_> {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match self {
            Self::Host(tokenizer) => tokenizer.encode(text),
            Self::Core(tokenizer) => {
                Ok(tokenizer.encode_vec(text.as_bytes()).into_iter().map(u32::from).collect())
            }
        }
    }

    fn decode(&self, token: u32, bytes: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Host(tokenizer) => bytes.extend(tokenizer.decode(&[token])),
            Self::Core(tokenizer) => {
                tokenizer.decode(token, |byte| bytes.push(byte)).map_err(Error::Blob)?;
            }
        }
        Ok(())
    }
}

fn write(args: &Args, mut writer: Writer<'_>, codec: TextCodec<'_>, global: Global) -> Result<()> {
    let prompt = codec.encode(&args.prompt)?;
    let Some((&last, first)) = prompt.split_last() else {
        return Err(Error::Usage(
            "--prompt must not be empty: there is nothing to continue".into(),
        ));
    };
    let mut sampler = Sampler::new(args.temperature, args.top_k, args.seed)
        .map_err(Error::Blob)?
        .with_top_p(args.top_p)
        .map_err(|error| Error::Usage(format!("--top-p {}: {error}", args.top_p)))?;
    let mut digest = LogitsDigest::new();
    first.iter().try_for_each(|&token| writer.feed(token))?;
    let mut tokens: Vec<u32> = Vec::new();
    let mut text = args.prompt.clone().into_bytes();
    let mut shown = 0;
    let mut token = last;
    while tokens.len() < args.tokens {
        let logits = writer.step(token)?;
        digest.update(&logits);
        token = sampler.sample(&logits);
        tokens.push(token);
        codec.decode(token, &mut text)?;
        if !global.json {
            shown = show(&text, shown)?;
        }
    }
    if global.json {
        print_json(&json!({
            "text": String::from_utf8_lossy(&text), "prompt_tokens": prompt, "tokens": tokens,
            "steps": digest.steps(), "digest": format!("{:08x}", digest.value()),
        }))?;
    } else {
        writeln!(Stdout, "{}", String::from_utf8_lossy(&text[shown..]))?;
        if !global.quiet {
            writeln!(Stderr, "{} steps, logits digest {:08x}", digest.steps(), digest.value());
        }
    }
    Ok(())
}

/// Prints what is whole characters beyond `shown` bytes; returns the bytes shown so far.
fn show(text: &[u8], shown: usize) -> Result<usize> {
    let valid = match std::str::from_utf8(&text[shown..]) {
        Ok(rest) => rest.len(),
        Err(error) => error.valid_up_to(),
    };
    let part = String::from_utf8_lossy(&text[shown..shown + valid]);
    write!(Stdout, "{part}")?;
    Ok(shown + valid)
}
