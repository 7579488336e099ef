//! One training step, on several threads, reproducible to the bit.

use crate::checkpoint::ModelConfig;
use crate::error::{Error, Result};
use crate::reference::{Model, Tape};
use crate::train::adamw::{AdamW, decays};
use crate::train::initial::initial_model;
use crate::train::parallel;
use crate::train::random::Random;
use crate::train::schedule::learning_rate;
use serde::{Deserialize, Serialize};

/// Everything that decides the weights that come out, beside the data and the dimensions.
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
    /// Parts that a batch is split into, each added up by one thread. The parts, not the threads,
    /// decide the order of additions, so this is part of the recipe.
    pub shards: usize,
    /// Highest learning rate.
    pub peak_rate: f64,
    /// Last learning rate, as a fraction of the highest.
    pub final_fraction: f64,
    /// Steps over which the learning rate rises.
    pub warmup: u64,
    /// AdamW's weight decay, on matrices.
    pub weight_decay: f32,
    /// AdamW's decay of the first moment.
    pub beta1: f32,
    /// AdamW's decay of the second moment.
    pub beta2: f32,
    /// Gradients longer than this are shortened to it.
    pub clip: f64,
    /// Share of the experts' hidden activations that is dropped, in 256ths.
    pub dropout: f32,
}

/// Model and optimizer in the middle of a training run.
pub struct Trainer {
    pub(crate) model: Model,
    pub(crate) recipe: Recipe,
    /// Steps done.
    pub(crate) step: u64,
    pub(crate) first: Vec<f32>,
    pub(crate) second: Vec<f32>,
    decays: Vec<f32>,
    gradient: Vec<f32>,
    shards: Vec<Shard>,
    tapes: Vec<Tape>,
}

/// One part of a batch.
#[derive(Default)]
struct Shard {
    inputs: Vec<u32>,
    targets: Vec<u32>,
    gradient: Vec<f32>,
    nats: f64,
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Mean loss of the batch before the step, in nats per token.
    pub loss: f64,
    /// Learning rate.
    pub rate: f64,
    /// Length of the gradient before clipping.
    pub gradient_norm: f64,
}

/// Parameters that a thread updates at a time; part of the recipe in that it fixes the order in
/// which the gradient's squares are summed.
const CHUNK: usize = 1 << 14;

impl Trainer {
    /// A run at its beginning.
    pub fn new(config: ModelConfig, recipe: Recipe, threads: usize) -> Result<Self> {
        Ok(Self::from_model(initial_model(config, recipe.seed)?, recipe, threads))
    }

    /// A run at its beginning that goes on from trained weights.
    pub fn from_model(model: Model, recipe: Recipe, threads: usize) -> Self {
        let zeros = vec![0.0; model.parameters().len()];
        Self::from_parts(model, recipe, 0, zeros.clone(), zeros, threads)
    }

    pub(crate) fn from_parts(
        model: Model,
        recipe: Recipe,
        step: u64,
        first: Vec<f32>,
        second: Vec<f32>,
        threads: usize,
    ) -> Self {
        let n = model.parameters().len();
        let shards = recipe.shards.clamp(1, recipe.batch);
        Self {
            decays: decays(&model),
            gradient: vec![0.0; n],
            shards: (0..shards).map(|_| Shard::default()).collect(),
            tapes: (0..threads.clamp(1, shards)).map(|_| Tape::default()).collect(),
            model,
            recipe,
            step,
            first,
            second,
        }
    }

    /// The model as it is now.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Number of steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Draws a batch from `tokens`, which must hold a window and the token after it, and takes one
    /// step along its gradient.
    pub fn step(&mut self, tokens: &[u32]) -> Result<Step> {
        self.draw(tokens);
        let Recipe { batch, window, clip, .. } = self.recipe;
        let scale = 1.0 / (batch * window) as f32;
        let model = &self.model;
        let (dropout, mut random) =
            (self.recipe.dropout, Random::dropout(self.recipe.seed, self.step));
        let shards = self.shards.iter_mut().map(|shard| (shard, random.word()));
        parallel::for_each(&mut self.tapes, shards, |tape, (shard, seed)| {
            tape.set_dropout(dropout, seed);
            shard.gradient.resize(model.parameters().len(), 0.0);
            shard.gradient.fill(0.0);
            let Shard { inputs, targets, gradient, .. } = shard;
            shard.nats = model.add_gradient(inputs, targets, window, scale, tape, gradient);
        });
        let loss = self.shards.iter().map(|s| s.nats).sum::<f64>() / (batch * window) as f64;
        if !loss.is_finite() {
            return Err(Error::Diverged { step: self.step, loss });
        }
        let gradient_norm = self.reduce();
        let rate = self.rate();
        let shorten = if gradient_norm > clip { clip / gradient_norm } else { 1.0 };
        self.update(rate, shorten);
        self.step += 1;
        Ok(Step { loss, rate, gradient_norm })
    }

    fn rate(&self) -> f64 {
        let r = &self.recipe;
        learning_rate(self.step, r.steps, r.warmup, r.peak_rate, r.final_fraction)
    }

    /// Fills the shards with random windows.
    fn draw(&mut self, tokens: &[u32]) {
        let Recipe { seed, batch, window, .. } = self.recipe;
        let mut random = Random::step(seed, self.step);
        let count = self.shards.len();
        for (i, shard) in self.shards.iter_mut().enumerate() {
            shard.inputs.clear();
            shard.targets.clear();
            for _ in i * batch / count..(i + 1) * batch / count {
                let start = random.below(tokens.len() - window);
                shard.inputs.extend_from_slice(&tokens[start..start + window]);
                shard.targets.extend_from_slice(&tokens[start + 1..start + 1 + window]);
            }
        }
    }

    /// Adds up the shards' gradients, in their order, and returns the length of the sum.
    fn reduce(&mut self) -> f64 {
        let shards = &self.shards;
        let chunks = self.gradient.chunks_mut(CHUNK);
        let mut squares = vec![0.0f64; chunks.len()];
        let items = chunks.zip(&mut squares).enumerate();
        parallel::for_each(&mut self.tapes, items, |_, (i, (gradient, square))| {
            let range = i * CHUNK..i * CHUNK + gradient.len();
            gradient.copy_from_slice(&shards[0].gradient[range.clone()]);
            for shard in &shards[1..] {
                for (sum, &g) in gradient.iter_mut().zip(&shard.gradient[range.clone()]) {
                    *sum += g;
                }
            }
            *square = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
        });
        squares.iter().sum::<f64>().sqrt()
    }

    fn update(&mut self, rate: f64, shorten: f64) {
        let Recipe { beta1, beta2, weight_decay, .. } = self.recipe;
        let optimizer = AdamW { beta1, beta2, epsilon: 1e-8, weight_decay };
        let update = optimizer.update(self.step, rate, shorten);
        let moments = self.first.chunks_mut(CHUNK).zip(self.second.chunks_mut(CHUNK));
        let constants = self.gradient.chunks(CHUNK).zip(self.decays.chunks(CHUNK));
        let parameters = self.model.parameters_mut().chunks_mut(CHUNK);
        let items = parameters.zip(moments).zip(constants);
        parallel::for_each(&mut self.tapes, items, |_, ((p, (m, v)), (g, d))| {
            update.apply(p, m, v, g, d);
        });
    }
}
