//! Seeded sampling of the next token: greedy, temperature, top-k, top-p and repetition penalty.

mod argmax;
mod odds;
mod recent;
mod shortlist;
mod vocabulary;

use half::f16;

use crate::error::Error;
pub use argmax::argmax;
use recent::Recent;

/// Largest k of top-k sampling.
pub const MAX_TOP_K: usize = 64;
/// Largest repetition penalty. With it no f32 becomes subnormal; useful penalties are far smaller.
pub const MAX_REPETITION_PENALTY: f32 = 1000.0;
/// Fraction bits of a top-p.
const TOP_P_BITS: u32 = 24;
/// A top-p of 1: all tokens.
const WHOLE: u32 = 1 << TOP_P_BITS;

/// Validated settings of a sampler.
#[derive(Clone, Copy, Debug)]
struct Settings {
    temperature: f32,
    top_k: usize,
    /// In units of 2^−[`TOP_P_BITS`].
    top_p: u32,
}

/// A seeded sampler. The same logits, settings and seed give the same tokens on every machine.
///
/// `RECENT` is the number of distinct tokens that the repetition penalty remembers; 0 without a
/// penalty.
///
/// ```
/// use half::f16;
/// use resnet_bk_core::Sampler;
///
/// let mut logits = [1.0, 3.0, 2.0].map(f16::from_f32);
/// assert_eq!(Sampler::greedy().sample(&mut logits), 1);
///
/// let sampler = Sampler::builder().temperature(0.8).top_k(2).top_p(0.95).seed(7);
/// let mut sampler = sampler.repetition_penalty::<16>(1.2).build()?;
/// assert!([1, 2].contains(&sampler.sample(&mut logits)));
/// # Ok::<(), resnet_bk_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sampler<const RECENT: usize = 0> {
    settings: Settings,
    generator: u64,
    penalty: f32,
    recent: Recent<RECENT>,
}

impl Sampler {
    /// Always the most likely token, the lowest on a tie.
    pub const fn greedy() -> Self {
        let settings = Settings { temperature: 0.0, top_k: 1, top_p: WHOLE };
        Self { settings, generator: 0, penalty: 1.0, recent: Recent::new() }
    }

    /// A builder. Its defaults sample from the softmax of all tokens with a seed of 0.
    pub const fn builder() -> SamplerBuilder {
        SamplerBuilder { temperature: 1.0, top_k: 0, top_p: 1.0, penalty: 1.0, seed: 0 }
    }
}

impl<const RECENT: usize> Sampler<RECENT> {
    /// Samples the next token and records it for the repetition penalty, which modifies the logits
    /// of recent tokens in place. Without a penalty `logits` stay unchanged.
    ///
    /// An empty slice gives token 0. Non-finite logits, which no model returns, still give a token
    /// within the slice.
    pub fn sample(&mut self, logits: &mut [f16]) -> u32 {
        self.recent.penalize(logits, self.penalty);
        let Settings { temperature, top_k, .. } = self.settings;
        let token = if temperature == 0.0 || top_k == 1 || logits.is_empty() {
            argmax(logits)
        } else {
            let draw = next_unit(&mut self.generator);
            // Settings by value, so that the compiler removes both calls from greedy samplers.
            match top_k {
                1.. if top_k < logits.len() => shortlist::choose(logits, self.settings, draw),
                _ => vocabulary::choose(logits, self.settings, draw),
            }
        };
        self.recent.push(token as u32);
        token as u32
    }

    /// Records a token that was not sampled, such as one of a prompt, for the repetition penalty.
    pub fn observe(&mut self, token: u32) {
        self.recent.push(token);
    }

    /// Clears the tokens of the repetition penalty, for an unrelated text. Keeps the random state.
    pub fn forget(&mut self) {
        self.recent.clear();
    }
}

/// Settings of a [`Sampler`], from [`Sampler::builder`].
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct SamplerBuilder<const RECENT: usize = 0> {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    penalty: f32,
    seed: u64,
}

impl<const RECENT: usize> SamplerBuilder<RECENT> {
    /// Samples from the softmax of logits / `temperature`; 0 is greedy. By default 1.
    pub const fn temperature(self, temperature: f32) -> Self {
        Self { temperature, ..self }
    }

    /// Restricts sampling to the `top_k` most likely tokens, at most [`MAX_TOP_K`]; the lower token
    /// wins a tie. 0, the default, means all tokens.
    pub const fn top_k(self, top_k: usize) -> Self {
        Self { top_k, ..self }
    }

    /// Restricts the candidates to the nucleus (Holtzman et al., 2020): the smallest set of most
    /// likely tokens with a total probability of at least `top_p`, plus ties with the last one.
    /// 1, the default, means all.
    pub const fn top_p(self, top_p: f32) -> Self {
        Self { top_p, ..self }
    }

    /// Penalizes the last `LAST` distinct tokens (Keskar et al., 2019): before anything else, their
    /// positive logits are divided by `penalty` and the others multiplied by it. 1, the default,
    /// changes nothing; 1.1 to 1.3 are usual. Takes four bytes per token.
    pub const fn repetition_penalty<const LAST: usize>(self, penalty: f32) -> SamplerBuilder<LAST> {
        let Self { temperature, top_k, top_p, seed, .. } = self;
        SamplerBuilder { temperature, top_k, top_p, penalty, seed }
    }

    /// Seed of the random generator; by default 0.
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Validates the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Temperature`] for a negative or non-finite temperature, [`Error::TopK`] for more
    /// than [`MAX_TOP_K`], [`Error::TopP`] outside of (0, 1], [`Error::RepetitionPenalty`] outside
    /// of 1 to [`MAX_REPETITION_PENALTY`].
    pub fn build(self) -> Result<Sampler<RECENT>, Error> {
        let Self { temperature, top_k, top_p, penalty, seed } = self;
        if !(temperature >= 0.0 && temperature.is_finite()) {
            return Err(Error::Temperature);
        }
        if top_k > MAX_TOP_K {
            return Err(Error::TopK { asked: top_k, limit: MAX_TOP_K });
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(Error::TopP);
        }
        if !(1.0..=MAX_REPETITION_PENALTY).contains(&penalty) {
            return Err(Error::RepetitionPenalty);
        }
        let settings = Settings { temperature, top_k, top_p: (top_p * WHOLE as f32) as u32 };
        Ok(Sampler { settings, generator: seed, penalty, recent: Recent::new() })
    }
}

/// Uniform in [0, 1) with 24 bits, from SplitMix64 (Steele, Lea and Flood, 2014). Implemented here
/// because the generator is part of the number contract.
fn next_unit(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    (z >> 40) as f32 * (1.0 / (1 << 24) as f32)
}

#[cfg(test)]
mod tests;
