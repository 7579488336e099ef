//! Quality of a checkpoint and of blobs on the same text, the blobs through the integer path that
//! ships.
//!
//! Protocol: windows that follow each other, each with a fresh state, each token predicting the
//! next one; every token of the text but the first is predicted once.

pub mod divergence;
pub mod sample;
mod score;
pub mod text;

use rayon::prelude::*;
use resnet_bk_core as core;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::reference::{CHUNK, Model};
use score::score;

/// Windows that a thread scores at a time, unless they are long.
const WINDOWS_PER_JOB: usize = 8;

/// Quality of one model on a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quality {
    /// Predicted tokens.
    pub tokens: usize,
    /// exp of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Standard error of the perplexity, windows taken as independent.
    pub perplexity_se: f64,
    /// Bits per byte of the predicted text; `None` where tokens stand for no text.
    pub bits_per_byte: Option<f64>,
    /// Distance to the FP32 model; `None` for that model itself.
    pub fidelity: Option<Fidelity>,
    /// Thread seconds spent on this model: logits and their likelihoods.
    pub seconds: f64,
}

/// How far a blob is from its FP32 model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fidelity {
    /// Rise of the perplexity, in percent.
    pub ppl_rise_percent: f64,
    /// Standard error of that rise, from paired differences.
    pub ppl_rise_percent_se: f64,
    /// Mean KL divergence D(FP32 ‖ blob), nats per token.
    pub kl: f64,
    /// Its 99th percentile.
    pub kl_p99: f64,
    /// Its maximum.
    pub kl_max: f64,
    /// Share of positions at which both find the same token likeliest.
    pub top1: f64,
}

/// A model that is compared with the reference.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A blob, through the integer path.
    Blob(core::Model<'a>),
    /// Other weights in the FP32 model.
    Weights(Model),
}

/// Scores `reference` and `subjects` on `tokens` in windows of `window`. `lengths` are the bytes of
/// each token; `progress` is told the share that is done. Results come in the order reference (if
/// any), subjects, and do not depend on the number of threads.
pub fn evaluate(
    reference: Option<&Model>,
    subjects: &[Subject<'_>],
    tokens: &[u32],
    window: usize,
    lengths: Option<&[usize]>,
    progress: impl Fn(f64) + Sync,
) -> Result<Vec<Quality>> {
    check_range(reference, subjects, tokens)?;
    let predictions = tokens.len().saturating_sub(1);
    // Longer jobs would only need more memory.
    let job = window * WINDOWS_PER_JOB.min(CHUNK / window).max(1);
    let starts: Vec<usize> = (0..predictions).step_by(job).collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let jobs: Vec<Vec<Tally>> = starts
        .par_iter()
        .map(|&start| {
            let end = predictions.min(start + job);
            let tallies = score(reference, subjects, &tokens[start..end + 1], window)?;
            let count = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            progress(count as f64 / starts.len() as f64);
            Ok(tallies)
        })
        .collect::<Result<_>>()?;
    let models = usize::from(reference.is_some()) + subjects.len();
    let mut totals = vec![Tally::default(); models];
    for job in jobs {
        totals.iter_mut().zip(job).for_each(|(total, tally)| total.add(tally));
    }
    let bytes = lengths.map(|lengths| tokens[1..].iter().map(|&t| lengths[t as usize]).sum());
    let exact = reference.is_some().then(|| totals[0].clone());
    Ok(totals
        .iter()
        .enumerate()
        .map(|(i, tally)| tally.quality(bytes, exact.as_ref().filter(|_| i > 0)))
        .collect())
}

/// Fails if a model does not have one of the tokens.
fn check_range(reference: Option<&Model>, subjects: &[Subject<'_>], tokens: &[u32]) -> Result<()> {
    let of_subject = |subject: &Subject<'_>| match subject {
        Subject::Blob(blob) => blob.dims().vocab as usize,
        Subject::Weights(model) => model.config().vocab,
    };
    let of_reference = reference.map(|model| model.config().vocab);
    let vocab = subjects.iter().map(of_subject).chain(of_reference).min();
    match tokens.iter().max().copied().zip(vocab) {
        Some((token, vocab)) if token as usize >= vocab => {
            Err(Error::TokenOutOfRange { token, vocab })
        }
        _ => Ok(()),
    }
}

/// What a stretch of text says of one model.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// Summed negative log-likelihood and predictions of each window.
    windows: Vec<(f64, usize)>,
    kl: Vec<f32>,
    agreements: usize,
    seconds: f64,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.windows.extend(other.windows);
        self.kl.extend(other.kl);
        self.agreements += other.agreements;
        self.seconds += other.seconds;
    }

    fn nats(&self) -> f64 {
        self.windows.iter().map(|w| w.0).sum()
    }

    fn quality(&self, bytes: Option<usize>, exact: Option<&Self>) -> Quality {
        let tokens: usize = self.windows.iter().map(|w| w.1).sum();
        let mean = self.nats() / tokens as f64;
        let perplexity = mean.exp();
        let bits = self.nats() / std::f64::consts::LN_2;
        Quality {
            tokens,
            perplexity,
            perplexity_se: perplexity * clustered_error(&self.windows),
            bits_per_byte: bytes.map(|bytes| bits / bytes as f64),
            fidelity: exact.map(|exact| self.fidelity(exact, tokens)),
            seconds: self.seconds,
        }
    }

    fn fidelity(&self, exact: &Self, tokens: usize) -> Fidelity {
        let pairs: Vec<(f64, usize)> =
            self.windows.iter().zip(&exact.windows).map(|(q, p)| (q.0 - p.0, q.1)).collect();
        let ratio = (pairs.iter().map(|w| w.0).sum::<f64>() / tokens as f64).exp();
        let mut kl = self.kl.clone();
        kl.sort_unstable_by(f32::total_cmp);
        let p99 = kl.get((kl.len() * 99 / 100).min(kl.len().saturating_sub(1)));
        Fidelity {
            ppl_rise_percent: 100.0 * (ratio - 1.0),
            ppl_rise_percent_se: 100.0 * ratio * clustered_error(&pairs),
            kl: kl.iter().map(|&x| f64::from(x)).sum::<f64>() / tokens as f64,
            kl_p99: p99.map_or(0.0, |&x| f64::from(x)),
            kl_max: kl.last().map_or(0.0, |&x| f64::from(x)),
            top1: self.agreements as f64 / tokens as f64,
        }
    }
}

/// Standard error of Σ sums / Σ counts with windows as independent clusters.
fn clustered_error(windows: &[(f64, usize)]) -> f64 {
    let count: usize = windows.iter().map(|w| w.1).sum();
    let mean = windows.iter().map(|w| w.0).sum::<f64>() / count as f64;
    let squares: f64 = windows.iter().map(|w| (w.0 - mean * w.1 as f64).powi(2)).sum();
    squares.sqrt() / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    #[test]
    fn tokens_beyond_the_vocabulary_are_an_error() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tiny/model.safetensors");
        let checkpoint = Checkpoint::read(path.as_ref()).unwrap();
        let model = Model::from_checkpoint(&checkpoint);
        let lengths = [1; 272];
        let error = evaluate(Some(&model), &[], &[1, 272, 2], 8, Some(&lengths), |_| {});
        let error = error.unwrap_err();
        assert!(matches!(error, Error::TokenOutOfRange { token: 272, vocab: 272 }), "{error}");
        assert!(evaluate(Some(&model), &[], &[1, 271, 2], 8, Some(&lengths), |_| {}).is_ok());
    }
}
