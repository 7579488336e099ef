//! Tokens to choose from, and the choice. There is no memory for a weight per token: tokens are told by their
//! logits alone, and sums are kept for stretches of the vocabulary.

use core::cmp::Ordering;

use half::f16;
use heapless::binary_heap::{BinaryHeap, Min};

use super::argmax::order;
use super::{MAX_TOP_K, exp_nonpositive};

/// Bits of a top-p.
pub(super) const TOP_P_BITS: u32 = 24;
/// Bits of a weight as the nucleus adds it up: as many as a float has behind its first.
const WEIGHT_BITS: u32 = 23;
/// Stretches of the vocabulary whose sums are kept.
const STRETCHES: usize = 64;
/// Ranges of logits whose weights are kept, as a power of two.
const RANGE_BITS: u32 = 6;

/// How likely tokens are, relative to the likeliest.
pub(super) struct Odds<'a> {
    pub(super) logits: &'a [f16],
    /// The largest logit.
    pub(super) largest: f32,
    pub(super) temperature: f32,
}

impl Odds<'_> {
    /// Weight of a token with this logit: 1 for the likeliest, 0 for none.
    #[inline(always)]
    fn weight(&self, logit: f16) -> f32 {
        exp_nonpositive((logit.to_f32() - self.largest) / self.temperature)
    }
}

/// Tokens whose logit is above a bound, and of those with that very logit the ones up to a last token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidates {
    /// [`order`] of the bound.
    least: i16,
    last: usize,
}

impl Candidates {
    /// Every token.
    pub(super) const ALL: Self = Self { least: i16::MIN, last: usize::MAX };

    /// The `k` tokens with the largest logits, fewer than there are; the lower token wins a tie.
    pub(super) fn likeliest(logits: &[f16], k: usize) -> Self {
        let mut kept: BinaryHeap<i16, Min, MAX_TOP_K> = BinaryHeap::new();
        let (mut least, mut floor) = (i16::MIN, i32::MIN);
        for &logit in logits {
            // Most logits are below all that are kept.
            if below(logit, floor) {
                continue;
            }
            if kept.len() < k {
                // Cannot fail: the length is below k ≤ MAX_TOP_K.
                let _ = kept.push(order(logit));
            } else if let Some(mut root) = kept.peek_mut() {
                *root = order(logit).max(*root);
            }
            if kept.len() == k {
                least = kept.peek().copied().unwrap_or(least);
                floor = self::floor(least);
            }
        }
        let ties = kept.iter().filter(|&&logit| logit == least).count();
        let tied = |logit: f16| !below(logit, floor) && order(logit) == least;
        let mut tokens = logits.iter().enumerate().filter(|(_, logit)| tied(**logit));
        Self { least, last: tokens.nth(ties.saturating_sub(1)).map_or(usize::MAX, |(t, _)| t) }
    }

    /// Those of them that are at least as likely as the last one needed for `top_p`, in units of
    /// 2^−[`TOP_P_BITS`], of all their weight. Weights count in whole units of 2^−[`WEIGHT_BITS`], so that their
    /// sums are exact in any order; `largest` is the largest logit.
    ///
    /// The bound is found a few bits at a time: each round adds up the weights by ranges of logits and goes on
    /// within the range in which the sum becomes enough.
    pub(super) fn nucleus(self, odds: &Odds<'_>, largest: f16, top_p: u32) -> Self {
        let mut top = order(largest) as i32;
        let (mut above, mut enough) = (0u64, None);
        for shift in [2 * RANGE_BITS - 2, RANGE_BITS - 2, 0] {
            let mut sums = [0u64; 1 << RANGE_BITS];
            for (token, &logit) in odds.logits.iter().enumerate() {
                let range = (top - order(logit) as i32) as u32 >> shift;
                if let Some(sum) = sums.get_mut(range as usize)
                    && self.has(token, logit)
                {
                    *sum += (odds.weight(logit) * (1u32 << WEIGHT_BITS) as f32) as u32 as u64;
                }
            }
            let enough = *enough.get_or_insert_with(|| share(sums.iter().sum(), top_p));
            for sum in sums {
                if above + sum >= enough {
                    break;
                }
                above += sum;
                top -= 1 << shift;
            }
        }
        let least = top as i16;
        Self { least, last: if least == self.least { self.last } else { usize::MAX } }
    }

    /// The candidate at which the running sum of weights passes `draw` of the total. Sums run in
    /// ascending order of token, in f32, so they round alike everywhere. `None` where no weight is above 0.
    ///
    /// A second pass over all weights is spared by keeping the running sum at the end of every stretch.
    pub(super) fn choose(self, odds: &Odds<'_>, draw: f32) -> Option<usize> {
        let mut ends = [0f32; STRETCHES];
        let mut sum = 0.0;
        for (stretch, end) in ends.iter_mut().enumerate() {
            (sum, _) = self.add_up(odds, stretch, sum, f32::INFINITY);
            *end = sum;
        }
        let target = draw * sum;
        let Some(stretch) = ends.iter().position(|&end| end > target) else {
            let weighs = |&token: &usize| {
                let logit = odds.logits[token];
                self.has(token, logit) && odds.weight(logit) > 0.0
            };
            return (0..odds.logits.len()).rev().find(weighs);
        };
        let before = if stretch == 0 { 0.0 } else { ends[stretch - 1] };
        self.add_up(odds, stretch, before, target).1
    }

    /// Adds the weights of a stretch's candidates to `sum` until it is above `limit`; returns it, and the
    /// candidate that made it so.
    #[inline(never)]
    fn add_up(
        self,
        odds: &Odds<'_>,
        stretch: usize,
        mut sum: f32,
        limit: f32,
    ) -> (f32, Option<usize>) {
        let len = odds.logits.len().div_ceil(STRETCHES);
        let first = stretch * len;
        let logits = odds.logits.get(first..).unwrap_or(&[]);
        let floor = floor(self.least);
        for (token, &logit) in (first..first + len).zip(logits) {
            if !below(logit, floor) && self.has(token, logit) {
                sum += odds.weight(logit);
                if sum > limit {
                    return (sum, Some(token));
                }
            }
        }
        (sum, None)
    }

    #[inline(always)]
    fn has(self, token: usize, logit: f16) -> bool {
        match order(logit).cmp(&self.least) {
            Ordering::Greater => true,
            Ordering::Equal => token <= self.last,
            Ordering::Less => false,
        }
    }
}

/// What [`below`] compares with for logits whose [`order`] is to be `least` or more.
fn floor(least: i16) -> i32 {
    if least == i16::MIN { i32::MIN } else { least as i32 - 1 }
}

/// Whether a logit is below a floor for sure, in fewer instructions than [`order`] takes: bits, all but the sign of
/// negative numbers flipped, are [`order`] or one less. Of NaN they may be anything.
#[inline(always)]
fn below(logit: f16, floor: i32) -> bool {
    let bits = logit.to_bits() as i16 as i32;
    (bits ^ (bits >> 16) & 0x7fff) < floor
}

/// ⌈`total` · `top_p` / 2^[`TOP_P_BITS`]⌉, whatever the total.
fn share(total: u64, top_p: u32) -> u64 {
    const MASK: u64 = (1 << TOP_P_BITS) - 1;
    let (whole, part) = (total >> TOP_P_BITS, total & MASK);
    whole * top_p as u64 + ((part * top_p as u64 + MASK) >> TOP_P_BITS)
}
