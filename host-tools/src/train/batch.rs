//! A batch in shards, whose gradient sum does not depend on the number of threads.

use crate::reference::{add_to, simd};
use crate::threads::{self, Turn};
use crate::train::random::Random;

/// Parameters per chunk of parallel work. Part of the recipe: it fixes the order in which squares
/// of the gradient are summed.
pub(crate) const CHUNK: usize = 1 << 14;
/// Parameters that a shard adds to the sum of gradients at a time.
const PIECE: usize = 1 << 17;

/// A shard: one part of a batch.
#[derive(Default)]
pub(crate) struct Shard {
    /// Consecutive windows of tokens.
    pub(crate) inputs: Vec<u32>,
    /// Position of each window's first token in the text.
    pub(crate) starts: Vec<usize>,
    /// The token after each input.
    pub(crate) targets: Vec<u32>,
    loss: f64,
}

/// The shards of a batch and the sum of their gradients.
pub(crate) struct Batch {
    shards: Vec<Shard>,
    pub(crate) gradient: Vec<f32>,
    /// A shard's gradient, one for each thread.
    buffers: Vec<Vec<f32>>,
}

impl Batch {
    /// A batch of `shards` shards for `parameters` parameters.
    pub(crate) fn new(shards: usize, parameters: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            gradient: vec![0.0; parameters],
            buffers: Vec::new(),
        }
    }

    /// Fills the shards with `windows` random windows of `window` tokens in total.
    pub(crate) fn draw(
        &mut self,
        tokens: &[u32],
        (windows, window): (usize, usize),
        mut random: Random,
    ) {
        let count = self.shards.len();
        for (i, shard) in self.shards.iter_mut().enumerate() {
            shard.starts.clear();
            shard.inputs.clear();
            shard.targets.clear();
            for _ in i * windows / count..(i + 1) * windows / count {
                let start = random.below(tokens.len() - window);
                shard.starts.push(start);
                shard.inputs.extend_from_slice(&tokens[start..start + window]);
                shard.targets.extend_from_slice(&tokens[start + 1..start + 1 + window]);
            }
        }
    }

    /// Replaces each input with this probability by a uniformly random token.
    pub(crate) fn replace(&mut self, probability: f64, vocab: usize, mut random: Random) {
        for token in self.shards.iter_mut().flat_map(|shard| &mut shard.inputs) {
            if random.unit() < probability {
                *token = random.below(vocab) as u32;
            }
        }
    }

    /// Lets `work` add the gradient of every shard to zeros, one thread per state, with a random
    /// number for each shard. Returns the summed losses and the norm of the summed gradient.
    pub(crate) fn backward<S: Send>(
        &mut self,
        states: &mut [S],
        mut random: Random,
        work: impl Fn(&mut S, &Shard, &mut [f32], u64) -> f64 + Sync,
    ) -> (f64, f64) {
        let parameters = self.gradient.len();
        self.buffers.resize_with(states.len(), || vec![0.0; parameters]);
        let mut threads: Vec<_> = states.iter_mut().zip(&mut self.buffers).collect();
        // Shards add to one piece after the other: while one is at the second, the next is at the
        // first.
        let pieces: Vec<Turn<&mut [f32]>> =
            self.gradient.chunks_mut(PIECE).map(Turn::new).collect();
        let shards = self.shards.iter_mut().enumerate();
        let shards = shards.map(|(index, shard)| (index, shard, random.word()));
        threads::for_each(&mut threads, shards, |(state, buffer), (index, shard, seed)| {
            let pass = Pass { pieces: &pieces, shard: index };
            buffer.fill(0.0);
            shard.loss = work(state, shard, buffer, seed);
            pass.add(buffer);
        });
        drop(pieces);
        (self.shards.iter().map(|shard| shard.loss).sum(), self.norm(states))
    }

    /// The norm of the gradient, its squares summed in a fixed order.
    fn norm<S: Send>(&self, states: &mut [S]) -> f64 {
        let chunks = self.gradient.chunks(CHUNK);
        let mut squares = vec![0.0f64; chunks.len()];
        threads::for_each(states, chunks.zip(&mut squares), |_, (gradient, square)| {
            *square = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
        });
        squares.iter().sum::<f64>().sqrt()
    }
}

/// A shard on its way through the pieces of the gradient; dropping it lets the next one pass.
struct Pass<'a, 'b> {
    pieces: &'a [Turn<&'b mut [f32]>],
    shard: usize,
}

impl Pass<'_, '_> {
    fn add(&self, own: &[f32]) {
        for (piece, own) in self.pieces.iter().zip(own.chunks(PIECE)) {
            piece.take(self.shard, |sum| match self.shard {
                0 => sum.copy_from_slice(own),
                _ => simd(
                    #[inline(always)]
                    || add_to(sum, own),
                ),
            });
        }
    }
}

impl Drop for Pass<'_, '_> {
    fn drop(&mut self) {
        self.pieces.iter().for_each(|piece| piece.take(self.shard, |_| {}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_inputs_gives_way_and_no_target() {
        let tokens = vec![3; 1000];
        let replaced = |probability, step| {
            let mut batch = Batch::new(2, 1);
            batch.draw(&tokens, (16, 32), Random::step(1, step));
            batch.replace(probability, 10, Random::replacements(1, step));
            assert!(batch.shards.iter().all(|shard| shard.targets.iter().all(|&t| t == 3)));
            batch.shards.into_iter().flat_map(|shard| shard.inputs).collect::<Vec<u32>>()
        };
        let differing = |tokens: &[u32]| tokens.iter().filter(|&&t| t != 3).count();
        assert_eq!(differing(&replaced(0.0, 0)), 0);
        let half = replaced(0.5, 0);
        // 9 of 10 replacements differ: expect 230 of 512, standard deviation 11.
        assert!((180..280).contains(&differing(&half)), "{}", differing(&half));
        assert!((0..10).all(|token| half.contains(&token)) && half.iter().all(|&t| t < 10));
        assert_eq!(half, replaced(0.5, 0));
        assert_ne!(half, replaced(0.5, 1));
    }
}
