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
use crate::reference::{LinearCall, Model, Observer, Tape, windows_per_pass};
use crate::tensors::{dimensions, is_linear, layer_name};

/// Observations of one metric: one value per batch, by layer.
type Observations = BTreeMap<String, Vec<f64>>;

/// Computes the published metrics of every linear layer over windows of `window` tokens, each token
/// predicting the next. `progress` receives the completed fraction.
pub fn publish(
    model: &Model,
    tokens: &[u32],
    window: usize,
    mut progress: impl FnMut(f64),
) -> Result<BTreeMap<String, LayerImportance>> {
    let dims = dimensions(model.config());
    let (mut gradients, mut variances, mut magnitudes) =
        (Observations::new(), Observations::new(), Observations::new());
    let (mut tape, mut gradient) = (Tape::default(), vec![0f32; model.parameters().len()]);
    let predictions = tokens.len().saturating_sub(1) / window * window;
    let step = window * windows_per_pass(model.config().vocab, window);
    for start in (0..predictions).step_by(step) {
        let end = predictions.min(start + step);
        let inputs = &tokens[start..end];
        let targets = &tokens[start + 1..end + 1];
        let mut outputs = OutputVariance::default();
        model.forward_observed(inputs, window, &mut outputs);
        gradient.fill(0.0);
        let scale = 1.0 / targets.len() as f32;
        model.add_gradient(inputs, targets, window, scale, &mut tape, &mut gradient);
        for (layer, variance) in outputs.layers {
            variances.entry(layer.clone()).or_default().push(variance);
            let range =
                model.range(&format!("{layer}.weight")).expect("an observed layer has a weight");
            gradients
                .entry(layer.clone())
                .or_default()
                .push(mean_magnitude(&gradient[range.clone()]));
            magnitudes.entry(layer).or_default().push(mean_magnitude(&model.parameters()[range]));
        }
        progress(end as f64 / predictions as f64);
    }
    let z = [&gradients, &variances, &magnitudes].map(Standard::of);
    // An expert without tokens has zero gradient and zero output variance.
    let mean_of = |observations: &Observations, layer: &str| {
        observations.get(layer).map_or(0.0, |observed| mean(observed))
    };
    let weights = |layer: &str| {
        let range = model.range(&format!("{layer}.weight")).expect("a layer has a weight");
        mean_magnitude(&model.parameters()[range])
    };
    let layers = dims
        .tensors()
        .filter(|&id| is_linear(id))
        .map(|id| {
            let layer = &layer_name(id);
            let gradient = mean_of(&gradients, layer);
            let variance = mean_of(&variances, layer);
            let magnitude = magnitudes.get(layer).map_or_else(|| weights(layer), |m| mean(m));
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
