//! `resnet-bk train`.

use crate::checkpoint::{Block, Chain, ModelConfig, TOKENIZER_KEY};
use crate::cli::Global;
use crate::cli::common::{Force, Loaded, escaped, model_files};
use crate::cli::numbers;
use crate::cli::optimizer::OptimizerArgs;
use crate::cli::progress::Progress;
use crate::corpus::{Corpus, Split};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::output::{self, Kind};
use crate::reference::Model;
use crate::terminal::{Stderr, Stdout};
use crate::tokenizer::Tokenizer;
use crate::train::{Event, Recipe, Run, Summary};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  Train the reference model on a directory with train.txt and valid.txt (about half an hour on
  two cores); run the same command again to resume after an interruption:
      resnet-bk train --corpus data/wikitext-2 --out runs/reference

  A small model in a minute or two, to try things out:
      resnet-bk train --corpus data/wikitext-2 --out runs/tiny --vocab 320 --width 32 \\
          --layers 2 --experts 2 --hidden 64 --potentials 8 --steps 1500

  A gated chain: blocks with a memory (about two hours on two cores):
      resnet-bk train --corpus data/wikitext-2 --out runs/gated --block gated --lr 0.006 \\
          --weight-decay 0.2 --dropout 0.1

  Another seed with the tokenizer of an earlier run:
      resnet-bk train --corpus data/wikitext-2 --out runs/second --seed 2 \\
          --tokenizer runs/reference/tokenizer.json

The output directory receives
  model.safetensors   the weights in FP32, with dimensions and provenance as metadata
  tokenizer.json      the tokenizer that the model was trained with, written together with it
  train.jsonl         one JSON object per line: step, tokens, loss, validation bits per byte
  state               while the run lasts: what it needs to resume
  train.lock          while the run lasts: keeps other runs out

A directory with a finished model is left as it is, unless --force is given.

The same seed, text and settings give the same bytes on the same machine, whatever --threads.";

/// Train a model on text and write it with its tokenizer.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`train --help` shows examples.")]
pub(crate) struct Args {
    /// Directory with train.txt and valid.txt [default: the directory in WIKITEXT2_DIR].
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Output directory; created if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// Tokenizer to use, instead of training one on train.txt.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Checkpoint with initial weights and dimensions, with its tokenizer.json beside it.
    #[arg(long, value_name = "FILE", conflicts_with = "tokenizer")]
    init: Option<PathBuf>,
    /// JSON-lines log [default: train.jsonl in the output directory].
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Model")]
    model: ModelArgs,
    #[command(flatten, next_help_heading = "Training")]
    recipe: RecipeArgs,
}

