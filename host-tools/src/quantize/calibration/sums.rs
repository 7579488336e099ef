//! Sums over the positions of a text, from which a layer's statistics follow.

use super::channels::ChannelSums;
use super::statistics::{OutputMoments, Statistics, Symmetric};
use crate::reference::{LayerGradient, LinearGradient, add_gram, mirror};
use crate::tensors::feeds_a_choice;

/// Sums of one layer.
pub(super) enum Sums {
    Linear(LayerSums),
    Convolution(ChannelSums),
}

/// Sums over rows: x and x·xᵀ weighted by |g|², g·gᵀ weighted by |x|² + 1 (the 1 is the bias's
/// input).
#[derive(Default)]
pub(super) struct LayerSums {
    rows: usize,
    weight: f64,
    mean: Vec<f64>,
    inputs: Vec<f64>,
    /// `[N, N]`, or `[N]` where only the diagonal is wanted.
    outputs: Vec<f64>,
    diagonal: bool,
}

impl Sums {
    /// Adds what a backward pass saw of the layer. `scratch` is a buffer.
    pub(super) fn add(&mut self, seen: LayerGradient<'_, f32>, scratch: &mut Vec<f64>) {
        match (self, seen) {
            (Self::Linear(sums), LayerGradient::Linear(seen)) => sums.add(seen, scratch),
            (Self::Convolution(sums), LayerGradient::Convolution(seen)) => sums.add_rows(seen),
            _ => unreachable!("a layer is of one kind"),
        }
    }
}

impl LayerSums {
    fn add(&mut self, seen: LinearGradient<'_, f32>, scratch: &mut Vec<f64>) {
        let rows = seen.rows;
        if rows == 0 {
            return;
        }
        let outputs = seen.outputs.len() / rows;
        self.rows += rows;
        self.diagonal = feeds_a_choice(seen.name);
        self.outputs.resize(if self.diagonal { outputs } else { outputs * outputs }, 0.0);
        let inputs = seen.inputs.len() / rows;
        self.mean.resize(inputs, 0.0);
        self.inputs.resize(inputs * inputs, 0.0);
        let square = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        scratch.clear();
        for r in 0..rows {
            let (x, g) =
                (&seen.inputs[r * inputs..][..inputs], &seen.outputs[r * outputs..][..outputs]);
            let factor = if inputs == 0 { 1.0 } else { (square(x) + 1.0).sqrt() };
            scratch.extend(g.iter().map(|&g| f64::from(g) * factor));
        }
        if self.diagonal {
            for row in scratch.chunks_exact(outputs) {
                self.outputs.iter_mut().zip(row).for_each(|(sum, g)| *sum += g * g);
            }
        } else {
            add_gram(&mut self.outputs, scratch, outputs);
        }
        if inputs == 0 {
            return;
        }
        scratch.clear();
        for r in 0..rows {
            let (x, g) =
                (&seen.inputs[r * inputs..][..inputs], &seen.outputs[r * outputs..][..outputs]);
            let weight = square(g);
            self.weight += weight;
            self.mean.iter_mut().zip(x).for_each(|(sum, &x)| *sum += weight * f64::from(x));
            let factor = weight.sqrt();
            scratch.extend(x.iter().map(|&x| f64::from(x) * factor));
        }
        add_gram(&mut self.inputs, scratch, inputs);
    }

    /// Whether no position was added.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The layer's statistics.
    pub(super) fn finish(mut self) -> Statistics {
        let count = self.rows.max(1) as f64;
        self.outputs.iter_mut().for_each(|value| *value /= count);
        let full = |mut values: Vec<f64>| {
            let size = values.len().isqrt();
            mirror(&mut values, size);
            Symmetric::new(size, values)
        };
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
        let inputs = full(self.inputs);
        let shift = vec![0.0; size];
        Statistics { rows: self.rows, mean: self.mean, shift, inputs, outputs }
    }
}
