//! Divergences between next-token distributions.

use std::sync::LazyLock;

use half::f16;

use crate::reference::{Real, maximum, simd};

/// Independent partial sums, for SIMD lanes.
const LANES: usize = 16;

/// Appends the log-probabilities of logits.
pub fn log_softmax(logits: &[f32], out: &mut Vec<f32>) {
    let normaliser = simd(
        #[inline(always)]
        || {
            let largest = maximum(logits);
            let sum = sum_of(logits, logits, |l, _| f64::from(Real::exp(l - largest)));
            largest + sum.ln() as f32
        },
    );
    out.extend(logits.iter().map(|l| l - normaliser));
}

/// Σ term(aᵢ, bᵢ), summed by lane.
#[inline(always)]
fn sum_of(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f64) -> f64 {
    let mut lanes = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += term(a[i], b[i]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(&a, &b)| term(a, b));
    lanes.iter().sum::<f64>() + rest.sum::<f64>()
}

/// Log-sum-exp of FP16 logits, by a table over all FP16 values. `None` where FP32 would overflow or
/// underflow.
pub fn log_sum_exp(logits: &[f16]) -> Option<f32> {
    static EXPONENTIALS: LazyLock<Vec<f32>> = LazyLock::new(|| {
        (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f64().exp() as f32).collect()
    });
    let table = &*EXPONENTIALS;
    let exponential = |logit: &f16| f64::from(table[usize::from(logit.to_bits())]);
    // Four independent sums, for instruction-level parallelism.
    let (fours, rest) = logits.as_chunks::<4>();
    let mut sums = [0.0; 4];
    for four in fours {
        for (sum, logit) in sums.iter_mut().zip(four) {
            *sum += exponential(logit);
        }
    }
    let sum = sums.iter().sum::<f64>() + rest.iter().map(exponential).sum::<f64>();
    // Outside this range single exponentials lose precision near the limits of f32.
    (1e-30..1e30).contains(&sum).then(|| sum.ln() as f32)
}

/// KL divergence D(p ‖ q) in nats from log-probabilities.
pub fn kl(log_p: &[f32], log_q: &[f32]) -> f64 {
    // The exponential's range ends there; terms of probability 0 are 0, also where log q is −∞.
    const LEAST: f32 = -87.0;
    let sum = simd(
        #[inline(always)]
        || {
            sum_of(log_p, log_q, |p, q| match p < LEAST {
                true => 0.0,
                false => f64::from(Real::exp(p)) * f64::from(p - q),
            })
        },
    );
    // Rounding can make the sum for equal distributions slightly negative.
    sum.max(0.0)
}

/// Index of the largest logit; ties go to the first.
pub fn argmax(logits: &[f32]) -> usize {
    let mut best = 0;
    for (i, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = i;
        }
    }
    best
}

/// A running mean of KL divergences.
#[derive(Clone, Debug, Default)]
pub struct Divergence {
    sum: f64,
    count: usize,
    log_q: Vec<f32>,
}

impl Divergence {
    /// Adds D(p ‖ q) of one position, from log-probabilities of p and logits of q.
    pub fn add(&mut self, log_p: &[f32], q: &[f32]) {
        self.log_q.clear();
        log_softmax(q, &mut self.log_q);
        self.sum += kl(log_p, &self.log_q);
        self.count += 1;
    }

    /// Nats per position.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_exponentials_is_the_formula() {
        for (scale, shift) in [(3.0, 0.0), (0.1, 30.0), (10.0, -20.0)] {
            let logits: Vec<f16> =
                (0..103).map(|i| f16::from_f64(f64::from(i).sin() * scale + shift)).collect();
            let exact = logits.iter().map(|l| l.to_f64().exp()).sum::<f64>().ln();
            let found = f64::from(log_sum_exp(&logits).unwrap());
            assert!((found - exact).abs() < 1e-6 * exact.abs().max(1.0), "{found} {exact}");
        }
        // Values outside f32's range go to the fallback.
        for beyond in [100.0, -100.0] {
            assert_eq!(log_sum_exp(&[f16::from_f64(beyond); 5]), None);
        }
    }

    #[test]
    fn divergence_of_two_coins() {
        let mut divergence = Divergence::default();
        let half = 0.5f32.ln();
        divergence.add(&[half, half], &[1f32.ln(), 3f32.ln()]);
        let exact = 0.5 * (0.5f64 / 0.25).ln() + 0.5 * (0.5f64 / 0.75).ln();
        assert!((divergence.mean() - exact).abs() < 1e-6);
        let mut log_p = Vec::new();
        log_softmax(&[5.0, -2.0], &mut log_p);
        divergence.add(&log_p, &[5.0, -2.0]);
        assert!((divergence.mean() - exact / 2.0).abs() < 1e-6);
    }
}
