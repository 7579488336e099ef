//! Scores consecutive windows by position: memory holds the logits of one chunk of positions,
//! however long the window.

use std::ops::Range;
use std::time::{Duration, Instant};

use half::f16;
use half::slice::HalfFloatSliceExt;
use resnet_bk_core as core;

use super::Subject;
use super::divergence::{argmax, kl, log_softmax, log_sum_exp};
use super::integer::for_each_position;
use super::quality::Tally;
use super::sums::Sums;
use crate::error::{Error, Result};
use crate::reference::{CHUNK, Hidden, Model};

/// Scores consecutive windows; the last token is only predicted.
pub(super) fn score(
    reference: Option<&Model>,
    subjects: &[Subject<'_>],
    tokens: &[u32],
    window: usize,
    bytes: Option<&[u32]>,
) -> Result<Vec<Tally>> {
    let (inputs, targets) = (&tokens[..tokens.len() - 1], &tokens[1..]);
    let bytes = bytes.map(|bytes| &bytes[1..]);
    let text = Text { inputs, targets, window, bytes };
    let mut tallies = Vec::new();
    let mut exact = None;
    if let Some(model) = reference {
        let started = Instant::now();
        let hidden = exact.insert(Exact::new(model, &text));
        let mut tally = Tally::default();
        for position in 0..text.inputs.len() {
            let probabilities = hidden.log_probabilities(position);
            text.add(&mut tally, position, probabilities);
        }
        finite("the FP32 model", tally.windows.iter().all(|window| window.nats.is_finite()))?;
        tally.seconds = started.elapsed().as_secs_f64();
        tallies.push(tally);
    }
    for subject in subjects {
        let (started, mut comparing) = (Instant::now(), Duration::ZERO);
        let mut tally = Tally::default();
        let each = |position: usize, q: &[f32]| {
            text.add(&mut tally, position, q);
            if let Some(exact) = &mut exact {
                let started = Instant::now();
                let p = exact.log_probabilities(position);
                let kl = kl(p, q);
                tally.kl.push(kl as f32);
                if let Some(sums) = tally.windows.last_mut() {
                    sums.kl += kl;
                    sums.agreements += usize::from(argmax(p) == argmax(q));
                }
                comparing += started.elapsed();
            }
        };
        match subject {
            Subject::Blob(model) => of_blob(model, &text, each)?,
            Subject::Weights(model) => of_floats(model, &text, each),
        }
        finite("the blob", tally.windows.iter().all(|window| window.nats.is_finite()))?;
        finite(
            "the FP32 model or the blob",
            tally.windows.iter().all(|window| window.kl.is_finite()),
        )?;
        tally.seconds = started.elapsed().saturating_sub(comparing).as_secs_f64();
        tallies.push(tally);
    }
    Ok(tallies)
}

/// Fails for non-finite perplexities or divergences.
fn finite(what: &str, all: bool) -> Result<()> {
    let overflow = || Error::Overflow { what: what.into(), text: "the text that it is scored on" };
    if all { Ok(()) } else { Err(overflow()) }
}

/// Consecutive windows and the targets of their tokens.
struct Text<'a> {
    inputs: &'a [u32],
    targets: &'a [u32],
    window: usize,
    /// Bytes of text of each target, where they are known.
    bytes: Option<&'a [u32]>,
}

impl Text<'_> {
    /// Adds the prediction of the token after a position.
    fn add(&self, tally: &mut Tally, position: usize, log_probabilities: &[f32]) {
        if position.is_multiple_of(self.window) {
            tally.windows.push(Sums::default());
        }
        let target = self.targets[position] as usize;
        if let Some(sums) = tally.windows.last_mut() {
            sums.nats -= f64::from(log_probabilities[target]);
            sums.predictions += 1;
            sums.bytes += self.bytes.map_or(0, |bytes| bytes[position] as usize);
        }
    }
}

/// Log-probabilities of the reference, computed a chunk at a time.
struct Exact<'a> {
    hidden: Hidden<'a>,
    vocab: usize,
    /// Positions held in `values`.
    positions: Range<usize>,
    /// `[positions, V]`.
    values: Vec<f32>,
    logits: Vec<f32>,
}

impl<'a> Exact<'a> {
    fn new(model: &'a Model, text: &Text<'_>) -> Self {
        Self {
            hidden: model.hidden(text.inputs, text.window),
            vocab: model.config().vocab,
            positions: 0..0,
            values: Vec::new(),
            logits: Vec::new(),
        }
    }

    /// Log-probabilities of one position. Ascending access computes the output layer once per
    /// position.
    fn log_probabilities(&mut self, position: usize) -> &[f32] {
        if !self.positions.contains(&position) {
            let start = position - position % CHUNK;
            self.positions = start..self.hidden.positions().min(start + CHUNK);
            self.hidden.logits(self.positions.clone(), &mut self.logits);
            self.values.clear();
            for logits in self.logits.chunks_exact(self.vocab) {
                log_softmax(logits, &mut self.values);
            }
        }
        &self.values[(position - self.positions.start) * self.vocab..][..self.vocab]
    }
}

fn of_floats(model: &Model, text: &Text<'_>, mut each: impl FnMut(usize, &[f32])) {
    let mut model = Exact::new(model, text);
    for position in 0..text.inputs.len() {
        each(position, model.log_probabilities(position));
    }
}

fn of_blob(
    model: &core::Model<'_>,
    text: &Text<'_>,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<()> {
    let vocab = model.dims().vocab as usize;
    let (mut floats, mut probabilities) = (vec![0.0; vocab], Vec::with_capacity(vocab));
    for_each_position(model, text.inputs, text.window, |position, logits| {
        log_softmax_of_halves(logits, &mut floats, &mut probabilities);
        each(position, &probabilities);
    })
}

/// Log-probabilities from the integer path's FP16 logits; `floats` is scratch of the same length.
fn log_softmax_of_halves(logits: &[f16], floats: &mut [f32], probabilities: &mut Vec<f32>) {
    logits.convert_to_f32_slice(floats);
    probabilities.clear();
    match log_sum_exp(logits) {
        Some(normaliser) => probabilities.extend(floats.iter().map(|l| l - normaliser)),
        None => log_softmax(floats, probabilities),
    }
}
