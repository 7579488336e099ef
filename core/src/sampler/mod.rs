//! Choosing the next token: greedy, or by temperature among the likeliest, from a seed.

mod argmax;
mod candidates;

use half::f16;

use crate::error::Error;
use crate::layers::gate::exp_nonpositive;
pub use argmax::argmax;
use candidates::{Candidates, Odds};

/// The most candidates that top-k sampling keeps.
pub const MAX_TOP_K: usize = 64;
/// A top-p of 1: everything.
const WHOLE: u32 = 1 << candidates::TOP_P_BITS;

/// A seeded sampler. The same logits, settings and seed choose the same tokens on every machine.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f32,
    top_k: usize,
    /// In units of 2^−24.
    top_p: u32,
    generator: u64,
}

impl Sampler {
    /// Always the likeliest token; the lowest one wins a tie.
    pub const fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 1, top_p: WHOLE, generator: 0 }
    }

    /// Samples from the softmax of logits / `temperature` among the `top_k` likeliest tokens; 0
    /// means among all. A temperature of zero is greedy.
    ///
    /// # Errors
    ///
    /// [`Error::Temperature`] for one that is negative, infinite or not a number, [`Error::TopK`] for
    /// more than [`MAX_TOP_K`].
    pub fn new(temperature: f32, top_k: usize, seed: u64) -> Result<Self, Error> {
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(Error::Temperature);
        }
        if top_k > MAX_TOP_K {
            return Err(Error::TopK { asked: top_k, limit: MAX_TOP_K });
        }
        Ok(Self { temperature, top_k, top_p: WHOLE, generator: seed })
    }

    /// Of the tokens that it would choose from only the nucleus (Holtzman et al., 2020): the
    /// likeliest ones that together have at least `top_p` of the probability, and those exactly as likely as the
    /// last of them. 1 means all.
    ///
    /// # Errors
    ///
    /// [`Error::TopP`] for one that is not above 0 and at most 1.
    pub fn with_top_p(self, top_p: f32) -> Result<Self, Error> {
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::TopP);
        }
        Ok(Self { top_p: (top_p * WHOLE as f32) as u32, ..self })
    }

    /// The next token. An empty slice of logits gives token 0; logits that are not finite, which no
    /// model returns, still give a token of the slice.
    pub fn sample(&mut self, logits: &[f16]) -> u32 {
        let best = argmax(logits);
        if self.temperature == 0.0 || self.top_k == 1 || logits.is_empty() {
            return best as u32;
        }
        let odds = Odds { logits, largest: logits[best].to_f32(), temperature: self.temperature };
        let draw = next_unit(&mut self.generator);
        choose(odds, logits[best], (self.top_k, self.top_p), draw).unwrap_or(best) as u32
    }
}

/// The token that a draw falls on. Not a part of its caller, whose stack would have room for all sums while
/// the next token is computed; settings come by value, so that a greedy sampler's program has none of it.
#[inline(never)]
fn choose(odds: Odds<'_>, largest: f16, (top_k, top_p): (usize, u32), draw: f32) -> Option<usize> {
    let mut candidates = match top_k {
        1.. if top_k < odds.logits.len() => Candidates::likeliest(odds.logits, top_k),
        _ => Candidates::ALL,
    };
    if top_p < WHOLE {
        candidates = candidates.nucleus(&odds, largest, top_p);
    }
    candidates.choose(&odds, draw)
}

