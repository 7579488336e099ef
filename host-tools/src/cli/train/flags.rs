//! Flags of `resnet-bk train`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::checkpoint::{Block, Chain, ModelConfig};
use crate::cli::common::{Force, TokenFileArgs};
use crate::cli::numbers;
use crate::cli::optimizer::OptimizerArgs;
use crate::error::{Error, Result};
use crate::train::Recipe;

use super::flash::{Flash, Shape};

const EXAMPLES: &str = "\
Examples:
  Train the reference model on a directory with train.txt and valid.txt (about half an hour on
  two cores); run the same command again to resume after an interruption:
      resnet-bk train --corpus data/wikitext-2 --out runs/reference

  A small model in a minute or two, to try things out:
      resnet-bk train --corpus data/wikitext-2 --out runs/tiny --vocab 320 --width 32 \\
          --layers 2 --experts 2 --hidden 64 --potentials 8 --steps 1500

  A gated chain: blocks with a memory (about an hour on two cores):
      resnet-bk train --corpus data/wikitext-2 --out runs/gated --block gated --lr 0.008 \\
          --weight-decay 0.2 --dropout 0.15 --batch 64 --steps 5000

  A model of one's own messages, a line each, for 64 KB of flash (some minutes):
      resnet-bk train --corpus data/messages --out runs/messages --flash 64K
      resnet-bk finetune runs/messages/model.safetensors --corpus data/messages \\
          --target-bytes 65536 --out messages.rbk

  The same with the predictions of earlier models as soft targets, which overfits less, so that
  it needs no dropout:
      resnet-bk train --corpus data/wikitext-2 --out runs/distilled --block gated --lr 0.008 \\
          --batch 64 --steps 5000 --teacher runs/gated/model.safetensors \\
          --teacher runs/another/model.safetensors

  With the tokenizer of another program, or on tokens that it wrote (train.npy and valid.npy):
      resnet-bk train --corpus data/wikitext-2 --out runs/gpt2 --tokenizer gpt2/tokenizer.json
      resnet-bk train --corpus data/tokens --out runs/tokens --vocab 50257

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
    /// Directory with train.txt and valid.txt, or with files of token ids of these names ending in
    /// .npy, .u16, .u32 or .bin [default: the directory in WIKITEXT2_DIR].
    #[arg(long, value_name = "DIR")]
    pub(super) corpus: Option<PathBuf>,
    #[command(flatten)]
    pub(super) tokens: TokenFileArgs,
    /// Output directory; created if missing.
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) force: Force,
    /// Tokenizer to use, instead of training one on train.txt: any tokenizer.json.
    #[arg(long, value_name = "FILE")]
    pub(super) tokenizer: Option<PathBuf>,
    /// Checkpoint with initial weights and dimensions, with its tokenizer.json beside it.
    #[arg(long, value_name = "FILE", conflicts_with = "tokenizer")]
    pub(super) init: Option<PathBuf>,
    /// Checkpoint, with its tokenizer.json beside it, or blob whose predictions are soft targets;
    /// may be repeated: predictions are averaged.
    #[arg(long, value_name = "FILE")]
    pub(super) teacher: Vec<PathBuf>,
    /// JSON-lines log [default: train.jsonl in the output directory].
    #[arg(long, value_name = "FILE")]
    pub(super) log: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Model")]
    pub(super) model: ModelArgs,
    #[command(flatten, next_help_heading = "Training")]
    pub(super) recipe: RecipeArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct ModelArgs {
    /// Size of flash that the model is to fit, quantized and with its tokenizer: a gated chain with
    /// the dimensions of the model of this size in models/, and learning rate, window and steps for
    /// it. Other flags say otherwise. `finetune --target-bytes` then makes the blob.
    #[arg(long, value_enum, conflicts_with_all = ["block", "init"], value_name = "SIZE")]
    pub(super) flash: Option<Flash>,
    /// Vocabulary size of the tokenizer to train, at least 256 [default: 1024]; for files of token
    /// ids, that of the model.
    #[arg(long, value_name = "N")]
    vocab: Option<usize>,
    /// Width of the residual stream [default: 128].
    #[arg(long, value_name = "N")]
    width: Option<usize>,
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
    pub(super) positions: Option<usize>,
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
pub(super) struct RecipeArgs {
    /// Seed of the initial weights and of the training windows.
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Number of steps [default: 11000].
    #[arg(long, value_parser = numbers::steps(), value_name = "N")]
    steps: Option<u64>,
    /// Tokens per window [default: 128, or the length of the position table if that is shorter].
    #[arg(long, value_parser = numbers::window(), value_name = "N")]
    window: Option<usize>,
    /// Weight decay of matrices.
    #[arg(long, default_value_t = 0.1, value_name = "X")]
    weight_decay: f32,
    /// Dropout of the experts' hidden activations, against overfitting.
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    dropout: f32,
    /// With --teacher: weight of the text's own tokens in the loss; the rest is the KL divergence
    /// to the teachers' predictions.
    #[arg(long, requires = "teacher", default_value_t = 0.2, value_name = "X")]
    cross_entropy: f32,
    /// Peak learning rate [default: 0.004].
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    #[command(flatten)]
    pub(super) optimizer: OptimizerArgs,
}

impl ModelArgs {
    /// What `--flash` says.
    pub(super) fn shape(&self) -> Option<Shape> {
        self.flash.map(Flash::shape)
    }

    /// The vocabulary size that was asked for.
    pub(super) fn asked_vocab(&self) -> Option<usize> {
        self.vocab
    }

    /// Vocabulary size of the tokenizer to train.
    pub(super) fn vocab(&self) -> usize {
        self.vocab.or(self.shape().map(|shape| shape.vocab)).unwrap_or(1024)
    }

    pub(super) fn config(&self, vocab: usize) -> Result<ModelConfig> {
        let shape = self.shape();
        let gated = self.block == BlockArg::Gated || shape.is_some();
        let of_flash = |size: fn(&Shape) -> usize| shape.as_ref().map(size);
        let either = |given: Option<usize>, resolvent, of_gated| {
            given.unwrap_or(if gated { of_gated } else { resolvent })
        };
        let width = self.width.or(of_flash(|shape| shape.width)).unwrap_or(128);
        let channels = self.channels.or(of_flash(|shape| shape.channels));
        if self.channels.is_some() && !gated {
            return Err(Error::Usage("--channels is for --block gated".into()));
        }
        let experts = either(self.experts, 4, 1);
        let config = ModelConfig {
            vocab,
            width,
            layers: either(self.layers.or(of_flash(|shape| shape.layers)), 4, 10),
            experts,
            top_k: self.top_k.unwrap_or(experts.min(2)),
            hidden: either(self.hidden, 256, 0),
            potentials: either(self.potentials.or(of_flash(|shape| shape.potentials)), 64, 8),
            positions: self.positions,
            chain: match self.chain {
                ChainArg::Half => Chain::Half,
                ChainArg::Full => Chain::Full,
            },
            eta_floor: self.eta_floor.unwrap_or(if gated { 1.0 / 256.0 } else { 1.0 / 32.0 }),
            off_diagonal: 1.0,
            block: match gated {
                false => Block::Resolvent,
                true => Block::Gated { channels: channels.unwrap_or(width.saturating_mul(2)) },
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
    pub(super) fn recipe(
        &self,
        positions: Option<usize>,
        distils: bool,
        shape: Option<&Shape>,
    ) -> Result<Recipe> {
        let optimizer = &self.optimizer;
        let peak_rate = self.lr.or(shape.map(|shape| shape.rate)).unwrap_or(4e-3);
        optimizer.check(Some(peak_rate))?;
        numbers::check(
            &[],
            &[
                ("--weight-decay", self.weight_decay.into(), 100.0),
                ("--dropout", self.dropout.into(), 0.9),
                ("--cross-entropy", self.cross_entropy.into(), 1.0),
            ],
        )?;
        Ok(Recipe {
            seed: self.seed,
            steps: self.steps.or(shape.map(|shape| shape.steps)).unwrap_or(11_000),
            batch: optimizer.batch,
            window: numbers::fit_window(
                self.window.or(shape.map(|shape| shape.window)),
                positions,
            )?,
            shards: optimizer.shards,
            peak_rate,
            final_fraction: optimizer.final_lr,
            warmup: optimizer.warmup,
            weight_decay: self.weight_decay,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            clip: optimizer.clip,
            dropout: self.dropout,
            cross_entropy: distils.then_some(self.cross_entropy),
        })
    }
}
