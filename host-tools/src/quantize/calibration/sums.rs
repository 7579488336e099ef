//! Sums over the positions of a text, from which statistics of layers follow.

use std::collections::BTreeMap;

use super::channels::ChannelSums;
use super::statistics::{OutputMoments, Statistics, Symmetric};
use crate::reference::{LayerGradient, LinearGradient, add_gram};
use crate::tensors::feeds_a_choice;

/// Sums of every layer, by name.
#[derive(Default)]
pub(super) struct Sums {
    layers: BTreeMap<String, LayerSums>,
    convolutions: BTreeMap<String, ChannelSums>,
    scratch: Vec<f64>,
}

/// Sums over rows: x and x·xᵀ weighted by |g|², g·gᵀ weighted by |x|² + 1 (the 1 is the bias's
/// input).
#[derive(Default)]
struct LayerSums {
    rows: usize,
    weight: f64,
    mean: Vec<f64>,
    inputs: Vec<f64>,
    /// `[N, N]`, or `[N]` where only the diagonal is wanted.
    outputs: Vec<f64>,
    diagonal: bool,
}

impl Sums {
    /// Adds what a backward pass saw of a layer.
    pub(super) fn add_layer(&mut self, seen: LayerGradient<'_, f32>) {
        match seen {
            LayerGradient::Linear(seen) => self.add_linear(seen),
            LayerGradient::Convolution(seen) => {
                if !self.convolutions.contains_key(seen.name) {
                    self.convolutions.insert(seen.name.into(), ChannelSums::default());
                }
                self.convolutions.get_mut(seen.name).expect("inserted just above").add_rows(seen);
            }
        }
    }

    fn add_linear(&mut self, seen: LinearGradient<'_, f32>) {
        let rows = seen.rows;
        if rows == 0 {
            return;
        }
        let outputs = seen.outputs.len() / rows;
        if !self.layers.contains_key(seen.name) {
            self.layers.insert(seen.name.into(), LayerSums::default());
        }
        let layer = self.layers.get_mut(seen.name).expect("inserted just above");
        layer.rows += rows;
        layer.diagonal = feeds_a_choice(seen.name);
        layer.outputs.resize(if layer.diagonal { outputs } else { outputs * outputs }, 0.0);
        let inputs = seen.inputs.len() / rows;
        layer.mean.resize(inputs, 0.0);
        layer.inputs.resize(inputs * inputs, 0.0);
        let square = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let scratch = &mut self.scratch;
        scratch.clear();
        for r in 0..rows {
            let (x, g) =
                (&seen.inputs[r * inputs..][..inputs], &seen.outputs[r * outputs..][..outputs]);
            let factor = if inputs == 0 { 1.0 } else { (square(x) + 1.0).sqrt() };
            scratch.extend(g.iter().map(|&g| f64::from(g) * factor));
        }
        if layer.diagonal {
            for row in scratch.chunks_exact(outputs) {
                layer.outputs.iter_mut().zip(row).for_each(|(sum, g)| *sum += g * g);
            }
        } else {
            add_gram(&mut layer.outputs, scratch, outputs);
        }
        if inputs == 0 {
            return;
        }
        scratch.clear();
        for r in 0..rows {
            let (x, g) =
                (&seen.inputs[r * inputs..][..inputs], &seen.outputs[r * outputs..][..outputs]);
            let weight = square(g);
            layer.weight += weight;
            layer.mean.iter_mut().zip(x).for_each(|(sum, &x)| *sum += weight * f64::from(x));
            let factor = weight.sqrt();
            scratch.extend(x.iter().map(|&x| f64::from(x) * factor));
        }
        add_gram(&mut layer.inputs, scratch, inputs);
    }

    /// Adds the sums of another part of the text.
    pub(super) fn add(&mut self, other: Self) {
        for (name, sums) in other.layers {
            self.layers.entry(name).or_default().add(&sums);
        }
        for (name, sums) in other.convolutions {
            self.convolutions.entry(name).or_default().add(&sums);
        }
    }

    /// Statistics of linear layers and embeddings, and of every channel of the convolutions.
    pub(super) fn finish(
        self,
    ) -> (BTreeMap<String, Statistics>, BTreeMap<String, Vec<Statistics>>) {
        let layers = self.layers.into_iter().map(|(name, sums)| (name, sums.finish()));
        let convolutions = self.convolutions.into_iter().map(|(name, sums)| (name, sums.finish()));
        (layers.collect(), convolutions.collect())
    }
}

impl LayerSums {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.diagonal |= other.diagonal;
        self.weight += other.weight;
        for (own, other) in [
            (&mut self.mean, &other.mean),
            (&mut self.inputs, &other.inputs),
            (&mut self.outputs, &other.outputs),
        ] {
            own.resize(other.len(), 0.0);
            own.iter_mut().zip(other).for_each(|(a, b)| *a += b);
        }
    }

    fn finish(mut self) -> Statistics {
        let count = self.rows.max(1) as f64;
        self.outputs.iter_mut().for_each(|value| *value /= count);
        let full = |values: Vec<f64>| Symmetric { size: values.len().isqrt(), values };
        if self.mean.is_empty() {
            let inputs = full(self.outputs);
            return Statistics {
                rows: self.rows,
                mean: vec![0.0; inputs.size],
                shift: vec![0.0; inputs.size],
                inputs,
                outputs: OutputMoments::None,
            };
        }
        let outputs = match self.diagonal {
            true => OutputMoments::Diagonal(self.outputs),
            false => OutputMoments::Full(full(self.outputs)),
        };
        let weight = self.weight.max(f64::MIN_POSITIVE);
        self.mean.iter_mut().for_each(|value| *value /= weight);
        let size = self.mean.len();
        for (i, row) in self.inputs.chunks_exact_mut(size).enumerate() {
            for (value, mean) in row.iter_mut().zip(&self.mean) {
                *value = *value / weight - self.mean[i] * mean;
            }
        }
        let inputs = Symmetric { size, values: self.inputs };
        let shift = vec![0.0; size];
        Statistics { rows: self.rows, mean: self.mean, shift, inputs, outputs }
    }
}
