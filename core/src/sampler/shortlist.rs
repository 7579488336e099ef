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

/// A binary heap with the least key at its root: node p, from 1 up, has the children 2p and 2p + 1,
/// which are a pair here. Places that are not in use hold the largest number.
struct Heap([[u32; 2]; MAX_TOP_K / 2 + 1]);

impl Heap {
    fn new(keys: impl Iterator<Item = u32>) -> Self {
        let mut heap = Self([[u32::MAX; 2]; MAX_TOP_K / 2 + 1]);
        heap.nodes().iter_mut().zip(keys).for_each(|(node, key)| *node = key);
        for node in (1..=MAX_TOP_K / 2).rev() {
            heap.put(node, heap.0.as_flattened()[node]);
        }
        heap
    }

    /// All places, the root's first.
    fn nodes(&mut self) -> &mut [u32] {
        &mut self.0.as_flattened_mut()[1..]
    }

    /// The least key.
    fn root(&self) -> u32 {
        self.0[0][1]
    }

    /// Puts `key` in the place of what is at `node`, or below it where there are lesser ones.
    #[inline(always)]
    fn put(&mut self, mut node: usize, key: u32) {
        while let Some(&[left, right]) = self.0.get(node) {
            let (child, least) =
                if right < left { (2 * node + 1, right) } else { (2 * node, left) };
            if least >= key {
                break;
            }
            self.0.as_flattened_mut()[node] = least;
            node = child;
        }
        self.0.as_flattened_mut()[node] = key;
    }
}

/// Keys of the `k` tokens with the largest logits, in no order; the lower token wins a tie.
fn likeliest(logits: &[f16], k: usize) -> Vec<u32, MAX_TOP_K> {
    let logits = &logits[..logits.len().min(1 << 16)];
    let (first, rest) = logits.split_at(k.min(MAX_TOP_K).min(logits.len()));
    let mut heap = Heap::new((0..).zip(first).map(|(token, &logit)| key(token, logit)));
    let (mut root, mut floor) = (heap.root(), floor_of(heap.root()));
    let mut rest = rest.iter();
    while let Some(&logit) = rest.next() {
        // Most logits are below all that are kept.
        if below(logit, floor) {
            continue;
        }
        let key = key(logits.len() - rest.len() - 1, logit);
        if key > root {
            heap.put(1, key);
            root = heap.root();
            floor = floor_of(root);
        }
    }
    heap.nodes()[..first.len()].iter().copied().collect()
}

/// The order of the root's logit, for [`below`].
fn floor_of(root: u32) -> i32 {
    ((root >> 16) as u16 ^ 0x8000) as i16 as i32
}

/// Whether a later token than the root's with this logit is no candidate, its order being `floor`
/// or less: if so, for all but a few, in fewer instructions than [`order`] takes. The bits, all but
/// the sign of negative ones flipped, are the order or one less. For NaN they are arbitrary.
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

/// Sorts at most 64 numbers, ascending: Shell's sort with the gaps of Ciura (2001), which is
/// smaller than the library's.
fn sort(keys: &mut [u32]) {
    for gap in [23, 10, 4, 1] {
        for end in gap..keys.len() {
            let key = keys[end];
            let mut place = end;
            while place >= gap && keys[place - gap] > key {
                keys[place] = keys[place - gap];
                place -= gap;
            }
            keys[place] = key;
        }
    }
}
