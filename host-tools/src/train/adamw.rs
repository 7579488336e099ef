//! AdamW: Adam with decoupled weight decay.

use crate::reference::{Model, simd};

/// Constants of the optimizer.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub epsilon: f32,
    /// Weight decay, applied to matrices only.
    pub weight_decay: f32,
}

/// Constants of one update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    pub(crate) optimizer: AdamW,
    pub(crate) rate: f32,
    /// Factor on the gradient, from gradient-norm clipping.
    pub(crate) scale: f32,
    /// Bias corrections 1 / (1 − β1^t) and 1 / (1 − β2^t).
    pub(crate) corrections: (f32, f32),
}

impl AdamW {
    /// The update of step `step`, counted from 0.
    pub(crate) fn update(self, step: u64, rate: f64, scale: f64) -> Update {
        let power = |beta: f32| f64::from(beta).powf((step + 1) as f64);
        let correction = |beta: f32| (1.0 - power(beta)).recip() as f32;
        Update {
            optimizer: self,
            rate: rate as f32,
            scale: scale as f32,
            corrections: (correction(self.beta1), correction(self.beta2)),
        }
    }
}

impl Update {
    /// Updates a chunk of parameters and their moments; `decays` is each parameter's decay factor.
    pub(crate) fn apply(
        &self,
        parameters: &mut [f32],
        first: &mut [f32],
        second: &mut [f32],
        gradient: &[f32],
        decays: &[f32],
    ) {
        let AdamW { beta1, beta2, epsilon, weight_decay } = self.optimizer;
        let n = parameters.len();
        let (first, second) = (&mut first[..n], &mut second[..n]);
        let (gradient, decays) = (&gradient[..n], &decays[..n]);
        let (of_first, of_second) = self.corrections;
        simd(
            #[inline(always)]
            || {
                for i in 0..n {
                    let g = gradient[i] * self.scale;
                    first[i] = beta1 * first[i] + (1.0 - beta1) * g;
                    second[i] = beta2 * second[i] + (1.0 - beta2) * g * g;
                    let direction =
                        first[i] * of_first / ((second[i] * of_second).sqrt() + epsilon);
                    let decay = weight_decay * decays[i] * parameters[i];
                    parameters[i] -= self.rate * (direction + decay);
                }
            },
        );
    }
}

/// Decay factor of each parameter: 1 for matrices, 0 for biases, gains and chain constants, which
/// have no reason to be near zero.
pub(crate) fn decays(model: &Model) -> Vec<f32> {
    let mut decays = vec![0.0; model.parameters().len()];
    for (spec, range) in model.tensors() {
        if spec.shape.len() == 2 {
            decays[range].fill(1.0);
        }
    }
    decays
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_moves_by_the_learning_rate_and_decay_is_decoupled() {
        let optimizer = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.1 };
        let mut p = [1.0, 1.0, -2.0];
        let (mut m, mut v) = ([0.0; 3], [0.0; 3]);
        let update = optimizer.update(0, 0.01, 1.0);
        update.apply(&mut p, &mut m, &mut v, &[5.0, -3.0, 0.0], &[0.0, 1.0, 1.0]);
        let expected = [1.0 - 0.01, 1.0 + 0.01 - 0.001, -2.0 + 0.002];
        for (a, b) in p.iter().zip(expected) {
            assert!((a - b).abs() < 1e-6, "{p:?}");
        }
    }

    #[test]
    fn finds_the_minimum_of_a_parabola() {
        let optimizer = AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weight_decay: 0.0 };
        let (mut p, mut m, mut v) = ([4.0f32], [0.0], [0.0]);
        for step in 0..2000 {
            let gradient = [2.0 * (p[0] - 1.5)];
            let rate = 0.05 * (1.0 - step as f64 / 2000.0);
            optimizer.update(step, rate, 1.0).apply(&mut p, &mut m, &mut v, &gradient, &[0.0]);
        }
        assert!((p[0] - 1.5).abs() < 1e-3, "{p:?}");
    }
}
