//! Top-k sampling: a heap selects the k most likely tokens, then one of them is drawn.

use half::f16;
use heapless::Vec;

use super::argmax::order;
use super::odds::{Odds, share};
use super::{MAX_TOP_K, Settings, WHOLE};

/// The token that `draw` selects among the `top_k` most likely; `logits` must not be empty.
///
/// Outlined to keep the lists off the caller's stack while it computes the next token.
#[inline(never)]
pub(super) fn choose(logits: &[f16], settings: Settings, draw: f32) -> usize {
    let mut keys = likeliest(logits, settings.top_k);
    let best = keys.iter().copied().max().map_or(0, token);
    let largest = logits[best].to_f32();
    let odds = Odds { logits, largest, temperature: settings.temperature };
    if settings.top_p < WHOLE {
        keep_nucleus(&mut keys, &odds, settings.top_p);
    }
    // Weights are summed in ascending order of token.
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

/// Sort key of a token: larger for a larger logit and, on a tie, for a lower token.
///
/// Models have at most 2^16 tokens; in a longer slice the tokens beyond are ignored.
fn key(token: usize, logit: f16) -> u32 {
    ((order(logit) as u16 ^ 0x8000) as u32) << 16 | (token as u16 ^ 0xffff) as u32
}

fn token(key: u32) -> usize {
    (key as u16 ^ 0xffff) as usize
}

/// A binary min-heap: node p, from 1 up, has the children 2p and 2p + 1, stored as a pair. Unused
/// nodes hold `u32::MAX`.
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

    /// All nodes, the root first.
    fn nodes(&mut self) -> &mut [u32] {
        &mut self.0.as_flattened_mut()[1..]
    }

    /// The smallest key.
    fn root(&self) -> u32 {
        self.0[0][1]
    }

    /// Replaces the key at `node` by `key` and sifts it down.
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

/// Keys of the `k` tokens with the largest logits, unordered; the lower token wins a tie.
fn likeliest(logits: &[f16], k: usize) -> Vec<u32, MAX_TOP_K> {
    let logits = &logits[..logits.len().min(1 << 16)];
    let (first, rest) = logits.split_at(k.min(MAX_TOP_K).min(logits.len()));
    let mut heap = Heap::new((0..).zip(first).map(|(token, &logit)| key(token, logit)));
    let (mut root, mut floor) = (heap.root(), floor_of(heap.root()));
    let mut rest = rest.iter();
    while let Some(&logit) = rest.next() {
        // Skips most logits.
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

/// [`order`] of the root's logit, for [`below`].
fn floor_of(root: u32) -> i32 {
    ((root >> 16) as u16 ^ 0x8000) as i16 as i32
}

/// A cheaper, conservative test than [`order`] for logits that are no candidates: true only if
/// the order is at most `floor`, so that a token after the root's loses the tie. With the magnitude
/// bits of negative halves flipped, the bits are the order or one less; for NaN they are arbitrary.
#[inline(always)]
fn below(logit: f16, floor: i32) -> bool {
    let bits = logit.to_bits() as i16 as i32;
    (bits ^ (bits >> 16) & 0x7fff) < floor
}

/// Keeps the nucleus: the smallest set of most likely tokens with at least `top_p` of the total
/// weight, plus ties with the last one.
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

/// Sorts at most 64 numbers, ascending: Shellsort with the gaps of Ciura (2001), smaller in code
/// than the library's sort.
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
