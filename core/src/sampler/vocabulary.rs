//! Sampling from the whole vocabulary or its nucleus, without memory for a weight per token:
//! weights are recomputed from the logits, and only sums per chunk of the vocabulary are kept.

use half::f16;

use super::argmax::{argmax, order};
use super::odds::{Odds, share};
use super::{Settings, WHOLE};

/// Chunks of the vocabulary.
const CHUNKS: usize = 64;
/// log₂ of the histogram bins of [`nucleus`].
const RANGE_BITS: u32 = 6;

/// The token that `draw` selects; `logits` must not be empty.
///
/// Outlined to keep the sums off the caller's stack while it computes the next token.
#[inline(never)]
pub(super) fn choose(logits: &[f16], settings: Settings, draw: f32) -> usize {
    let best = argmax(logits);
    let largest = logits[best].to_f32();
    let odds = Odds { logits, largest, temperature: settings.temperature };
    let least = match settings.top_p {
        WHOLE => i16::MIN,
        top_p => nucleus(&odds, order(logits[best]), top_p),
    };
    draw_from(&odds, least, draw).unwrap_or(best)
}

/// The smallest [`order`] of a logit in the nucleus: that of the last token needed to reach `top_p`
/// (in units of 2^−24) of the total weight. `largest` is the largest order.
///
/// Radix search: each pass builds a histogram of weights by order and descends into the bin in
/// which the cumulative weight reaches the target.
fn nucleus(odds: &Odds<'_>, largest: i16, top_p: u32) -> i16 {
    let mut top = largest as i32;
    let (mut above, mut enough) = (0u64, None);
    for shift in [2 * RANGE_BITS - 2, RANGE_BITS - 2, 0] {
        let mut sums = [0u64; 1 << RANGE_BITS];
        for &logit in odds.logits {
            let range = (top - order(logit) as i32) as u32 >> shift;
            if let Some(sum) = sums.get_mut(range as usize) {
                *sum += odds.whole_weight(logit);
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
    top as i16
}

/// The first token at which the running sum of weights exceeds `draw` of the total, over logits
/// with an order of at least `least`. Sums are in f32 in ascending order of token, so that they
/// round the same everywhere. `None` if no weight is positive.
///
/// The running sum at the end of every chunk is kept, so that only one chunk is summed again.
fn draw_from(odds: &Odds<'_>, least: i16, draw: f32) -> Option<usize> {
    let mut ends = [0f32; CHUNKS];
    let mut sum = 0.0;
    for (chunk, end) in ends.iter_mut().enumerate() {
        (sum, _) = add_up(odds, least, chunk, sum, f32::INFINITY);
        *end = sum;
    }
    let target = draw * sum;
    let Some(chunk) = ends.iter().position(|&end| end > target) else {
        let weighs = |&token: &usize| {
            let logit = odds.logits[token];
            order(logit) >= least && odds.weight(logit) > 0.0
        };
        return (0..odds.logits.len()).rev().find(weighs);
    };
    let before = if chunk == 0 { 0.0 } else { ends[chunk - 1] };
    add_up(odds, least, chunk, before, target).1
}

/// Adds the weights of a chunk's tokens to `sum` until it exceeds `limit`; returns the sum and the
/// token at which it did.
#[inline(never)]
fn add_up(
    odds: &Odds<'_>,
    least: i16,
    chunk: usize,
    mut sum: f32,
    limit: f32,
) -> (f32, Option<usize>) {
    let len = odds.logits.len().div_ceil(CHUNKS);
    let first = chunk * len;
    let logits = odds.logits.get(first..).unwrap_or(&[]);
    for (token, &logit) in (first..first + len).zip(logits) {
        if order(logit) >= least {
            sum += odds.weight(logit);
            if sum > limit {
                return (sum, Some(token));
            }
        }
    }
    (sum, None)
}
