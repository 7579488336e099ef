//! The three published metrics.
//!
//! Source: T. Arai, ResNet-BK, 2025, `LayerImportanceAnalyzer`. Per batch: the mean magnitude of a
//! parameter's gradient, the variance of a layer's outputs, the mean magnitude of a parameter. Each
//! metric is z-scored with the mean and standard deviation of all its observations (over layers and
//! batches); a layer's score is 0.5 z(gradient) + 0.3 z(variance) + 0.2 z(magnitude) of its means.
//! The original keys gradient and magnitude by parameter but variance by layer, so that they never
//! combine; here all are keyed by layer, with the layer's weight as its parameter.

use std::collections::BTreeMap;

use super::LayerImportance;
use crate::error::Result;
use crate::memory;
use crate::reference::{LayerGradient, LinearCall, Model, Observer, Tape, windows_per_pass};
use crate::tensors::{dimensions, is_linear, layer_name};
use crate::threads;

/// Observations of one metric: one value per batch, by layer.
type Observations = BTreeMap<String, Vec<f64>>;

/// Computes the published metrics of every linear layer over windows of `window` tokens, each token
/// predicting the next. `progress` receives the completed fraction.
pub fn publish(
    model: &Model,
    tokens: &[u32],
    window: usize,
    progress: impl Fn(f64) + Sync,
) -> Result<BTreeMap<String, LayerImportance>> {
    let dims = dimensions(model.config());
    let range = |layer: &str| {
        model.range(&format!("{layer}.weight")).expect("an observed layer has a weight")
    };
    let predictions = tokens.len().saturating_sub(1) / window * window;
    let step = window * windows_per_pass(model.config().vocab, window);
    let starts: Vec<usize> = (0..predictions).step_by(step).collect();
    let mut batches: Vec<BTreeMap<String, (f64, f64)>> = vec![BTreeMap::new(); starts.len()];
    let progress = threads::Progress::new(starts.len(), progress);
    let buffers = memory::threads(model.parameters().len());
    let mut states = threads::states(starts.len().min(buffers), || {
        (Tape::default(), vec![0f32; model.parameters().len()])
    });
    let items = starts.iter().zip(&mut batches);
    threads::for_each(&mut states, items, |(tape, gradient), (&start, batch)| {
        let end = predictions.min(start + step);
        let (inputs, targets) = (&tokens[start..end], &tokens[start + 1..end + 1]);
        let mut outputs = OutputVariance::default();
        model.forward_observed_in(inputs, window, tape, &mut outputs);
        gradient.fill(0.0);
        let scale = 1.0 / targets.len() as f32;
        let all = &mut |_: LayerGradient<'_, f32>| true;
        model.backward_tape(inputs, targets, window, scale, tape, gradient, all);
        for (layer, variance) in outputs.layers {
            let gradient = mean_magnitude(&gradient[range(&layer)]);
            batch.insert(layer, (gradient, variance));
        }
        progress.add(1);
    });
    let weights = |layer: &str| mean_magnitude(&model.parameters()[range(layer)]);
    let own: BTreeMap<String, f64> = dims
        .tensors()
        .filter(|&id| is_linear(id))
        .map(|id| (layer_name(id), weights(&layer_name(id))))
        .collect();
    let (mut gradients, mut variances, mut magnitudes) =
        (Observations::new(), Observations::new(), Observations::new());
    for (layer, (gradient, variance)) in batches.into_iter().flatten() {
        magnitudes.entry(layer.clone()).or_default().push(own[&layer]);
        variances.entry(layer.clone()).or_default().push(variance);
        gradients.entry(layer).or_default().push(gradient);
    }
    let z = [&gradients, &variances, &magnitudes].map(Standard::of);
    // An expert without tokens has zero gradient and zero output variance.
    let mean_of = |observations: &Observations, layer: &str| {
        observations.get(layer).map_or(0.0, |observed| mean(observed))
    };
    let layers = dims
        .tensors()
        .filter(|&id| is_linear(id))
        .map(|id| {
            let layer = &layer_name(id);
            let gradient = mean_of(&gradients, layer);
            let variance = mean_of(&variances, layer);
            let magnitude = magnitudes.get(layer).map_or_else(|| own[layer], |m| mean(m));
            let score = 0.5 * z[0].score(gradient)
                + 0.3 * z[1].score(variance)
                + 0.2 * z[2].score(magnitude);
            (layer.clone(), LayerImportance { gradient, variance, magnitude, score })
        })
        .collect();
    Ok(layers)
}

/// Mean and standard deviation of all observations of a metric.
struct Standard {
    mean: f64,
    deviation: f64,
}

impl Standard {
    fn of(observations: &Observations) -> Self {
        let all: Vec<f64> = observations.values().flatten().copied().collect();
        let mean = mean(&all);
        let variance =
            all.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / all.len().max(1) as f64;
        Self { mean, deviation: variance.sqrt() }
    }

    fn score(&self, value: f64) -> f64 {
        (value - self.mean) / (self.deviation + 1e-8)
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn mean_magnitude(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(v.abs())).sum::<f64>() / values.len().max(1) as f64
}

/// Variance of each layer's outputs on a batch; unbiased, as in the published code.
#[derive(Default)]
struct OutputVariance {
    layers: BTreeMap<String, f64>,
}

impl Observer for OutputVariance {
    fn linear(&mut self, call: LinearCall<'_>) {
        let count = call.outputs.len() as f64;
        let mean = call.outputs.iter().map(|&y| f64::from(y)).sum::<f64>() / count;
        let squares: f64 = call.outputs.iter().map(|&y| (f64::from(y) - mean).powi(2)).sum();
        self.layers.insert(call.name.to_string(), squares / (count - 1.0).max(1.0));
    }
}
