//! Exact symmetries of an expert: scale equalization and permutation of its hidden units.
//!
//! Hidden units can be permuted and, since ReLU(s·x) = s·ReLU(x) for s > 0, a unit's row of the
//! first matrix can be multiplied by s and its column of the second divided by s. The first matrix
//! has a scale per row, so its rounding does not change; in the second, this changes which columns
//! share a group's scale and how much their magnitudes differ. (Layer normalization has the same
//! symmetry, but [`super::fold`] removes the gain that would undo the scaling.)

use std::collections::BTreeMap;

use resnet_bk_schema::{Step, Steps};
use serde::{Deserialize, Serialize};

use super::calibration::{Calibration, OutputMoments, Statistics, Symmetric};
use crate::checkpoint::Checkpoint;

/// A symmetry applied to the hidden units of an expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symmetry {
    /// Scale equalization: half of the spread (in logarithms) of the second matrix's column
    /// magnitudes moves into the first.
    Equalized,
    /// Permutation: columns of similar magnitude become neighbours and share scales.
    Permuted,
    /// Both.
    Both,
}

/// Symmetries of experts, keyed by the layer of their second matrix; other experts are unchanged.
pub type Symmetries = BTreeMap<String, Symmetry>;

impl Symmetry {
    /// Name for tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Equalized => "equalized",
            Self::Permuted => "permuted",
            Self::Both => "equalized and permuted",
        }
    }

    /// The symmetries that the steps allow.
    pub fn allowed(steps: Steps) -> impl Iterator<Item = Self> {
        let [equalize, permute] = [Step::Equalize, Step::Permute].map(|step| steps.has(step));
        [(Self::Equalized, equalize), (Self::Permuted, permute), (Self::Both, equalize && permute)]
            .into_iter()
            .filter_map(|(symmetry, allowed)| allowed.then_some(symmetry))
    }

    /// The rearrangement for an expert with this second matrix (`[d, hidden]`).
    pub fn rearrangement(self, down: &[f32], hidden: usize) -> Rearrangement {
        let mut magnitudes = vec![0.0; hidden];
        for row in down.chunks_exact(hidden) {
            magnitudes.iter_mut().zip(row).for_each(|(sum, &w)| *sum += f64::from(w).powi(2));
        }
        // Columns of zeros get a floor, so that scales stay positive.
        let mean = magnitudes.iter().sum::<f64>() / hidden as f64;
        let floor = (mean * 1e-6).max(f64::MIN_POSITIVE);
        let mut magnitudes: Vec<f64> = magnitudes.iter().map(|m| m.max(floor).sqrt()).collect();
        let typical = (magnitudes.iter().map(|m| m.ln()).sum::<f64>() / hidden as f64).exp();
        let mut scales = vec![1.0; hidden];
        if matches!(self, Self::Equalized | Self::Both) {
            for (scale, magnitude) in scales.iter_mut().zip(&mut magnitudes) {
                *scale = (*magnitude / typical).sqrt();
                *magnitude /= *scale;
            }
        }
        let mut order: Vec<usize> = (0..hidden).collect();
        if matches!(self, Self::Permuted | Self::Both) {
            order.sort_by(|&a, &b| magnitudes[a].total_cmp(&magnitudes[b]));
        }
        let scales = order.iter().map(|&unit| scales[unit]).collect();
        Rearrangement { order, scales }
    }
}

/// A permutation and rescaling of an expert's hidden units: new unit j is old unit `order[j]` times
/// `scales[j]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rearrangement {
    /// Old index of each new unit.
    pub order: Vec<usize>,
    /// Factors of the units' activations, positive.
    pub scales: Vec<f64>,
}

impl Rearrangement {
    /// Rearranges the expert with these layers (`up` is `[hidden, d]`, `down` is `[d, hidden]`).
    pub fn apply(&self, checkpoint: &mut Checkpoint, up: &str, down: &str) {
        let hidden = self.order.len();
        let units = || self.order.iter().zip(&self.scales);
        for part in ["weight", "bias"] {
            let values = checkpoint.data_mut(&format!("{up}.{part}"));
            let width = values.len() / hidden;
            let old = values.clone();
            for (new, (&unit, scale)) in values.chunks_exact_mut(width).zip(units()) {
                let row = &old[unit * width..][..width];
                new.iter_mut().zip(row).for_each(|(n, &w)| *n = (f64::from(w) * scale) as f32);
            }
        }
        self.rearrange(checkpoint.data_mut(&format!("{down}.weight")));
    }

