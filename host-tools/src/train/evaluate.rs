//! Loss on a text.

use crate::reference::{Model, Tape, negative_log_likelihoods, windows_per_pass};
use crate::threads;

/// The loss on a text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Summed negative log-likelihood in nats.
    pub nats: f64,
    /// Number of predicted tokens.
    pub tokens: usize,
    /// Bytes of the predicted tokens, where they are known.
    pub bytes: Option<usize>,
}

impl Score {
    /// Bits per byte of text.
    pub fn bits_per_byte(&self) -> Option<f64> {
        self.bytes.map(|bytes| self.nats / std::f64::consts::LN_2 / bytes as f64)
    }

    /// Bits per token, which depend on the tokenizer.
    pub fn bits_per_token(&self) -> f64 {
        self.nats / std::f64::consts::LN_2 / self.tokens as f64
    }

    /// The loss in words: in bits per byte where bytes are known, otherwise per token.
    pub fn in_words(&self) -> String {
        match self.bits_per_byte() {
            Some(bits) => format!("{bits:.4} bits per byte"),
            None => format!("{:.4} bits per token", self.bits_per_token()),
        }
    }

    /// Perplexity per token, which depends on the tokenizer.
    pub fn perplexity(&self) -> f64 {
        (self.nats / self.tokens as f64).exp()
    }
}

/// Scores a text in consecutive windows, each with a fresh state: every token but the first is
/// predicted once, if need be by a shorter last window. `bytes` are those of each token;
/// `limit` is the maximum number of windows. The result does not depend on the number of threads.
pub fn evaluate(
    model: &Model,
    tokens: &[u32],
    bytes: Option<&[u32]>,
    window: usize,
    limit: Option<usize>,
) -> Score {
    let limit = limit.unwrap_or(usize::MAX).saturating_mul(window);
    let predictions = tokens.len().saturating_sub(1).min(limit);
    let whole = predictions / window * window;
    let step = window * windows_per_pass(model.config().vocab, window);
    // (start, length, window) of each forward pass.
    let mut jobs: Vec<(usize, usize, usize)> =
        (0..whole).step_by(step).map(|at| (at, step.min(whole - at), window)).collect();
    if whole < predictions {
        jobs.push((whole, predictions - whole, predictions - whole));
    }
    let mut nats = vec![0.0; jobs.len()];
    let mut tapes: Vec<Tape> = threads::states(jobs.len(), Tape::default);
    threads::for_each(&mut tapes, nats.iter_mut().zip(jobs), |tape, (sum, job)| {
        let (start, length, window) = job;
        let logits = model.forward_reusing(&tokens[start..start + length], window, tape);
        let targets = &tokens[start + 1..start + 1 + length];
        *sum = negative_log_likelihoods(logits, targets).iter().sum();
    });
    Score {
        nats: nats.iter().sum(),
        tokens: predictions,
        bytes: bytes.map(|bytes| bytes.iter().skip(1).take(predictions).map(|&b| b as usize).sum()),
    }
}
