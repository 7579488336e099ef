//! Calibration: second moments of every matrix's inputs, and the sensitivity of the model's
//! predictions to its outputs.
//!
//! To second order, an error E of a matrix costs a KL divergence of ½·E\[(gᵀ E x)²\], with x the
//! inputs and g the gradient of the log-likelihood of a token sampled from the model (the Fisher
//! information is the Hessian of the KL divergence). Approximated as a Kronecker product (Martens
//! and Grosse, 2015) that is tr(G E A Eᵀ), with A the second moment of the inputs and G that of the
//! gradients; each is weighted by the squared norm of the other, as the nearest Kronecker product
//! requires.
//!
//! Every linear layer has a bias that compensates the mean error, so A is centred. A channel of a
//! convolution has a bias and four inputs of its own, hence an A of its own (`channels`).

mod channels;
mod statistics;
mod sums;
mod turns;

pub use statistics::{OutputMoments, Statistics, Symmetric};

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use resnet_bk_core::blob::{TAPS, TensorId};

use self::turns::Turns;
use super::expectation::{Counts, Expectation};
use crate::error::{Error, Result};
use crate::memory;
use crate::reference::{LayerGradient, LinearCall, Model, Observer, Tape, windows_per_pass};
use crate::tensors::{dimensions, is_linear, layer_name};
use crate::threads;

/// Statistics of every matrix by layer name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    layers: BTreeMap<String, Statistics>,
    /// Of every channel of the convolutions, which have inputs of their own.
    convolutions: BTreeMap<String, Vec<Statistics>>,
    /// Occurrences of each token in the text.
    counts: Counts,
    /// How well the text matches the model's predictions.
    expectation: Expectation,
}

