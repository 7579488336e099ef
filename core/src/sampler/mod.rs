//! Choosing the next token: greedy, or by temperature among the likeliest, from a seed.

mod argmax;
mod odds;
mod recent;
mod shortlist;
mod vocabulary;

use half::f16;

use crate::error::Error;
pub use argmax::argmax;
use recent::Recent;

/// The most candidates of top-k sampling.
pub const MAX_TOP_K: usize = 64;
/// The largest repetition penalty: with it every float stays normal, and text would long be no
/// text.
pub const MAX_REPETITION_PENALTY: f32 = 1000.0;
/// Bits of a top-p.
const TOP_P_BITS: u32 = 24;
/// A top-p of 1: everything.
const WHOLE: u32 = 1 << TOP_P_BITS;

/// What the choice among tokens depends on, apart from the draw.
#[derive(Clone, Copy, Debug)]
struct Settings {
    temperature: f32,
    top_k: usize,
    /// In units of 2^−[`TOP_P_BITS`].
    top_p: u32,
}

/// A seeded sampler. The same logits, settings and seed choose the same tokens on every machine.
///
/// `RECENT` is the number of distinct tokens that a repetition penalty remembers; a sampler without
/// one needs no memory for them.
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
    /// Always the likeliest token; the lowest one wins a tie.
    pub const fn greedy() -> Self {
        let settings = Settings { temperature: 0.0, top_k: 1, top_p: WHOLE };
        Self { settings, generator: 0, penalty: 1.0, recent: Recent::new() }
    }

    /// Settings to choose: from the softmax among all tokens, with a seed of 0, until told
    /// otherwise.
    pub const fn builder() -> SamplerBuilder {
        SamplerBuilder { temperature: 1.0, top_k: 0, top_p: 1.0, penalty: 1.0, seed: 0 }
    }
}

impl<const RECENT: usize> Sampler<RECENT> {
    /// The next token, which the sampler remembers for its repetition penalty. With one, the logits
    /// of recent tokens are changed in place; without, `logits` stay as they are.
    ///
    /// An empty slice of logits gives token 0; logits that are not finite, which no model returns,
    /// still give a token of the slice.
    pub fn sample(&mut self, logits: &mut [f16]) -> u32 {
        self.recent.penalize(logits, self.penalty);
        let Settings { temperature, top_k, .. } = self.settings;
        let token = if temperature == 0.0 || top_k == 1 || logits.is_empty() {
            argmax(logits)
        } else {
            let draw = next_unit(&mut self.generator);
            // Settings by value: code of a greedy sampler has neither.
            match top_k {
                1.. if top_k < logits.len() => shortlist::choose(logits, self.settings, draw),
                _ => vocabulary::choose(logits, self.settings, draw),
            }
        };
        self.recent.push(token as u32);
        token as u32
    }

    /// Tells the sampler of a token that it did not choose, such as one of a prompt, so that the
    /// repetition penalty counts it.
    pub fn observe(&mut self, token: u32) {
        self.recent.push(token);
    }

    /// Forgets the tokens that the repetition penalty remembers, for a text that has nothing to do
    /// with the one before. The generator of draws goes on.
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

    /// Only the `top_k` likeliest tokens are candidates, at most [`MAX_TOP_K`]; the lower token
    /// wins a tie. 0, the default, means all tokens.
    pub const fn top_k(self, top_k: usize) -> Self {
        Self { top_k, ..self }
    }

    /// Of the candidates only the nucleus (Holtzman et al., 2020): the likeliest ones that together
    /// have at least `top_p` of the probability, and those exactly as likely as the last of them.
    /// 1, the default, means all.
    pub const fn top_p(self, top_p: f32) -> Self {
        Self { top_p, ..self }
    }

    /// Makes the last `LAST` distinct tokens of the text less likely (Keskar et al., 2019): their
    /// positive logits are divided by `penalty`, the others multiplied, before all else. 1, the
    /// default, changes nothing; 1.1 to 1.3 are usual. The sampler has four bytes for each of them.
    pub const fn repetition_penalty<const LAST: usize>(self, penalty: f32) -> SamplerBuilder<LAST> {
        let Self { temperature, top_k, top_p, seed, .. } = self;
        SamplerBuilder { temperature, top_k, top_p, penalty, seed }
    }

    /// The seed of the draws; by default 0.
    pub const fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The sampler.
    ///
    /// # Errors
    ///
    /// [`Error::Temperature`] for one that is negative, infinite or not a number, [`Error::TopK`]
    /// for more than [`MAX_TOP_K`], [`Error::TopP`] for one that is not above 0 and at most 1,
    /// [`Error::RepetitionPenalty`] for one that is not from 1 to [`MAX_REPETITION_PENALTY`].
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
mod tests;
