//! Training flags of fine-tuning.

use crate::cli::common::Loaded;
use crate::cli::numbers;
use crate::cli::optimizer::OptimizerArgs;
use crate::cli::quantize::QuantizeArgs;
use crate::error::{Error, Result};
use crate::finetune::Recipe;
use crate::reference::Distillation;
use crate::train;

/// Training tokens if the checkpoint does not record its own.
const FALLBACK_TOKENS: u64 = 2_000_000;

/// Learning rate at a KL divergence of 1 nat per token.
const RATE: f64 = 1.2e-3;

#[derive(Debug, clap::Args)]
#[command(
    mut_arg("warmup", |flag| flag.default_value("50")),
    mut_arg("beta2", |flag| flag.default_value("0.99")),
    mut_arg("validate_every", |flag| flag.default_value("100")),
    mut_arg("save_every", |flag| flag.default_value("100"))
)]
pub(super) struct RecipeArgs {
    /// Training tokens, at most a quarter of those that the checkpoint was trained on [default:
    /// that quarter; 2000000 if the checkpoint does not record it].
    #[arg(long, value_name = "N")]
    train_tokens: Option<u64>,
    /// Number of rounds, which share those tokens; each but the first chooses a target's precisions
    /// anew for the weights trained so far.
    #[arg(long, value_parser = numbers::within(1..=64), default_value_t = 1, value_name = "N")]
    pub(super) rounds: usize,
    /// Peak learning rate of weights [default: 0.0012 times the square root of the round's initial
    /// KL divergence, which is roughly proportional to the step between codes].
    #[arg(long, value_name = "X")]
    lr: Option<f64>,
    #[command(flatten)]
    pub(super) optimizer: OptimizerArgs,
    /// Learning rate of the logarithms of scales, relative to that of weights; 0 keeps scales
    /// fixed.
    #[arg(long, default_value_t = 0.2, value_name = "X")]
    scale_lr: f32,
    /// Fraction of the training tokens replaced by random ones, against forgetting what the text
    /// lacks.
    #[arg(long, default_value_t = 0.05, value_name = "X")]
    replaced: f64,
    /// Fraction of the steps, at the start, that train only scales, biases and chains.
    #[arg(long, default_value_t = 0.05, value_name = "X")]
    first_stage: f64,
    /// Distillation temperature; values above 1 give unlikely tokens more weight.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    temperature: f32,
    /// Weight of the cross-entropy on the text in the loss; the rest is the KL divergence to the
    /// teacher.
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    cross_entropy: f32,
    /// Tokens of the validation split, which selects the best step.
    #[arg(long, value_parser = numbers::tokens(1), default_value_t = 65_536, value_name = "N")]
    pub(super) validation_tokens: usize,
    /// Early stopping: number of validations without improvement, counted in the second half of the
    /// steps, where the learning rate is low; 0 disables it.
    #[arg(long, default_value_t = 8, value_name = "N")]
    patience: u64,
}

impl RecipeArgs {
    /// Chooses the learning rate for a blob of this KL divergence, unless given.
    ///
    /// The KL divergence is quadratic in the rounding error of weights; the noise of codes that
    /// flip back and forth is quadratic in the learning rate. The square root keeps them in
    /// proportion.
    pub(super) fn choose_rate(
        &self,
        recipe: &mut Recipe,
        kl: impl FnOnce() -> Result<f64>,
    ) -> Result<()> {
        if self.lr.is_none() {
            recipe.training.peak_rate = RATE * kl()?.sqrt();
        }
        Ok(())
    }

    /// The recipe of these flags.
    pub(super) fn recipe(&self, making: &QuantizeArgs, loaded: &Loaded) -> Result<Recipe> {
        let (optimizer, window) = (&self.optimizer, making.text.window);
        optimizer.check(self.lr)?;
        numbers::check(
            &[("--temperature", self.temperature.into())],
            &[
                ("--scale-lr", self.scale_lr.into(), 1000.0),
                ("--replaced", self.replaced, 1.0),
                ("--first-stage", self.first_stage, 1.0),
                ("--cross-entropy", self.cross_entropy.into(), 1.0),
            ],
        )?;
        let steps = self.tokens(loaded)? / (optimizer.batch * window * self.rounds) as u64;
        if steps == 0 {
            return Err(Error::Usage(
                "--train-tokens is too small for one step of --batch windows in every round".into(),
            ));
        }
        if self.rounds > 1 && !making.has_target() {
            return Err(Error::Usage(
                "--rounds above 1 chooses precisions again, but a policy or a blob fixes them: \
                 name a target instead"
                    .into(),
            ));
        }
        Ok(Recipe {
            training: train::Recipe {
                seed: making.text.seed,
                steps,
                batch: optimizer.batch,
                window,
                shards: optimizer.shards,
                peak_rate: self.lr.unwrap_or(RATE),
                final_fraction: optimizer.final_lr,
                warmup: optimizer.warmup,
                weight_decay: 0.0,
                beta1: optimizer.beta1,
                beta2: optimizer.beta2,
                clip: optimizer.clip,
                dropout: 0.0,
                cross_entropy: None,
            },
            distillation: Distillation {
                temperature: self.temperature,
                cross_entropy: self.cross_entropy,
            },
            replaced: self.replaced,
            first_stage: (steps as f64 * self.first_stage) as u64,
            scale_rate: self.scale_lr,
            patience: self.patience,
        })
    }

    /// Number of training tokens, at most a quarter of the checkpoint's: more would amount to
    /// continued training.
    fn tokens(&self, loaded: &Loaded) -> Result<u64> {
        let most = loaded.checkpoint.training_tokens().map(|tokens| tokens / 4);
        match (self.train_tokens, most) {
            (Some(wanted), Some(most)) if wanted > most => Err(Error::Usage(format!(
                "--train-tokens {wanted} is more than {most}, a quarter of those that the checkpoint was \
                 trained on"
            ))),
            (Some(wanted), _) => Ok(wanted),
            (None, most) => Ok(most.unwrap_or(FALLBACK_TOKENS)),
        }
    }
}