#[derive(Debug, clap::Args)]
struct ModelArgs {
    /// Vocabulary size of the tokenizer to train; at least 256.
    #[arg(long, default_value_t = 1024, value_name = "N")]
    vocab: usize,
    /// Width of the residual stream.
    #[arg(long, default_value_t = 128, value_name = "N")]
    width: usize,
    /// Kind of block.
    #[arg(long, value_enum, default_value_t = BlockArg::Resolvent)]
    block: BlockArg,
    /// Number of blocks [default: 4, or 10 of gated chains].
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Experts per block [default: 4, or 1 beside a gated chain].
    #[arg(long, value_name = "N")]
    experts: Option<usize>,
    /// Experts that each token is routed to [default: 2, or all if there are fewer].
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Hidden width of an expert [default: 256, or 0, which is no expert, beside a gated chain].
    #[arg(long, value_name = "N")]
    hidden: Option<usize>,
    /// Potentials per block: independent chains [default: 64, or 8 of a gated chain].
    #[arg(long, value_name = "N")]
    potentials: Option<usize>,
    /// Width of a gated chain's memory [default: twice the width].
    #[arg(long, value_name = "N")]
    channels: Option<usize>,
    /// Length of the position table; without one the model can generate indefinitely.
    #[arg(long, value_name = "N")]
    positions: Option<usize>,
    /// Which part of the chain a position sees.
    #[arg(long, value_enum, default_value_t = ChainArg::Half)]
    chain: ChainArg,
    /// Lower bound of the decay η of a potential [default: 1/32, or 1/256 in a gated chain].
    #[arg(long, value_name = "X")]
    eta_floor: Option<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum BlockArg {
    /// As published: elements of the resolvent are features, beside the experts.
    Resolvent,
    /// The chain decides how fast a memory forgets.
    Gated,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChainArg {
    /// Past positions only (causal): a language model.
    Half,
    /// Past and future positions, as published: the model sees the tokens that it predicts.
    Full,
}

#[derive(Debug, clap::Args)]
struct RecipeArgs {
    /// Seed of the initial weights and of the training windows.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Number of steps.
    #[arg(long, value_parser = numbers::steps(), default_value_t = 11_000, value_name = "N")]
    steps: u64,
    /// Tokens per window [default: 128, or the length of the position table if that is shorter].
    #[arg(long, value_parser = numbers::window(), value_name = "N")]
    window: Option<usize>,
    /// Weight decay of matrices.
    #[arg(long, default_value_t = 0.1, value_name = "X")]
    weight_decay: f32,
    /// Dropout of the experts' hidden activations, against overfitting.
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    dropout: f32,
    /// Peak learning rate.
    #[arg(long, default_value_t = 4e-3, value_name = "X")]
    lr: f64,
    #[command(flatten)]
    optimizer: OptimizerArgs,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    // Check dimensions before spending time on the tokenizer.
    args.model.config(args.model.vocab)?;
    let mut initial =
        args.init.as_deref().map(|path| Loaded::read(path, None, global)).transpose()?;
    let positions = match &initial {
        Some(initial) => initial.checkpoint.config.positions,
        None => args.model.positions,
    };
    let recipe = args.recipe.recipe(positions)?;
    let corpus = Corpus::find(args.corpus.as_deref())?;
    let train_text = corpus.text(Split::Train)?;
    let valid_text = corpus.text(Split::Valid)?;
    files::create_directory(&args.out)?;
    let _lock = Lock::acquire(&args.out.join("train.lock"))?;
    let places = args.places(&corpus)?;
    let tokenizer = match (&args.tokenizer, &mut initial) {
        (Some(path), _) => Tokenizer::load(path)?,
        (None, Some(initial)) => initial.tokenizer.take().ok_or_else(|| {
            Error::Tokenizer("there is no tokenizer.json beside the checkpoint of --init".into())
        })?,
        (None, None) => Tokenizer::train(&[&train_text], args.model.vocab)?,
    };
    let config = match &initial {
        Some(initial) => initial.checkpoint.config.clone(),
        None => args.model.config(tokenizer.vocab())?,
    };
    let mut data = BTreeMap::from([
        (TOKENIZER_KEY.to_string(), tokenizer.sha256()),
        ("train_text_sha256".to_string(), sha256(train_text.as_bytes())),
        ("valid_text_sha256".to_string(), sha256(valid_text.as_bytes())),
    ]);
    if let Some(initial) = &initial {
        data.insert("initial_sha256".into(), initial.sha256_hex());
    }
    let (train, valid) = (tokenizer.encode(&train_text)?, tokenizer.encode(&valid_text)?);
    let training = Run {
        config,
        initial: initial.map(|initial| Model::from_checkpoint(&initial.checkpoint)),
        recipe,
        train: &train,
        valid: &valid,
        token_lengths: &tokenizer.token_lengths(),
        data,
        output: args.recipe.optimizer.output(places.log, places.state.clone(), args.force.force),
    };
    if !global.quiet {
        writeln!(
            Stderr,
            "{} parameters, {} training tokens of {:.2} bytes",
            training.config.parameters(),
            train.len(),
            train_text.len() as f64 / train.len() as f64
        );
    }
    let bar = progress_bar(&training.recipe, global);
    let mut summary = training.train(&mut |event| show(&bar, &training.recipe, event))?;
    bar.finish_and_clear();
    let command: Vec<String> = std::env::args_os().skip(1).map(escaped).collect();
    summary
        .checkpoint
        .provenance
        .insert("command".into(), format!("resnet-bk {}", command.join(" ")));
    // Written together with the model: until then the directory may hold another model with its own
    // tokenizer, and a resumed run trains the same tokenizer again.
    places.tokenizer.write(&tokenizer.to_bytes())?;
    places.model.write(&summary.checkpoint.to_bytes())?;
    // The model is written: the resume file is no longer needed.
    files::remove(&places.state)?;
    report(&summary, places.model.path(), global)
}

/// Output files.
struct Places {
    model: output::Output,
    tokenizer: output::Output,
    state: PathBuf,
    log: PathBuf,
}

impl Args {
    /// The output files, if they may be written. A finished model is only replaced by a run that
    /// started before it was finished, or with `--force`.
    fn places(&self, corpus: &Corpus) -> Result<Places> {
        let mut inputs = vec![corpus.file(Split::Train), corpus.file(Split::Valid)];
        inputs.extend(self.tokenizer.clone());
        inputs.extend(self.init.iter().flat_map(|init| model_files(init, None)));
        let mut plan = self.force.plan(inputs);
        let at = |name: &str| self.out.join(name);
        let state = plan.writes(&at("state"), Kind::State)?;
        let model = match state.is_occupied() {
            true => plan.writes(&at("model.safetensors"), Kind::Checkpoint)?,
            false => plan.creates(&at("model.safetensors"), "a finished model")?,
        };
        let tokenizer = plan.writes(&at("tokenizer.json"), Kind::Tokenizer)?;
        let log = self.log.clone().unwrap_or_else(|| at("train.jsonl"));
        let log = plan.writes(&log, Kind::Log)?;
        let path = |output: output::Output| output.path().to_path_buf();
        Ok(Places { model, tokenizer, state: path(state), log: path(log) })
    }
}

impl ModelArgs {
    fn config(&self, vocab: usize) -> Result<ModelConfig> {
        let gated = self.block == BlockArg::Gated;
        let either = |given: Option<usize>, resolvent, of_gated| {
            given.unwrap_or(if gated { of_gated } else { resolvent })
        };
        if self.channels.is_some() && !gated {
            return Err(Error::Usage("--channels is for --block gated".into()));
        }
        let experts = either(self.experts, 4, 1);
        let config = ModelConfig {
            vocab,
            width: self.width,
            layers: either(self.layers, 4, 10),
            experts,
            top_k: self.top_k.unwrap_or(experts.min(2)),
            hidden: either(self.hidden, 256, 0),
            potentials: either(self.potentials, 64, 8),
            positions: self.positions,
            chain: match self.chain {
                ChainArg::Half => Chain::Half,
                ChainArg::Full => Chain::Full,
            },
            eta_floor: self.eta_floor.unwrap_or(if gated { 1.0 / 256.0 } else { 1.0 / 32.0 }),
            off_diagonal: 1.0,
            block: match self.block {
                BlockArg::Resolvent => Block::Resolvent,
                BlockArg::Gated => {
                    Block::Gated { channels: self.channels.unwrap_or(self.width.saturating_mul(2)) }
                }
            },
        };
        match config.problem() {
            Some(problem) => Err(Error::Usage(problem)),
            None => Ok(config),
        }
    }
}

impl RecipeArgs {
    /// The recipe of these flags, for a model with this position table.
    fn recipe(&self, positions: Option<usize>) -> Result<Recipe> {
        let optimizer = &self.optimizer;
        optimizer.check(Some(self.lr))?;
        numbers::check(
            &[],
            &[
                ("--weight-decay", self.weight_decay.into(), 100.0),
                ("--dropout", self.dropout.into(), 0.9),
            ],
        )?;
        Ok(Recipe {
            seed: self.seed,
            steps: self.steps,
            batch: optimizer.batch,
            window: numbers::fit_window(self.window, positions)?,
            shards: optimizer.shards,
            peak_rate: self.lr,
            final_fraction: optimizer.final_lr,
            warmup: optimizer.warmup,
            weight_decay: self.weight_decay,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            clip: optimizer.clip,
            dropout: self.dropout,
        })
    }
}

fn progress_bar(recipe: &Recipe, global: Global) -> Progress {
    let tokens = recipe.steps * (recipe.batch * recipe.window) as u64;
    let template = "{bar:24} {percent:>3}% {msg} · {rate} tokens/s · {eta} left";
    Progress::new(tokens, template, global)
}

fn show(bar: &Progress, recipe: &Recipe, event: Event) {
    let tokens = |step: u64| step * (recipe.batch * recipe.window) as u64;
    match event {
        Event::Resumed(step) => {
            bar.set_position(tokens(step));
            bar.reset_eta();
            bar.println(&format!("resumed after step {step}"));
        }
        Event::Step(step, result) => {
            bar.set_message(format!("step {step} loss {:.3} lr {:.1e}", result.loss, result.rate));
            bar.set_position(tokens(step));
        }
        Event::Validated(step, score) => {
            let bits = score.bits_per_byte();
            bar.println(&format!("step {step}: validation {bits:.4} bits per byte"));
        }
    }
}

fn report(summary: &Summary, path: &std::path::Path, global: Global) -> Result<()> {
    let (bits, perplexity) = (summary.score.bits_per_byte(), summary.score.perplexity());
    if global.json {
        let result = serde_json::json!({
            "model": escaped(path),
            "tokens": summary.tokens,
            "seconds": summary.seconds,
            "validation_bits_per_byte": bits,
            "validation_perplexity": perplexity,
        });
        writeln!(Stdout, "{result}")
    } else {
        writeln!(
            Stdout,
            "{}: validation {bits:.4} bits per byte, perplexity {perplexity:.2}",
            path.display()
        )
    }
}
