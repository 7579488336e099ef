//! Next-token cross-entropy, and the distillation loss.

use crate::reference::real::{Real, dot, maximum, sum};
use crate::reference::simd::simd;
use serde::{Deserialize, Serialize};

/// Turns logits `[rows, V]` into gradients of `scale` × the summed loss, in place, and returns the
/// summed negative log-likelihood in nats.
pub(crate) fn gradient_in_place<T: Real>(logits: &mut [T], targets: &[u32], scale: T) -> f64 {
    let vocab = logits.len() / targets.len();
    let mut total = 0.0;
    for (row, &target) in logits.chunks_exact_mut(vocab).zip(targets) {
        let at_target = row[target as usize];
        let (largest, normaliser) = exponentials(row);
        total += normaliser.to_f64().ln() - (at_target - largest).to_f64();
        multiply(row, scale / normaliser);
        row[target as usize] -= scale;
    }
    total
}

/// Negative log-likelihood in nats of each target, given logits `[rows, V]`.
pub fn negative_log_likelihoods<T: Real>(logits: &[T], targets: &[u32]) -> Vec<f64> {
    let vocab = logits.len() / targets.len().max(1);
    let row = |(row, &target): (&[T], &u32)| {
        let largest = maximum(row);
        let normaliser: T = row.iter().map(|&x| (x - largest).exp()).sum();
        normaliser.to_f64().ln() - (row[target as usize] - largest).to_f64()
    };
    logits.chunks_exact(vocab.max(1)).zip(targets).map(row).collect()
}

/// Weights of the two parts of a distillation loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distillation {
    /// Distillation temperature: the logits of both are divided by it.
    pub temperature: f32,
    /// Weight of the cross-entropy on the text, 0 to 1; the rest is the KL divergence to the
    /// teacher.
    pub cross_entropy: f32,
}

impl Distillation {
    /// The KL divergence alone.
    pub const KL: Self = Self { temperature: 1.0, cross_entropy: 0.0 };
}

/// Summed losses of a student in nats.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// KL divergence from teacher to student, at the distillation temperature.
    pub kl: f64,
    /// Negative log-likelihood of the text under the student; 0 if not requested.
    pub nats: f64,
}

/// Turns a student's logits `[rows, V]` into gradients of `scale` × the summed loss
/// (1 − c) T² KL(teacher ‖ student) + c · cross-entropy, in place.
pub(crate) fn distil_in_place<T: Real>(
    logits: &mut [T],
    teacher: &[T],
    targets: &[u32],
    how: Distillation,
    scale: T,
) -> Losses {
    let vocab = logits.len() / targets.len();
    let share = T::of(f64::from(how.cross_entropy));
    let temperature = T::of(f64::from(how.temperature));
    // T² of the loss times 1/T from the derivative.
    let factor = scale * (T::ONE - share) * temperature;
    let mut losses = Losses::default();
    let mut own = vec![T::ZERO; vocab];
    let (mut p, mut difference) = (own.clone(), own.clone());
    let rows = logits.chunks_exact_mut(vocab).zip(teacher.chunks_exact(vocab));
    for ((row, teacher), &target) in rows.zip(targets) {
        if share > T::ZERO {
            own.copy_from_slice(row);
            losses.nats += gradient_in_place(&mut own, &[target], scale * share);
        }
        let inverse = T::ONE / temperature;
        let (own_sum, sum) = simd(
            #[inline(always)]
            || {
                let (top, teachers_top) = (maximum(row), maximum(teacher));
                for i in 0..vocab {
                    let (q, t) = ((row[i] - top) * inverse, (teacher[i] - teachers_top) * inverse);
                    difference[i] = t - q;
                    row[i] = q.exp();
                    p[i] = t.exp();
                }
                (sum(row), sum(&p))
            },
        );
        let ratio = (own_sum / sum).to_f64().ln();
        losses.kl += (dot(&p, &difference) / sum).to_f64() + ratio;
        let (own_factor, factor) = (factor / own_sum, factor / sum);
        for i in 0..vocab {
            row[i] = row[i] * own_factor - p[i] * factor;
        }
        if share > T::ZERO {
            row.iter_mut().zip(&own).for_each(|(x, &own)| *x += own);
        }
    }
    losses
}

