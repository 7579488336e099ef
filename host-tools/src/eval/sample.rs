//! Text sampled from the model, for machines without a corpus.

use half::f16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use resnet_bk_core::Sampler;

use crate::checkpoint::Chain;
use crate::error::{Error, Result};
use crate::reference::{Model, Stream};

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
    let streams = count.div_ceil(length);
    let done = std::sync::atomic::AtomicUsize::new(0);
    let parts: Vec<Vec<u32>> = (0..streams as u64)
        .into_par_iter()
        .map(|index| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            random.set_stream(index);
            let sampler = Sampler::builder().seed(random.random()).build();
            let mut sampler = sampler.map_err(Error::Blob)?;
            let mut tokens = vec![random.random_range(0..vocab)];
            let mut stream = Stream::new(model)?;
            while tokens.len() < length {
                let logits = stream.step(tokens[tokens.len() - 1])?;
                let mut halves: Vec<f16> = logits.into_iter().map(f16::from_f32).collect();
                tokens.push(sampler.sample(&mut halves));
            }
            let count = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            progress(count as f64 / streams as f64);
            Ok(tokens)
        })
        .collect::<Result<_>>()?;
    let mut tokens = parts.concat();
    tokens.truncate(count);
    Ok(tokens)
}
