//! Sums over predictions, from which all figures of an evaluation derive.

use std::ops::AddAssign;

use resnet_bk_schema::blocks::Blocks;

/// Sums over the predictions of one or more windows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    /// Predicted tokens.
    pub predictions: usize,
    /// Bytes of the predicted tokens.
    pub bytes: usize,
    /// Summed negative log-likelihood in nats.
    pub nats: f64,
    /// Summed KL divergence to the reference in nats.
    pub kl: f64,
    /// Positions where model and reference agree on the most likely token.
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

/// Sums of each block from those of its windows.
///
/// # Panics
/// If the number of windows does not match the blocks.
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

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use resnet_bk_schema::statistics::Estimate;

    use super::*;

    /// x_t = ρ x_{t−1} + noise.
    fn autoregressive(count: usize, rho: f64, random: &mut ChaCha8Rng) -> Vec<f64> {
        let noise = |random: &mut ChaCha8Rng| -> f64 {
            // The sum of twelve uniforms has a variance of 1.
            (0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0
        };
        let mut x = noise(random) / (1.0 - rho * rho).sqrt();
        let mut next = || {
            x = rho * x + noise(random);
            x
        };
        (0..count).map(|_| next()).collect()
    }

    /// The standard error of the mean of an AR(1) series is √((1 + ρ)/(1 − ρ)) times that of
    /// independent values.
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
                    Estimate::new(&pairs, |sum, count| sum / count)
                        .standard_error()
                        .unwrap()
                        .powi(2)
                        / f64::from(runs)
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
