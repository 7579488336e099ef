//! A batch in shards, whose gradient sum does not depend on the number of threads.

use crate::reference::{add_to, simd};
use crate::threads;
use crate::train::random::Random;

/// Parameters per chunk of parallel work. Part of the recipe: it fixes the order in which squares
/// of the gradient are summed.
pub(crate) const CHUNK: usize = 1 << 14;

/// A shard: one part of a batch.
#[derive(Default)]
pub(crate) struct Shard {
    /// Consecutive windows of tokens.
    pub(crate) inputs: Vec<u32>,
    /// Position of each window's first token in the text.
    pub(crate) starts: Vec<usize>,
    /// The token after each input.
    pub(crate) targets: Vec<u32>,
    /// Gradient of the shard's loss.
    pub(crate) gradient: Vec<f32>,
    loss: f64,
}

/// The shards of a batch and the sum of their gradients.
pub(crate) struct Batch {
    shards: Vec<Shard>,
    pub(crate) gradient: Vec<f32>,
}

impl Batch {
    /// A batch of `shards` shards for `parameters` parameters.
    pub(crate) fn new(shards: usize, parameters: usize) -> Self {
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            gradient: vec![0.0; parameters],
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

    /// Lets `work` add the gradient of every shard, one thread per state, with a random number for
    /// each shard. Returns the summed losses and the norm of the summed gradient.
    pub(crate) fn backward<S: Send>(
        &mut self,
        states: &mut [S],
        mut random: Random,
        work: impl Fn(&mut S, &mut Shard, u64) -> f64 + Sync,
    ) -> (f64, f64) {
        let parameters = self.gradient.len();
        let shards = self.shards.iter_mut().map(|shard| (shard, random.word()));
        threads::for_each(states, shards, |state, (shard, seed)| {
            shard.gradient.resize(parameters, 0.0);
            shard.gradient.fill(0.0);
            shard.loss = work(state, shard, seed);
        });
        (self.shards.iter().map(|shard| shard.loss).sum(), self.reduce(states))
    }

    /// Sums the shards' gradients in a fixed order and returns the norm of the sum.
    fn reduce<S: Send>(&mut self, states: &mut [S]) -> f64 {
        let shards = &self.shards;
        let chunks = self.gradient.chunks_mut(CHUNK);
        let mut squares = vec![0.0f64; chunks.len()];
        let items = chunks.zip(&mut squares).enumerate();
        threads::for_each(states, items, |_, (i, (gradient, square))| {
            let range = i * CHUNK..i * CHUNK + gradient.len();
            gradient.copy_from_slice(&shards[0].gradient[range.clone()]);
            simd(
                #[inline(always)]
                || {
                    for shard in &shards[1..] {
                        add_to(gradient, &shard.gradient[range.clone()]);
                    }
                },
            );
            *square = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum();
        });
        squares.iter().sum::<f64>().sqrt()
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
