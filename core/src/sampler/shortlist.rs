//! Top-k sampling: a heap of the k likeliest tokens, and the choice among those alone.

use half::f16;
use heapless::Vec;

use super::argmax::order;
use super::odds::{Odds, share};
use super::{MAX_TOP_K, Settings, WHOLE};

/// The token that `draw` falls on among the `top_k` likeliest; `logits` must not be empty.
///
/// Outlined: the stack of the caller has no room for the lists while the next token is computed.
#[inline(never)]
pub(super) fn choose(logits: &[f16], settings: Settings, draw: f32) -> usize {
    let mut keys = likeliest(logits, settings.top_k);
    let best = keys.iter().copied().max().map_or(0, token);
    let largest = logits[best].to_f32();
    let odds = Odds { logits, largest, temperature: settings.temperature };
    if settings.top_p < WHOLE {
        keep_nucleus(&mut keys, &odds, settings.top_p);
    }
    // In ascending order of token, in which weights are added up.
    keys.iter_mut().for_each(|key| *key = key.rotate_right(16) ^ 0xffff_0000);
    sort(&mut keys);
    let tokens = || keys.iter().map(|key| (key >> 16) as usize);
    let mut weights = [0f32; MAX_TOP_K];
    let mut total = 0.0;
    for (weight, token) in weights.iter_mut().zip(tokens()) {
        *weight = odds.weight(logits[token]);
        total += *weight;
    }
    let (target, mut sum) = (draw * total, 0.0);
    for (weight, token) in weights.into_iter().zip(tokens()) {
        sum += weight;
        if sum > target {
            return token;
        }
    }
    let weighs = |token: &usize| odds.weight(logits[*token]) > 0.0;
    tokens().rev().find(weighs).unwrap_or(best)
}

/// A token and the order of its logit in one word: larger for a larger logit, and of equal ones for
/// the lower token.
///
/// Models have at most 2^16 tokens. Of a longer slice, higher ones are no candidates.
fn key(token: usize, logit: f16) -> u32 {
    ((order(logit) as u16 ^ 0x8000) as u32) << 16 | (token as u16 ^ 0xffff) as u32
}

fn token(key: u32) -> usize {
    (key as u16 ^ 0xffff) as usize
}

/// Keys of the `k` tokens with the largest logits, in no order; the lower token wins a tie.
fn likeliest(logits: &[f16], k: usize) -> Vec<u32, MAX_TOP_K> {
    let logits = &logits[..logits.len().min(1 << 16)];
    let (first, rest) = logits.split_at(k.min(MAX_TOP_K).min(logits.len()));
    // A heap, the least key at its root.
    let mut keys: Vec<u32, MAX_TOP_K> = (0..).zip(first).map(|(t, &logit)| key(t, logit)).collect();
    (0..keys.len() / 2).rev().for_each(|place| sift_down(&mut keys, place));
    let Some(&root) = keys.first() else { return keys };
    let mut floor = order_of(root);
    for (token, &logit) in (first.len()..).zip(rest) {
        // Most logits are below all that are kept.
        if below(logit, floor) {
            continue;
        }
        let key = key(token, logit);
        if key > keys[0] {
            keys[0] = key;
            sift_down(&mut keys, 0);
            floor = order_of(keys[0]);
        }
    }
    keys
}

/// Moves the key at `place` down until none below it is less.
fn sift_down(keys: &mut [u32], mut place: usize) {
    let key = keys[place];
    loop {
        let mut child = 2 * place + 1;
        let Some(&(mut least)) = keys.get(child) else { break };
        if let Some(&other) = keys.get(child + 1)
            && other < least
        {
            (child, least) = (child + 1, other);
        }
        if least >= key {
            break;
        }
        keys[place] = least;
        place = child;
    }
    keys[place] = key;
}

/// The order of a key's logit.
fn order_of(key: u32) -> i32 {
    ((key >> 16) as u16 ^ 0x8000) as i16 as i32
}

/// Whether a logit's order is `floor` or less, so that a later token is no candidate: if so for
/// sure, in fewer instructions than [`order`] takes. The bits, all but the sign of negative ones
/// flipped, are the order or one less. For NaN they are arbitrary.
#[inline(always)]
fn below(logit: f16, floor: i32) -> bool {
    let bits = logit.to_bits() as i16 as i32;
    (bits ^ (bits >> 16) & 0x7fff) < floor
}

/// Keeps the tokens that the nucleus has: the fewest likeliest ones that have `top_p` of the
/// weight together, and those exactly as likely as the last of them.
fn keep_nucleus(keys: &mut Vec<u32, MAX_TOP_K>, odds: &Odds<'_>, top_p: u32) {
    sort(keys);
    keys.reverse();
    let weight = |key: u32| odds.whole_weight(odds.logits[token(key)]);
    let enough = share(keys.iter().map(|&key| weight(key)).sum(), top_p);
    let mut sum = 0;
    let needed = keys.iter().position(|&key| {
        sum += weight(key);
        sum >= enough
    });
    if let Some(last) = needed {
        let bound = keys[last] >> 16;
        keys.retain(|key| key >> 16 >= bound);
    }
}

/// Insertion sort, ascending: for at most 64 numbers smaller than the library's and fast enough.
fn sort(keys: &mut [u32]) {
    for end in 1..keys.len() {
        let key = keys[end];
        let mut place = end;
        while place > 0 && keys[place - 1] > key {
            keys[place] = keys[place - 1];
            place -= 1;
        }
        keys[place] = key;
    }
}