/// Uniform in [0, 1) with 24 bits, from SplitMix64 (Steele, Lea and Flood, 2014). The generator is
/// part of the number contract, so it is spelled out here and not left to a library's version.
fn next_unit(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f32 * (1.0 / (1 << 24) as f32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    use super::*;

    fn logits(values: &[f32]) -> Vec<f16> {
        values.iter().map(|&v| f16::from_f32(v)).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(Sampler::greedy().sample(&logits(&[0.0, 2.0, 2.0, -1.0])), 1);
        assert_eq!(Sampler::greedy().sample(&[]), 0);
    }

    #[test]
    fn frequencies_follow_the_softmax_of_the_candidates() {
        let logits = logits(&[1.0, 0.0, 3.0, 2.0]);
        let mut sampler = Sampler::new(1.0, 2, 7).unwrap();
        let mut counts = [0u32; 4];
        for _ in 0..20_000 {
            counts[sampler.sample(&logits) as usize] += 1;
        }
        assert_eq!((counts[0], counts[1]), (0, 0));
        let share = counts[2] as f64 / 20_000.0;
        let exact = 1.0 / (1.0 + (-1f64).exp());
        assert!((share - exact).abs() < 0.01, "{share} instead of {exact}");
    }

    #[test]
    fn zero_top_k_means_all_candidates() {
        let logits = logits(&[0.0; 100]);
        let mut sampler = Sampler::new(1.0, 0, 3).unwrap();
        let mut seen = [false; 100];
        (0..2_000).for_each(|_| seen[sampler.sample(&logits) as usize] = true);
        assert_eq!(seen, [true; 100]);
    }

    /// Tokens as the contract has them: by sorting, with a weight per token, added up twice.
    fn contract(
        logits: &[f16],
        (temperature, top_k, top_p): (f32, usize, f32),
        draw: f32,
    ) -> Option<usize> {
        let best = argmax(logits);
        let weights: Vec<f32> = logits
            .iter()
            .map(|l| exp_nonpositive((l.to_f32() - logits[best].to_f32()) / temperature))
            .collect();
        let mut likeliest: Vec<usize> = (0..logits.len()).collect();
        likeliest.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap());
        if top_k > 0 {
            likeliest.truncate(top_k);
        }
        if top_p < 1.0 {
            let whole = |token: &usize| (weights[*token] * 8_388_608.0) as u128;
            let all: u128 = likeliest.iter().map(whole).sum();
            let enough = (all * (top_p * 16_777_216.0) as u128).div_ceil(1 << 24);
            let mut sum = 0;
            let last = likeliest.iter().position(|token| {
                sum += whole(token);
                sum >= enough
            });
            let bound = logits[likeliest[last.unwrap()]];
            likeliest.retain(|&token| logits[token] >= bound);
        }
        likeliest.sort_unstable();
        let total: f32 = likeliest.iter().fold(0.0, |sum, &token| sum + weights[token]);
        let mut sum = 0.0;
        likeliest.into_iter().find(|&token| {
            sum += weights[token];
            sum > draw * total
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }))]

        /// Few different logits, so that many are tied, or many; vocabularies that stretches divide and others.
        #[test]
        fn choices_are_the_contracts(
            (seed, len, step) in (any::<u64>(), 1usize..700, prop::sample::select(vec![0.0, 0.01, 2.0])),
            (spread, shift) in (0.0f32..40.0, -30.0f32..30.0),
            temperature in prop::sample::select(vec![1e-3f32, 0.3, 0.8, 1.0, 5.0]),
            top_k in prop::sample::select(vec![0usize, 2, 5, 40, 64]),
            top_p in prop::sample::select(vec![1.0f32, 1e-9, 0.1, 0.5, 0.9, 0.99, 0.999_999_9]),
        ) {
            let mut state = seed;
            let mut logit = || {
                let value = next_unit(&mut state) * spread + shift;
                f16::from_f32(if step > 0.0 { (value / step).floor() * step } else { value })
            };
            let logits: Vec<f16> = (0..len).map(|_| logit()).collect();
            let sampler = Sampler::new(temperature, top_k, seed).unwrap();
            let mut sampler = sampler.with_top_p(top_p).unwrap();
            for _ in 0..20 {
                let draw = next_unit(&mut sampler.generator.clone());
                let expected = contract(&logits, (temperature, top_k, top_p), draw);
                prop_assert_eq!(Some(sampler.sample(&logits) as usize), expected);
            }
        }
    }

    #[test]
    fn a_nucleus_is_as_small_as_can_be_and_keeps_ties() {
        // Shares of 0.6439, 0.2369, 0.0871 and four of 0.0080.
        let logits = logits(&[0.0, 1.0, 3.0, 2.0, -1.386, -1.386, -1.386, -1.386]);
        let seen = |top_p: f32| {
            let mut sampler = Sampler::new(1.0, 0, 11).unwrap().with_top_p(top_p).unwrap();
            let mut seen = [false; 8];
            (0..20_000).for_each(|_| seen[sampler.sample(&logits) as usize] = true);
            seen.map(u8::from)
        };
        assert_eq!(seen(0.6), [0, 0, 1, 0, 0, 0, 0, 0]);
        assert_eq!(seen(0.65), [0, 0, 1, 1, 0, 0, 0, 0]);
        assert_eq!(seen(0.9), [0, 1, 1, 1, 0, 0, 0, 0]);
        assert_eq!(seen(0.96), [1, 1, 1, 1, 0, 0, 0, 0]);
        assert_eq!(seen(0.98), [1; 8]);
        assert_eq!(seen(1.0), [1; 8]);
    }

    /// Logits that no model gives: a token is chosen all the same.
    #[test]
    fn any_logits_give_a_token() {
        let ends = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 65504.0, -65504.0, 1e-7];
        for first in ends {
            for second in ends {
                let logits = logits(&[first, second, first]);
                for temperature in [0.0, 1e-45, 1e-10, 1.0, f32::MAX] {
                    for (top_k, top_p) in [0, 1, 2, 3, 64].map(|k| [(k, 1.0), (k, 0.5)]).concat() {
                        let sampler = Sampler::new(temperature, top_k, 9).unwrap();
                        let mut sampler = sampler.with_top_p(top_p).unwrap();
                        assert!(sampler.sample(&logits) < 3);
                    }
                }
            }
        }
        for top_k in [0, 2] {
            assert_eq!(Sampler::new(1.0, top_k, 0).unwrap().sample(&[]), 0);
        }
    }

    /// The published first outputs of SplitMix64 from a seed of 0.
    #[test]
    fn the_generator_is_splitmix64() {
        let mut state = 0;
        let expected = [0xe220_a839_7b1d_cdaf_u64, 0x6e78_9e6a_a1b9_65f4, 0x06c4_5d18_8009_454f];
        for expected in expected {
            assert_eq!(next_unit(&mut state) as f64, (expected >> 40) as f64 / 16_777_216.0);
        }
    }

    #[test]
    fn bad_settings_are_refused() {
        assert_eq!(Sampler::new(f32::NAN, 0, 0).unwrap_err(), Error::Temperature);
        assert_eq!(Sampler::new(-1.0, 0, 0).unwrap_err(), Error::Temperature);
        assert!(matches!(Sampler::new(1.0, 65, 0), Err(Error::TopK { asked: 65, limit: 64 })));
        for top_p in [0.0, -0.1, 1.1, f32::NAN, f32::INFINITY] {
            assert_eq!(Sampler::greedy().with_top_p(top_p).unwrap_err(), Error::TopP);
        }
    }
}