    /// Rearranges the second matrix, `[d, hidden]`.
    pub fn rearrange(&self, down: &mut [f32]) {
        for row in down.chunks_exact_mut(self.order.len()) {
            let old = row.to_vec();
            for (new, (&unit, scale)) in row.iter_mut().zip(self.order.iter().zip(&self.scales)) {
                *new = (f64::from(old[unit]) / scale) as f32;
            }
        }
    }

    /// The second matrix with the original order and scales.
    pub fn restore(&self, down: &[f32]) -> Vec<f32> {
        let hidden = self.order.len();
        let mut old = vec![0.0; down.len()];
        for (old, new) in old.chunks_exact_mut(hidden).zip(down.chunks_exact(hidden)) {
            for ((&unit, scale), &w) in self.order.iter().zip(&self.scales).zip(new) {
                old[unit] = (f64::from(w) * scale) as f32;
            }
        }
        old
    }

    /// Rearranges the calibration of the two layers to what recalibrating would give.
    pub fn apply_statistics(&self, calibration: &mut Calibration, up: &str, down: &str) {
        if let Some(Statistics { outputs, .. }) = calibration.layer_mut(up) {
            // Gradients with respect to scaled activations are divided by the scale.
            *outputs = match outputs {
                OutputMoments::None => OutputMoments::None,
                OutputMoments::Diagonal(old) => {
                    let units = self.order.iter().zip(&self.scales);
                    let scaled =
                        |(&i, scale): (&usize, &f64)| old[i] * (1.0 / scale) * (1.0 / scale);
                    OutputMoments::Diagonal(units.map(scaled).collect())
                }
                OutputMoments::Full(old) => {
                    OutputMoments::Full(self.rearranged(old, |scale| 1.0 / scale))
                }
            };
        }
        if let Some(statistics) = calibration.layer_mut(down) {
            self.rearrange_statistics(statistics);
        }
    }

    /// Rearranges the statistics of the second matrix.
    pub fn rearrange_statistics(&self, of_down: &mut Statistics) {
        let Statistics { inputs, mean, shift, .. } = of_down;
        *inputs = self.rearranged(inputs, |scale| scale);
        for mean in [mean, shift] {
            let units = self.order.iter().zip(&self.scales);
            *mean = units.map(|(&unit, scale)| mean[unit] * scale).collect();
        }
    }

    fn rearranged(&self, old: &Symmetric, factor: impl Fn(f64) -> f64) -> Symmetric {
        let units = || self.order.iter().zip(&self.scales);
        let values = units()
            .flat_map(|(&i, &a)| {
                let row = old.row(i);
                let factor = &factor;
                units().map(move |(&j, &b)| row[j] * factor(a) * factor(b))
            })
            .collect();
        Symmetric::new(old.size, values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::random_checkpoint;
    use crate::reference::Model;

    #[test]
    fn the_function_stays_and_statistics_move_along() {
        let checkpoint = random_checkpoint(1, 3);
        let (up, down) =
            ("blocks.0.bk_layer.moe_ffn.experts.0.0", "blocks.0.bk_layer.moe_ffn.experts.0.3");
        let tokens: Vec<u32> = (0..480).map(|i| i * 7 % 40).collect();
        let before = Model::from_checkpoint(&checkpoint);
        let weights = &checkpoint.tensors[&format!("{down}.weight")].data;
        for symmetry in [Symmetry::Equalized, Symmetry::Permuted, Symmetry::Both] {
            let rearrangement = symmetry.rearrangement(weights, checkpoint.config.hidden);
            let mut changed = checkpoint.clone();
            rearrangement.apply(&mut changed, up, down);
            assert_ne!(changed.tensors[&format!("{down}.weight")].data, *weights);
            let restored = rearrangement.restore(&changed.tensors[&format!("{down}.weight")].data);
            for (a, b) in restored.iter().zip(weights) {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{a} {b}");
            }
            let after = Model::from_checkpoint(&changed);
            for (a, b) in before.forward(&tokens, 12).iter().zip(after.forward(&tokens, 12)) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
            let mut moved = Calibration::collect(&before, &tokens, 12, 1, |_| {}).unwrap();
            rearrangement.apply_statistics(&mut moved, up, down);
            let again = Calibration::collect(&after, &tokens, 12, 1, |_| {}).unwrap();
            let (rows, cols) = (checkpoint.config.width, checkpoint.config.hidden);
            let (a, b) = (moved.statistics(down, rows, cols), again.statistics(down, rows, cols));
            close(&a.mean, &b.mean);
            close(&a.inputs.values, &b.inputs.values);
        }
    }

    fn close(a: &[f64], b: &[f64]) {
        let largest = b.iter().fold(0.0, |peak: f64, b| peak.max(b.abs()));
        for (a, b) in a.iter().zip(b) {
            assert!((a - b).abs() <= 1e-3 * largest, "{a} {b}");
        }
    }
}