/// Turns logits into exp(logit − largest), in place; returns the largest logit and the sum.
pub(super) fn exponentials<T: Real>(row: &mut [T]) -> (T, T) {
    simd(
        #[inline(always)]
        || {
            let largest = maximum(row);
            row.iter_mut().for_each(|x| *x = (*x - largest).exp());
            (largest, sum(row))
        },
    )
}

/// Multiplies every element by `factor`.
pub(super) fn multiply<T: Real>(row: &mut [T], factor: T) {
    simd(
        #[inline(always)]
        || row.iter_mut().for_each(|x| *x = *x * factor),
    );
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Compares a gradient with finite differences of the loss.
    pub(in super::super) fn check_gradient(
        logits: &[f64],
        gradient: &[f64],
        loss: impl Fn(&[f64]) -> f64,
    ) {
        for (i, gradient) in gradient.iter().enumerate() {
            let moved = |by: f64| {
                let mut logits = logits.to_vec();
                logits[i] += by;
                loss(&logits)
            };
            let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((numeric - gradient).abs() < 1e-8, "{i}: {numeric} {gradient}");
        }
    }

    #[test]
    fn loss_and_gradient_match_the_definition() {
        let logits: Vec<f64> = (0..57).map(|i| f64::from(i).sin() * 4.0).collect();
        let targets = [3, 0, 18];
        let mut gradient = logits.clone();
        let total = gradient_in_place(&mut gradient, &targets, 0.25);
        let each = negative_log_likelihoods(&logits, &targets);
        assert!((each.iter().sum::<f64>() - total).abs() < 1e-12);
        for (r, &target) in targets.iter().enumerate() {
            let row = &logits[r * 19..][..19];
            let z: f64 = row.iter().map(|x| x.exp()).sum();
            assert!((each[r] + (row[target as usize].exp() / z).ln()).abs() < 1e-12);
            for i in 0..19 {
                let hit = f64::from(u8::from(i == target as usize));
                let expected = 0.25 * (row[i].exp() / z - hit);
                assert!((gradient[r * 19 + i] - expected).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn distillation_is_the_derivative_of_its_loss() {
        let wave =
            |n: usize, f: f64| (0..n).map(|i| (i as f64 * f).sin() * 3.0).collect::<Vec<_>>();
        let (logits, teacher, targets) = (wave(38, 1.0), wave(38, 1.1), [3, 7]);
        for (temperature, cross_entropy) in [(1.0, 0.0), (2.0, 0.0), (1.5, 0.25), (1.0, 1.0)] {
            let how = Distillation { temperature, cross_entropy };
            let (t, c) = (f64::from(temperature), f64::from(cross_entropy));
            let loss = |logits: &[f64]| {
                let found = distil_in_place(&mut logits.to_vec(), &teacher, &targets, how, 1.0);
                (1.0 - c) * t * t * found.kl + c * found.nats
            };
            let mut gradient = logits.clone();
            distil_in_place(&mut gradient, &teacher, &targets, how, 0.5);
            check_gradient(&logits, &gradient, |logits| 0.5 * loss(logits));
        }
        // Direct definition, for comparison.
        let mut divergence = crate::eval::divergence::Divergence::default();
        let singles = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<_>>();
        for (p, q) in teacher.chunks(19).zip(logits.chunks(19)) {
            let mut log_p = Vec::new();
            crate::eval::divergence::log_softmax(&singles(p), &mut log_p);
            divergence.add(&log_p, &singles(q));
        }
        let found = distil_in_place(&mut logits.clone(), &teacher, &targets, Distillation::KL, 1.0);
        assert!((found.kl / 2.0 - divergence.mean()).abs() < 1e-5);
        assert_eq!(found.nats, 0.0);
    }
}
