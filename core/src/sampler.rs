//! Choosing the next token: greedy, or by temperature among the k likeliest, from a seed.

use half::f16;
use heapless::Vec;

use crate::error::Error;
use crate::kernels::wide;
use crate::layers::gate::exp_nonpositive;

/// The most candidates that top-k sampling keeps.
pub const MAX_TOP_K: usize = 64;

/// A seeded sampler. The same logits, settings and seed choose the same tokens on every machine.
#[derive(Clone, Debug)]
pub struct Sampler {
    temperature: f32,
    top_k: usize,
    generator: u64,
}

impl Sampler {
    /// Always the likeliest token; the lowest one wins a tie.
    pub const fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 1, generator: 0 }
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
        Ok(Self { temperature, top_k, generator: seed })
    }

    /// The next token. An empty slice of logits gives token 0; logits that are not finite, which no
    /// model returns, still give a token of the slice.
    pub fn sample(&mut self, logits: &[f16]) -> u32 {
        let best = argmax(logits);
        if self.temperature == 0.0 || self.top_k == 1 {
            return best as u32;
        }
        let largest = logits.get(best).map_or(0.0, |l| l.to_f32());
        let weight =
            |token: usize| exp_nonpositive((logits[token].to_f32() - largest) / self.temperature);
        if self.top_k == 0 || self.top_k >= logits.len() {
            let tokens = 0..logits.len();
            let draw = next_unit(&mut self.generator);
            return choose(tokens, weight, draw).unwrap_or(best) as u32;
        }
        let candidates = largest_of(logits, self.top_k);
        let draw = next_unit(&mut self.generator);
        choose(candidates.iter().map(|&c| c as usize), weight, draw).unwrap_or(best) as u32
    }
}

/// Index of the largest logit; the lowest one of equals; 0 for none. NaN is never larger.
pub fn argmax(logits: &[f16]) -> usize {
    if cfg!(feature = "std") { widest_argmax(logits) } else { first_argmax(logits) }
}

/// One pass, most of it over bits.
fn first_argmax(logits: &[f16]) -> usize {
    let mut best = 0;
    // Bits of positive halves are in the order of the halves, and above those of all others.
    let mut least = i32::MIN;
    for (i, logit) in logits.iter().enumerate() {
        let bits = logit.to_bits() as i16 as i32;
        if bits > least && (*logit > logits[best] || i == 0) {
            best = i;
            least = if bits > 0 { bits } else { i32::MIN };
        }
    }
    best
}

/// Two passes over integers, which hosts make many at a time, for one over halves.
fn widest_argmax(logits: &[f16]) -> usize {
    if logits.first().is_none_or(|first| first.is_nan()) {
        return 0;
    }
    wide(
        #[inline(always)]
        || {
            let largest = logits.iter().map(|&logit| order(logit)).max().unwrap_or(i16::MIN);
            let found = |&logit: &f16| order(logit) == largest;
            let stretch = |logits: &[f16]| logits.iter().fold(false, |any, l| any | found(l));
            let start = 64 * logits.chunks(64).position(stretch).unwrap_or(0);
            start + logits[start..].iter().position(found).unwrap_or(0)
        },
    )
}

/// An integer that orders numbers as they are, both zeros alike, and NaN below all of them.
#[inline(always)]
fn order(half: f16) -> i16 {
    let magnitude = (half.to_bits() & 0x7fff) as i16;
    if magnitude > 0x7c00 {
        i16::MIN
    } else if half.to_bits() >> 15 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

/// The `k` tokens with the largest logits, in ascending order of token; the lower token wins a tie.
fn largest_of(logits: &[f16], k: usize) -> Vec<u32, MAX_TOP_K> {
    // Sorted by descending logit while it fills, so that the last one is the one to beat.
    let mut kept: Vec<u32, MAX_TOP_K> = Vec::new();
    for (token, logit) in logits.iter().enumerate() {
        let rank = kept.iter().position(|&c| *logit > logits[c as usize]).unwrap_or(kept.len());
        if rank >= k {
            continue;
        }
        if kept.len() == k {
            kept.pop();
        }
        // Cannot fail: the length is below k ≤ MAX_TOP_K.
        let _ = kept.insert(rank, token as u32);
    }
    kept.sort_unstable();
    kept
}

/// The candidate at which the running sum of weights passes `draw` of the total. Sums run in the
/// order of the candidates, in f32, so they round alike everywhere.
fn choose(
    candidates: impl Iterator<Item = usize> + Clone,
    weight: impl Fn(usize) -> f32,
    draw: f32,
) -> Option<usize> {
    let total: f32 = candidates.clone().fold(0.0, |sum, c| sum + weight(c));
    let target = draw * total;
    let mut sum = 0.0;
    let mut last = None;
    for candidate in candidates {
        let weight = weight(candidate);
        if weight > 0.0 {
            last = Some(candidate);
        }
        sum += weight;
        if sum > target {
            return Some(candidate);
        }
    }
    last
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
    use super::*;

    fn logits(values: &[f32]) -> std::vec::Vec<f16> {
        values.iter().map(|&v| f16::from_f32(v)).collect()
    }

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(Sampler::greedy().sample(&logits(&[0.0, 2.0, 2.0, -1.0])), 1);
        assert_eq!(Sampler::greedy().sample(&[]), 0);
    }

    /// Zeros of both signs, subnormals, infinities and NaN among the rivals.
    #[test]
    fn argmax_is_the_first_that_no_later_one_exceeds() {
        let kinds = [0u16, 0x8000, 1, 0x8001, 0x3c00, 0xbc00, 0x7bff, 0x7c00, 0xfc00, 0x7e00];
        for bits in (0..=u16::MAX).step_by(7).chain(kinds) {
            let mut logits = std::vec![f16::from_bits(bits); 100];
            for (j, &kind) in kinds.iter().enumerate() {
                logits[(37 * j + 1) % 100] = f16::from_bits(kind);
                let mut best = 0;
                for (i, logit) in logits.iter().enumerate() {
                    if *logit > logits[best] {
                        best = i;
                    }
                }
                assert_eq!(argmax(&logits), best, "{bits:#x} and {kind:#x}");
            }
        }
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

    /// Candidates are the largest, ties going to the lower token, whatever their order.
    #[test]
    fn candidates_are_the_largest() {
        let mut state = 5;
        for _ in 0..200 {
            let values: std::vec::Vec<f32> =
                (0..90).map(|_| (next_unit(&mut state) * 30.0).floor()).collect();
            let k = 1 + (next_unit(&mut state) * 64.0) as usize;
            let mut order: std::vec::Vec<u32> = (0..90).collect();
            order.sort_by(|&a, &b| values[b as usize].total_cmp(&values[a as usize]));
            order.truncate(k);
            order.sort_unstable();
            assert_eq!(largest_of(&logits(&values), k)[..], order[..]);
        }
    }

    /// Logits that no model gives: a token is chosen all the same.
    #[test]
    fn any_logits_give_a_token() {
        let ends = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 65504.0, -65504.0, 1e-7];
        for first in ends {
            for second in ends {
                let logits = logits(&[first, second, first]);
                for temperature in [0.0, 1e-45, 1e-10, 1.0, f32::MAX] {
                    for top_k in [0, 1, 2, 3, 64] {
                        let mut sampler = Sampler::new(temperature, top_k, 9).unwrap();
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
    }
}
