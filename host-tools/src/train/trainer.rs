//! One training step on several threads, bit-reproducible.

use crate::checkpoint::ModelConfig;
use crate::error::{Error, Result};
use crate::memory;
use crate::reference::{Model, SoftTargets, SoftWindows, Tape};
use crate::threads;
use crate::train::adamw::{AdamW, Update, decays};
use crate::train::batch::{Batch, CHUNK, Shard};
use crate::train::initial::initial_model;
use crate::train::random::Random;
use crate::train::schedule::learning_rate;
use serde::{Deserialize, Serialize};

/// Every setting that affects the weights, besides data and dimensions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Seed of initial weights and windows.
    pub seed: u64,
    /// Number of steps.
    pub steps: u64,
    /// Windows per step.
    pub batch: usize,
    /// Tokens per window.
    pub window: usize,
    /// Shards of a batch, each computed by one thread. Part of the recipe, since shards (not
    /// threads) fix the order of additions.
    pub shards: usize,
    /// Highest learning rate.
    pub peak_rate: f64,
    /// Final learning rate as a fraction of the peak.
    pub final_fraction: f64,
    /// Steps of linear warm-up.
    pub warmup: u64,
    /// AdamW's weight decay, on matrices.
    pub weight_decay: f32,
    /// AdamW's decay of the first moment.
    pub beta1: f32,
    /// AdamW's decay of the second moment.
    pub beta2: f32,
    /// Gradient-norm clipping threshold.
    pub clip: f64,
    /// Dropout of the experts' hidden activations, rounded to 256ths.
    pub dropout: f32,
    /// Weight of the text's own tokens beside soft targets, 0 to 1; without soft targets there is
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cross_entropy: Option<f32>,
}

impl Recipe {
    /// Learning rate of a step, counted from 0.
    pub(crate) fn rate(&self, step: u64) -> f64 {
        learning_rate(step, self.steps, self.warmup, self.peak_rate, self.final_fraction)
    }

    /// The optimizer update of a step.
    pub(crate) fn update(&self, step: u64, rate: f64, clipping: f64) -> Update {
        let Self { beta1, beta2, weight_decay, .. } = *self;
        AdamW { beta1, beta2, epsilon: 1e-8, weight_decay }.update(step, rate, clipping)
    }
}

/// Model and optimizer during a run.
pub struct Trainer {
    pub(crate) model: Model,
    pub(crate) recipe: Recipe,
    /// Steps done.
    pub(crate) step: u64,
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
    decays: Vec<f32>,
    batch: Batch,
    tapes: Vec<Tape>,
}

/// Result of a step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Mean loss of the batch before the step, in nats per token.
    pub loss: f64,
    /// Learning rate.
    pub rate: f64,
    /// Gradient norm before gradient-norm clipping.
    pub gradient_norm: f64,
}

impl Trainer {
    /// A new run.
    pub fn new(config: ModelConfig, recipe: Recipe) -> Result<Self> {
        Ok(Self::from_model(initial_model(config, recipe.seed)?, recipe))
    }

    /// A new run that starts from trained weights.
    pub fn from_model(model: Model, recipe: Recipe) -> Self {
        let zeros = vec![0.0; model.parameters().len()];
        Self::from_parts(model, recipe, 0, zeros.clone(), zeros)
    }

    pub(crate) fn from_parts(
        model: Model,
        recipe: Recipe,
        step: u64,
        first: Vec<f32>,
        second: Vec<f32>,
    ) -> Self {
        let n = model.parameters().len();
        let shards = recipe.shards.clamp(1, recipe.batch);
        Self {
            decays: decays(&model),
            batch: Batch::new(shards, n),
            tapes: threads::states(shards.min(memory::threads(n)), Tape::default),
            model,
            recipe,
            step,
            first,
            second,
        }
    }

    /// The current model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Number of steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Draws a batch from `tokens`, which must hold a window and the token after it, and takes one
    /// optimizer step. `soft` are soft targets of the same text.
    pub fn step(&mut self, tokens: &[u32], soft: Option<&SoftTargets>) -> Result<Step> {
        let Recipe { seed, batch, window, clip, dropout, .. } = self.recipe;
        self.batch.draw(tokens, (batch, window), Random::step(seed, self.step));
        let scale = 1.0 / (batch * window) as f32;
        let cross_entropy = self.recipe.cross_entropy.unwrap_or(0.0);
        let (model, random) = (&self.model, Random::dropout(seed, self.step));
        let work = |tape: &mut Tape, shard: &Shard, gradient: &mut [f32], seed| {
            tape.set_dropout(dropout, seed);
            let Shard { starts, inputs, targets, .. } = shard;
            let Some(text) = soft else {
                return model.add_gradient(inputs, targets, window, scale, tape, gradient);
            };
            let soft = SoftWindows { text, starts, cross_entropy };
            let targets = (targets.as_slice(), soft);
            model.add_soft_gradient(inputs, targets, window, scale, tape, gradient)
        };
        let (nats, gradient_norm) = self.batch.backward(&mut self.tapes, random, work);
        let loss = nats / (batch * window) as f64;
        if !loss.is_finite() {
            return Err(Error::Diverged { step: self.step, loss });
        }
        let rate = self.recipe.rate(self.step);
        let clipping = if gradient_norm > clip { clip / gradient_norm } else { 1.0 };
        self.update(rate, clipping);
        self.step += 1;
        Ok(Step { loss, rate, gradient_norm })
    }

    fn update(&mut self, rate: f64, clipping: f64) {
        let update = self.recipe.update(self.step, rate, clipping);
        let moments = self.first.chunks_mut(CHUNK).zip(self.second.chunks_mut(CHUNK));
        let constants = self.batch.gradient.chunks(CHUNK).zip(self.decays.chunks(CHUNK));
        let parameters = self.model.parameters_mut().chunks_mut(CHUNK);
        let items = parameters.zip(moments).zip(constants);
        threads::for_each(&mut self.tapes, items, |_, ((p, (m, v)), (g, d))| {
            update.apply(p, m, v, g, d);
        });
    }
}
