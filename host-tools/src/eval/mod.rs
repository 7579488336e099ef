//! Quality of a checkpoint and of blobs on the same text, the blobs through the integer path that
//! ships.
//!
//! Protocol: windows that follow each other, each with a fresh state, each token predicting the
//! next one; every token of the text but the first is predicted once.
//!
//! ```text
//! tokens ─ windows ─▶ Sums of each ─ Blocks ─▶ Sums of each ─ jackknife ─▶ Quality ± error
//! ```

pub mod articles;
pub mod blocks;
pub mod divergence;
mod quality;
pub mod sample;
pub mod statistics;
pub mod text;

use std::time::Instant;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use resnet_bk_core as core;

use crate::error::{Error, Result};
use crate::reference::Model;
use blocks::Blocks;
use divergence::{argmax, kl, log_softmax};
use quality::Tally;
pub use quality::{Fidelity, Quality};
use statistics::Sums;

/// Windows that a thread scores at a time.
const WINDOWS_PER_JOB: usize = 8;
/// Positions that the integer path works on together.
const TILE: usize = 128;

/// A model that is compared with the reference.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A blob, through the integer path.
    Blob(core::Model<'a>),
    /// Other weights in the FP32 model.
    Weights(Model),
}

/// Scores `reference` and `subjects` on `tokens` in the windows of `blocks`, by which standard errors are
/// counted too. `lengths` are the bytes of each token; `progress` is told the share that is done.
/// Results come in the order reference (if any), subjects, and do not depend on the number of threads.
///
/// # Panics
/// If `blocks` are those of a text of another length.
pub fn evaluate(
    reference: Option<&Model>,
    subjects: &[Subject<'_>],
    tokens: &[u32],
    blocks: &Blocks,
    lengths: Option<&[usize]>,
    progress: impl Fn(f64) + Sync,
) -> Result<Vec<Quality>> {
    check_range(reference, subjects, tokens)?;
    let window = blocks.window;
    let predictions = tokens.len().saturating_sub(1);
    let starts: Vec<usize> = (0..predictions).step_by(window * WINDOWS_PER_JOB).collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let jobs: Vec<Vec<Tally>> = starts
        .par_iter()
        .map(|&start| {
            let end = predictions.min(start + window * WINDOWS_PER_JOB);
            let tallies = score(reference, subjects, &tokens[start..end + 1], window, lengths)?;
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
    let exact = reference.and(totals.first());
    let quality = |(i, tally): (usize, &Tally)| tally.quality(exact.filter(|_| i > 0), blocks);
    Ok(totals.iter().enumerate().map(quality).collect())
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

/// Scores consecutive windows; the last token is only predicted.
fn score(
    reference: Option<&Model>,
    subjects: &[Subject<'_>],
    tokens: &[u32],
    window: usize,
    lengths: Option<&[usize]>,
) -> Result<Vec<Tally>> {
    let inputs = &tokens[..tokens.len() - 1];
    let targets = &tokens[1..];
    let timed = |what: &str, probabilities: &dyn Fn() -> Result<LogProbabilities>| {
        let start = Instant::now();
        let probabilities = probabilities()?;
        let windows = probabilities.windows(targets, window, lengths);
        finite(what, windows.iter().all(|window| window.nats.is_finite()))?;
        let seconds = start.elapsed().as_secs_f64();
        Ok((probabilities, Tally { windows, seconds, ..Tally::default() }))
    };
    let mut tallies = Vec::new();
    let mut exact: Option<LogProbabilities> = None;
    if let Some(model) = reference {
        let (probabilities, tally) =
            timed("the FP32 model", &|| Ok(of_floats(model, inputs, window)))?;
        tallies.push(tally);
        exact = Some(probabilities);
    }
    for subject in subjects {
        let (probabilities, mut tally) = timed("the blob", &|| match subject {
            Subject::Blob(model) => of_blob(model, inputs, window),
            Subject::Weights(model) => Ok(of_floats(model, inputs, window)),
        })?;
        if let Some(exact) = &exact {
            for (i, (p, q)) in exact.rows().zip(probabilities.rows()).enumerate() {
                let (kl, sums) = (kl(p, q), &mut tally.windows[i / window]);
                sums.kl += kl;
                sums.agreements += usize::from(argmax(p) == argmax(q));
                tally.kl.push(kl as f32);
            }
            finite("the FP32 model or the blob", tally.kl.iter().all(|kl| kl.is_finite()))?;
        }
        tallies.push(tally);
    }
    Ok(tallies)
}

/// Refuses perplexities and distances that are infinite or not a number.
fn finite(what: &str, all: bool) -> Result<()> {
    let overflow = || Error::Overflow { what: what.into(), text: "the text that it is scored on" };
    if all { Ok(()) } else { Err(overflow()) }
}

fn of_floats(model: &Model, inputs: &[u32], window: usize) -> LogProbabilities {
    let mut probabilities = LogProbabilities::new(inputs.len(), model.config().vocab);
    let whole = inputs.len() / window * window;
    for part in [&inputs[..whole], &inputs[whole..]] {
        if !part.is_empty() {
            let logits = model.forward(part, window.min(part.len()));
            logits.chunks_exact(probabilities.vocab).for_each(|row| probabilities.push(row));
        }
    }
    probabilities
}

fn of_blob(model: &core::Model<'_>, inputs: &[u32], window: usize) -> Result<LogProbabilities> {
    let vocab = model.dims().vocab as usize;
    let mut probabilities = LogProbabilities::new(inputs.len(), vocab);
    let mut logits = vec![0.0; vocab];
    let mut scorer = core::Window::allocate(model, window, TILE).map_err(Error::Blob)?;
    for part in inputs.chunks(window) {
        let each = |_, row: &[f16]| probabilities.push_halves(row, &mut logits);
        scorer.score(part, each).map_err(Error::Blob)?;
    }
    Ok(probabilities)
}

/// Log-probabilities `[positions, V]`.
struct LogProbabilities {
    values: Vec<f32>,
    vocab: usize,
}

impl LogProbabilities {
    /// Room for `positions`.
    fn new(positions: usize, vocab: usize) -> Self {
        Self { values: Vec::with_capacity(positions * vocab), vocab }
    }

    /// Adds a position's logits.
    fn push(&mut self, logits: &[f32]) {
        log_softmax(logits, &mut self.values);
    }

    /// Adds a position's logits as the integer path has them; `floats` is room for as many.
    fn push_halves(&mut self, logits: &[f16], floats: &mut [f32]) {
        logits.convert_to_f32_slice(floats);
        match divergence::log_sum_exp(logits) {
            Some(normaliser) => self.values.extend(floats.iter().map(|l| l - normaliser)),
            None => self.push(floats),
        }
    }

    fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.values.chunks_exact(self.vocab)
    }

    /// What each window says of its targets.
    fn windows(&self, targets: &[u32], window: usize, lengths: Option<&[usize]>) -> Vec<Sums> {
        let rows: Vec<&[f32]> = self.rows().collect();
        rows.chunks(window)
            .zip(targets.chunks(window))
            .map(|(rows, targets)| {
                let nats = rows.iter().zip(targets).map(|(row, &t)| -f64::from(row[t as usize]));
                let bytes = lengths.map_or(0, |l| targets.iter().map(|&t| l[t as usize]).sum());
                let predictions = targets.len();
                Sums { predictions, bytes, nats: nats.sum(), ..Sums::default() }
            })
            .collect()
    }
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
        let blocks = Blocks::runs(3, 8);
        let scored =
            |tokens: &[u32]| evaluate(Some(&model), &[], tokens, &blocks, Some(&lengths), |_| {});
        let error = scored(&[1, 272, 2]).unwrap_err();
        assert!(matches!(error, Error::TokenOutOfRange { token: 272, vocab: 272 }), "{error}");
        assert!(scored(&[1, 271, 2]).is_ok());
    }
}
