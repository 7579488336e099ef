//! Reproducible random numbers, computed directly from ChaCha8 output, so that no library change of
//! range or distribution algorithms can affect a training run.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// Stream of the initial weights; step s draws its windows from stream s + 1.
const INITIAL: u64 = 0;
/// First stream of replaced tokens, far from the streams counted from either end.
const REPLACEMENTS: u64 = 1 << 63;

/// A stream of random numbers.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// Stream for the initial weights.
    pub(crate) fn initial(seed: u64) -> Self {
        Self::stream(seed, INITIAL)
    }

    /// Stream for the windows of one step. Each step has its own stream, so resuming needs only the
    /// step number.
    pub(crate) fn step(seed: u64, step: u64) -> Self {
        Self::stream(seed, step + 1)
    }

    /// Stream for the dropout of one step.
    pub(crate) fn dropout(seed: u64, step: u64) -> Self {
        Self::stream(seed, u64::MAX - step)
    }

    /// Stream for the random tokens that replace inputs of one step.
    pub(crate) fn replacements(seed: u64, step: u64) -> Self {
        Self::stream(seed, REPLACEMENTS + step)
    }

    /// 64 random bits.
    pub(crate) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn stream(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Uniform in 0..bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        // High half of the product; the bias is at most bound / 2^64.
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Uniform in (0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        ((self.0.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Standard normal, by the Box-Muller transform.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.unit().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_ranges() {
        let mut random = Random::initial(1);
        let draws: Vec<f64> = (0..20_000).map(|_| random.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| x * x).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.04);
        let mut seen = [false; 7];
        (0..1000).for_each(|_| seen[random.below(7)] = true);
        assert_eq!(seen, [true; 7]);
    }

    #[test]
    fn steps_have_their_own_streams() {
        let first = |seed, step| Random::step(seed, step).below(1 << 40);
        assert_eq!(first(1, 5), first(1, 5));
        assert_ne!(first(1, 5), first(1, 6));
        assert_ne!(first(1, 5), first(2, 5));
    }
}
