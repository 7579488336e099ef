//! Estimates from a text with their standard errors, by a jackknife over blocks of windows.
//!
//! Every estimate here is a function of sums over predictions: perplexity of nats and predictions, the
//! KL divergence of its sum and predictions. Without each block in turn (Quenouille, 1949; Tukey, 1958)
//! it comes out a little different, and B such *replicates* θ₁ … θ_B of mean θ̄ have the standard error
//!
//! ```text
//! √((B − 1)/B · Σ (θ_b − θ̄)²)
//! ```
//!
//! What is correlated within a block does not matter, and two models on the same text are compared by
//! replicates of a function of both. A single block says nothing of the error.

use std::ops::AddAssign;

use super::blocks::Blocks;

/// What one window, or more, says of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Predicted tokens.
    pub predictions: usize,
    /// Bytes that they stand for.
    pub bytes: usize,
    /// Negative log-likelihoods.
    pub nats: f64,
    /// KL divergences to the reference.
    pub kl: f64,
    /// Positions at which model and reference find the same token likeliest.
    pub agreements: usize,
}

impl AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.predictions += other.predictions;
        self.bytes += other.bytes;
        self.nats += other.nats;
        self.kl += other.kl;
        self.agreements += other.agreements;
    }
}

/// Sums of each block from those of each window.
///
/// # Panics
/// If the blocks have not as many windows as there are.
pub fn by_block(windows: &[Sums], blocks: &Blocks) -> Vec<Sums> {
    assert_eq!(blocks.windows.iter().sum::<usize>(), windows.len(), "blocks of another text");
    let mut rest = windows;
    let total = |&count: &usize| {
        let (block, after) = rest.split_at(count);
        rest = after;
        let mut sums = Sums::default();
        block.iter().for_each(|&window| sums += window);
        sums
    };
    blocks.windows.iter().map(total).collect()
}

/// An estimate and what it would be without each block.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// From all blocks.
    pub value: f64,
    /// Without the first block, the second, and so on; empty where there is one only.
    pub replicates: Vec<f64>,
}

impl Estimate {
    /// `statistic` of the sums over blocks of two numbers each.
    pub fn new(blocks: &[[f64; 2]], statistic: impl Fn(f64, f64) -> f64) -> Self {
        let [a, b] = [0, 1].map(|i| blocks.iter().map(|block| block[i]).sum::<f64>());
        let without = |block: &[f64; 2]| statistic(a - block[0], b - block[1]);
        let several = if blocks.len() > 1 { blocks } else { &[] };
        Self { value: statistic(a, b), replicates: several.iter().map(without).collect() }
    }

    /// The standard error; `None` of fewer than two blocks.
    pub fn standard_error(&self) -> Option<f64> {
        let count = self.replicates.len() as f64;
        let mean = self.replicates.iter().sum::<f64>() / count;
        let squares: f64 = self.replicates.iter().map(|r| (r - mean).powi(2)).sum();
        (count > 1.0).then(|| ((count - 1.0) / count * squares).sqrt())
    }
}

/// A figure with its standard error to so many digits, "–" where there is none.
pub fn with_error(figure: String, error: Option<f64>, digits: usize) -> String {
    match error {
        Some(error) => format!("{figure} ± {error:.digits$}"),
        None => format!("{figure} ± –"),
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn mean(blocks: &[[f64; 2]]) -> Estimate {
        Estimate::new(blocks, |sum, count| sum / count)
    }

    #[test]
    fn equals_what_hands_compute() {
        // Blocks of one value each: the error is that of a mean, √(Σ(x − x̄)² / (n(n − 1))).
        let values = [1.0, 2.0, 4.0, 9.0];
        let error = mean(&values.map(|x| [x, 1.0])).standard_error().unwrap();
        let by_hand = ((9.0 + 4.0 + 0.0 + 25.0) / (4.0 * 3.0f64)).sqrt();
        assert!((error - by_hand).abs() < 1e-12, "{error} {by_hand}");
        // Unequal blocks, (3, 1), (4, 2), (5, 4): without each in turn 9/6, 8/5, 7/3.
        let estimate = mean(&[[3.0, 1.0], [4.0, 2.0], [5.0, 4.0]]);
        assert_eq!(estimate.value, 12.0 / 7.0);
        let replicates = [1.5, 1.6, 7.0 / 3.0];
        let centre = replicates.iter().sum::<f64>() / 3.0;
        let by_hand =
            (2.0 / 3.0 * replicates.map(|r| (r - centre).powi(2)).iter().sum::<f64>()).sqrt();
        let error = estimate.standard_error().unwrap();
        assert!((error - by_hand).abs() < 1e-12, "{error} {by_hand}");
    }

    #[test]
    fn one_block_has_no_error() {
        assert_eq!(mean(&[[3.0, 2.0]]), Estimate { value: 1.5, replicates: Vec::new() });
        assert_eq!(mean(&[[3.0, 2.0]]).standard_error(), None);
        assert_eq!(mean(&[]).standard_error(), None);
        assert_eq!(mean(&[[1.0, 1.0]; 2]).standard_error(), Some(0.0));
    }

    /// x_t = ρ x_{t−1} + noise.
    fn autoregressive(count: usize, rho: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
        let noise = |random: &mut ChaCha8Rng| -> f64 {
            // Twelve uniforms: a variance of one.
            (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
        };
        let mut x = noise(random) / (1.0 - rho * rho).sqrt();
        let mut next = || {
            x = rho * x + noise(random);
            x
        };
        (0..count).map(|_| next()).collect()
    }

    /// The mean of such a series varies √((1 + ρ)/(1 − ρ)) times as much as one of independent values.
    #[test]
    fn neighbours_that_are_alike_count_as_one() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for rho in [0.0, 0.5, 0.8f64] {
            let (count, runs) = (2048, 60);
            let (mut alone, mut together) = (0.0, 0.0);
            for _ in 0..runs {
                let series = autoregressive(count, rho, &mut random);
                let windows: Vec<Sums> = series
                    .iter()
                    .map(|&nats| Sums { predictions: 1, nats, ..Sums::default() })
                    .collect();
                let variance = |windows: &[Sums]| {
                    let pairs: Vec<_> =
                        windows.iter().map(|w| [w.nats, w.predictions as f64]).collect();
                    mean(&pairs).standard_error().unwrap().powi(2) / f64::from(runs)
                };
                alone += variance(&windows);
                together += variance(&by_block(&windows, &Blocks::runs(count * 128 + 1, 128)));
            }
            let exact = (1.0 / count as f64).sqrt() / (1.0 - rho);
            let factor = ((1.0 + rho) / (1.0 - rho)).sqrt();
            let (naive, blocked) = (alone.sqrt() / exact, together.sqrt() / exact);
            assert!((naive * factor - 1.0).abs() < 0.05, "ρ = {rho}: {naive} of the error");
            assert!((blocked - 1.0).abs() < 0.1, "ρ = {rho}: {blocked} of the error");
        }
    }
}
