//! Text sampled from the model, for machines without a corpus.

use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use resnet_bk_core::Sampler;

use crate::checkpoint::Chain;
use crate::error::{Error, Result};
use crate::reference::{Model, Stream};
use crate::threads::Progress;

/// Maximum number of tokens of a stream.
const STREAM: usize = 1024;

/// Length of this model's streams: that of its position table, at most 1024.
pub fn stream_length(model: &Model) -> usize {
    model.config().positions.map_or(STREAM, |positions| positions.min(STREAM))
}

/// Samples `count` tokens at temperature 1, in streams of [`stream_length`] that each start from a
/// random token. A full-chain model cannot generate (it sees its future), so its tokens are
/// uniformly random. Deterministic for a seed on the same kind of processor.
pub fn sample(
    model: &Model,
    count: usize,
    seed: u64,
    progress: impl Fn(f64) + Sync,
) -> Result<Vec<u32>> {
    let vocab = model.config().vocab as u32;
    if model.config().chain == Chain::Full {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        return Ok((0..count).map(|_| random.random_range(0..vocab)).collect());
    }
    let length = stream_length(model);
    let streams: Vec<u64> = (0..count.div_ceil(length) as u64).collect();
    let progress = Progress::new(streams.len() * length, progress);
    // As many at a time as leaves work for every thread: that is no matter of bits.
    let together = streams.len().div_ceil(rayon::current_num_threads()).clamp(1, Stream::TEXTS);
    let groups = streams.par_chunks(together).map(|streams| {
        let texts = streams.iter().map(|&stream| Text::new(seed, stream, vocab));
        let mut texts = texts.collect::<Result<Vec<_>>>()?;
        let mut stream = Stream::of_texts(model, texts.len())?;
        for _ in 1..length {
            let last: Vec<u32> = texts.iter().map(Text::last).collect();
            let logits = stream.step(&last)?;
            for (text, logits) in texts.iter_mut().zip(logits.chunks_exact(vocab as usize)) {
                text.go_on(logits);
            }
            progress.add(texts.len());
        }
        Ok(texts.into_iter().flat_map(|text| text.tokens))
    });
    let groups = groups.collect::<Result<Vec<_>>>()?;
    Ok(groups.into_iter().flatten().take(count).collect())
}

/// A stream of text and what continues it.
struct Text {
    sampler: Sampler,
    /// Not empty.
    tokens: Vec<u32>,
}

impl Text {
    /// A random token.
    fn new(seed: u64, stream: u64, vocab: u32) -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(stream);
        let sampler = Sampler::builder().seed(random.random()).build().map_err(Error::Blob)?;
        Ok(Self { sampler, tokens: vec![random.random_range(0..vocab)] })
    }

    fn last(&self) -> u32 {
        self.tokens[self.tokens.len() - 1]
    }

    /// Samples the next token from its logits `[V]`.
    fn go_on(&mut self, logits: &[f32]) {
        let mut halves: Vec<f16> = logits.iter().map(|&logit| f16::from_f32(logit)).collect();
        self.tokens.push(self.sampler.sample(&mut halves));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::{random_checkpoint, random_gated};

    #[test]
    fn text_does_not_depend_on_threads() {
        for checkpoint in [random_gated(4, (5, 3, 2)), random_checkpoint(3, 2)] {
            let model = Model::from_checkpoint(&checkpoint);
            let count = 9 * stream_length(&model) + 5;
            let text = |threads| {
                crate::threads::with(threads, || sample(&model, count, 7, |_| {}).unwrap())
            };
            let alone = text(10);
            assert_eq!(alone.len(), count);
            assert!(text(1) == alone && text(3) == alone);
        }
    }
}
