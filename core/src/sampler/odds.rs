//! Softmax weights of tokens, relative to the most likely one.

use half::f16;

use super::TOP_P_BITS;
use crate::numeric::exp_nonpositive;

/// Fraction bits of an integer weight: those of an f32 mantissa.
const WEIGHT_BITS: u32 = 23;

/// Unnormalized softmax of the logits.
pub(super) struct Odds<'a> {
    pub(super) logits: &'a [f16],
    /// The largest logit.
    pub(super) largest: f32,
    pub(super) temperature: f32,
}

impl Odds<'_> {
    /// Weight of a token with this logit, from 1 for the most likely one down to 0.
    #[inline(always)]
    pub(super) fn weight(&self, logit: f16) -> f32 {
        exp_nonpositive((logit.to_f32() - self.largest) / self.temperature)
    }

    /// The weight truncated to units of 2^−[`WEIGHT_BITS`], so that sums are exact in any order.
    #[inline(always)]
    pub(super) fn whole_weight(&self, logit: f16) -> u64 {
        (self.weight(logit) * (1u32 << WEIGHT_BITS) as f32) as u32 as u64
    }
}

/// ⌈`total` · `top_p` / 2^[`TOP_P_BITS`]⌉, without overflow for any total.
pub(super) fn share(total: u64, top_p: u32) -> u64 {
    const MASK: u64 = (1 << TOP_P_BITS) - 1;
    let (whole, part) = (total >> TOP_P_BITS, total & MASK);
    whole * top_p as u64 + ((part * top_p as u64 + MASK) >> TOP_P_BITS)
}