impl Calibration {
    /// Runs the (folded) model forward and backward over windows of `window` tokens. The result
    /// depends on the seed, which samples the tokens, but not on the number of threads; other kinds
    /// of processors round sums in another order ([`crate::quantize`]).
    ///
    /// # Errors
    ///
    /// [`Error::Overflow`] where the model computes infinities or NaNs: statistics would be
    /// meaningless.
    pub fn collect(
        model: &Model,
        tokens: &[u32],
        window: usize,
        seed: u64,
        progress: impl Fn(f64) + Sync,
    ) -> Result<Self> {
        let windows = tokens.len() / window;
        let tokens = &tokens[..windows * window];
        let counts = Counts::of(tokens);
        let dims = dimensions(model.config());
        let names = |convolutions: bool| {
            let of_kind =
                move |id: &TensorId| matches!(id, TensorId::Convolution(_)) == convolutions;
            dims.tensors().filter(of_kind).map(layer_name)
        };
        let turns = Turns::new(names(false), names(true));
        let batches: Vec<&[u32]> =
            tokens.chunks(window * windows_per_pass(model.config().vocab, window)).collect();
        let mut found: Vec<Result<Expectation>> =
            batches.iter().map(|_| Ok(Expectation::default())).collect();
        let progress = threads::Progress::new(tokens.len(), progress);
        let buffers = memory::threads(model.parameters().len());
        let mut states = threads::states(batches.len().min(buffers), || {
            (Tape::default(), vec![0.0; model.parameters().len()], Vec::new())
        });
        let items = batches.iter().zip(&mut found).enumerate();
        threads::for_each(
            &mut states,
            items,
            |(tape, gradient, scratch), (index, (batch, found))| {
                let pass = turns.pass(index);
                model.forward_tape(batch, window, tape);
                if !tape.logits.iter().all(|logit| logit.is_finite()) {
                    *found = Err(overflow(model, batch, window));
                    return;
                }
                if let Ok(expectation) = found {
                    expectation.add(&tape.logits, batch, window, &counts);
                }
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(index as u64);
                let drawn = draw(&tape.logits, batch.len(), &mut random);
                let mut each = |seen: LayerGradient<'_, f32>| {
                    pass.add(seen, scratch);
                    false
                };
                model.backward_tape(batch, &drawn, window, 1.0, tape, gradient, &mut each);
                progress.add(batch.len());
            },
        );
        let mut expectation = Expectation::default();
        for part in found {
            expectation.merge(&part?);
        }
        let (mut layers, convolutions) = turns.finish();
        for id in dims.tensors().filter(|&id| is_linear(id)) {
            let (rows, cols) = dims.shape(id);
            let unknown = || Statistics::unknown(rows as usize, cols as usize);
            layers.entry(layer_name(id)).or_insert_with(unknown);
        }
        // Gradients propagate from the output: the last affected layer overflowed first.
        let ids: Vec<String> = dims.tensors().map(layer_name).collect();
        let broken = |name: &&String| {
            let channels = convolutions.get(*name).into_iter().flatten();
            layers.get(*name).into_iter().chain(channels).any(|layer| !layer.is_finite())
        };
        if let Some(layer) = ids.iter().rev().find(broken) {
            return Err(overflow_in(layer));
        }
        Ok(Self { layers, convolutions, counts, expectation })
    }

    /// How well the text matches the model's predictions.
    pub fn expectation(&self) -> &Expectation {
        &self.expectation
    }

    /// Statistics of a layer's `[rows, cols]` matrix; uncorrelated inputs and outputs if the text
    /// never reached it.
    pub fn statistics(&self, layer: &str, rows: usize, cols: usize) -> Statistics {
        self.layers.get(layer).cloned().unwrap_or_else(|| Statistics::unknown(rows, cols))
    }

    /// Statistics of each channel of a convolution; uncorrelated inputs for all of them without a
    /// text.
    pub fn of_channels(&self, layer: &str) -> Vec<Statistics> {
        let unknown = || vec![Statistics::unknown(1, TAPS)];
        self.convolutions.get(layer).cloned().unwrap_or_else(unknown)
    }

    /// Sets the mean shift of a layer's inputs; ignored for a layer that the text never reached,
    /// and for a convolution: its inputs are outputs of a linear layer, whose biases have just
    /// corrected their mean.
    pub fn set_shift(&mut self, layer: &str, shift: Vec<f64>) {
        if let Some(statistics) = self.layers.get_mut(layer) {
            statistics.shift = shift;
        }
    }

    /// Occurrences of a token in the text.
    pub fn count(&self, token: u32) -> usize {
        self.counts.of_token(token)
    }

    /// Statistics of a layer, for rearranging them.
    pub(super) fn layer_mut(&mut self, layer: &str) -> Option<&mut Statistics> {
        self.layers.get_mut(layer)
    }

    /// Name and number of rows seen of every linear layer and embedding.
    pub fn rows(&self) -> impl Iterator<Item = (&str, usize)> {
        self.layers.iter().map(|(name, layer)| (name.as_str(), layer.rows))
    }
}

/// Error naming the first layer with non-finite outputs on a batch.
fn overflow(model: &Model, batch: &[u32], window: usize) -> Error {
    struct First(Option<String>);
    impl Observer for First {
        fn linear(&mut self, call: LinearCall<'_>) {
            if self.0.is_none() && !call.outputs.iter().all(|value| value.is_finite()) {
                self.0 = Some(call.name.into());
            }
        }
    }
    let mut first = First(None);
    model.forward_observed(batch, window, &mut first);
    overflow_in(first.0.as_deref().unwrap_or("lm_head"))
}

fn overflow_in(layer: &str) -> Error {
    Error::Overflow { what: format!("layer `{layer}`"), text: "the calibration text" }
}

/// Samples a token from the model's distribution for every row of logits.
fn draw(logits: &[f32], rows: usize, random: &mut ChaCha8Rng) -> Vec<u32> {
    let row = |row: &[f32]| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = row.iter().map(|x| (x - largest).exp()).collect();
        let mut left = random.random_range(0.0..1.0f32) * weights.iter().sum::<f32>();
        let hit = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        hit.unwrap_or(weights.len() - 1) as u32
    };
    logits.chunks_exact(logits.len() / rows.max(1)).map(row).collect()
}
