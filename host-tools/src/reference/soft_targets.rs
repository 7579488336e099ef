//! Soft targets: a teacher's next-token distributions over a whole text, computed once.
//!
//! Training on them and on the text (Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a
//! neural network") overfits less than training on the text alone: a distribution says more about a
//! position than its one token.

use half::f16;
use rayon::prelude::*;

use super::ensemble::Predicts;
use super::real::Real;
use super::{Tape, loss};
use crate::threads::Progress;

/// Tokens kept of each distribution: the most probable ones. The others are one class, of the
/// remaining probability.
const KEPT: usize = 64;
/// Tokens of a teacher's window: its context is longer than in training, so it predicts better.
const CONTEXT: usize = 1024;

/// The most probable next tokens at every position of a text, and their probabilities.
pub struct SoftTargets {
    kept: usize,
    /// `[positions, kept]`.
    tokens: Vec<u16>,
    /// `[positions, kept]`.
    probabilities: Vec<f16>,
}

impl SoftTargets {
    /// Lets `teacher` predict every token of a text, in windows of at most `longest` tokens; `done`
    /// receives the finished fraction. Does not depend on the number of threads.
    pub fn new(
        teacher: &impl Predicts,
        text: &[u32],
        longest: usize,
        done: impl Fn(f64) + Sync,
    ) -> Self {
        let (vocab, window) = (teacher.vocab(), CONTEXT.min(longest));
        let kept = KEPT.min(vocab);
        let mut tokens = vec![0; text.len() * kept];
        let mut probabilities = vec![f16::ZERO; text.len() * kept];
        let progress = Progress::new(text.len(), done);
        let outputs = tokens.par_chunks_mut(window * kept);
        let outputs = outputs.zip(probabilities.par_chunks_mut(window * kept));
        let windows = text.par_chunks(window).zip(outputs);
        windows.for_each_init(Tape::default, |tape, (inputs, (tokens, probabilities))| {
            let all = teacher.probabilities(inputs, inputs.len(), tape).chunks_exact(vocab);
            let rows = tokens.chunks_exact_mut(kept).zip(probabilities.chunks_exact_mut(kept));
            for (all, (tokens, probabilities)) in all.zip(rows) {
                most_probable(all, tokens, probabilities);
            }
            progress.add(inputs.len());
        });
        Self { kept, tokens, probabilities }
    }

    /// Tokens and probabilities of the successor of the token at a position.
    fn row(&self, position: usize) -> (&[u16], &[f16]) {
        let range = position * self.kept..(position + 1) * self.kept;
        (&self.tokens[range.clone()], &self.probabilities[range])
    }
}

/// The most probable tokens of a distribution `[V]`, in order of their probabilities; ties in that
/// of tokens.
fn most_probable(all: &[f32], tokens: &mut [u16], probabilities: &mut [f16]) {
    let mut order: Vec<u16> = (0..=u16::MAX).take(all.len()).collect();
    let probability = |token: &u16| all[usize::from(*token)];
    let compare = |a: &u16, b: &u16| probability(b).total_cmp(&probability(a)).then(a.cmp(b));
    let kept = tokens.len();
    if kept < order.len() {
        order.select_nth_unstable_by(kept, compare);
    }
    order[..kept].sort_unstable_by(compare);
    tokens.copy_from_slice(&order[..kept]);
    for (p, token) in probabilities.iter_mut().zip(&*tokens) {
        *p = f16::from_f32(probability(token));
    }
}

/// Soft targets of the windows of a batch.
#[derive(Clone, Copy)]
pub struct SoftWindows<'a> {
    /// Soft targets of the whole text.
    pub text: &'a SoftTargets,
    /// Position of each window's first token in the text.
    pub starts: &'a [usize],
    /// Weight of the cross-entropy on the text's own tokens, 0 to 1; the rest is that of the soft
    /// targets.
    pub cross_entropy: f32,
}

impl SoftWindows<'_> {
    /// Turns logits `[rows, V]` into gradients of `scale` × the summed loss, in place, and returns
    /// the summed negative log-likelihood of the text in nats. `targets` are the text's own tokens.
    ///
    /// The loss of the soft targets is the KL divergence over the kept tokens and the class of all
    /// others.
    pub(super) fn gradient_in_place<T: Real>(
        self,
        logits: &mut [T],
        targets: &[u32],
        scale: T,
    ) -> f64 {
        let vocab = logits.len() / targets.len();
        let window = targets.len() / self.starts.len();
        let share = T::of(f64::from(self.cross_entropy));
        let (hard, soft) = (scale * share, scale * (T::ONE - share));
        let positions = self.starts.iter().flat_map(|&start| start..start + window);
        let rows = logits.chunks_exact_mut(vocab).zip(targets);
        let (mut nats, mut of_kept) = (0.0, vec![T::ZERO; self.text.kept]);
        for ((row, &target), position) in rows.zip(positions) {
            let (tokens, probabilities) = self.text.row(position);
            let at_target = row[target as usize];
            let (largest, normaliser) = loss::exponentials(row);
            nats += normaliser.to_f64().ln() - (at_target - largest).to_f64();
            let at = |token: &u16| usize::from(*token);
            let own = tokens.iter().map(|token| row[at(token)]).sum::<T>();
            let kept = probabilities.iter().map(|p| p.to_f64()).sum::<f64>();
            // Numerators of the others' class; rounding may leave less than nothing.
            let (others, rest) = (normaliser - own, T::of((1.0 - kept).max(0.0)));
            let factor = scale / normaliser;
            let of_others = match others > T::ZERO {
                true => factor - soft * rest / others,
                false => factor,
            };
            // d loss / d logit is q − p of a kept token, and q (1 − rest / Q) of another one, where
            // q is the student's probability and Q that of all others.
            for (q, token) in of_kept.iter_mut().zip(tokens) {
                *q = row[at(token)] * factor;
            }
            loss::multiply(row, of_others);
            for ((token, &q), p) in tokens.iter().zip(&of_kept).zip(probabilities) {
                row[at(token)] = q - soft * T::of(p.to_f64());
            }
            row[target as usize] -= hard;
        }
        nats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::{random_checkpoint, random_gated};
    use crate::reference::Model;

    #[test]
    fn the_most_probable_tokens_are_kept() {
        let all: Vec<f32> = (0..100).map(|i| (i * 37 % 100) as f32 / 4950.0).collect();
        let (mut tokens, mut probabilities) = ([0; 5], [f16::ZERO; 5]);
        most_probable(&all, &mut tokens, &mut probabilities);
        for (rank, (&token, p)) in tokens.iter().zip(probabilities).enumerate() {
            assert_eq!(u32::from(token) * 37 % 100, 99 - rank as u32);
            assert!((p.to_f32() / all[usize::from(token)] - 1.0).abs() < 1e-3);
        }
    }

    #[test]
    fn they_are_the_teachers_predictions() {
        let model = Model::from_checkpoint(&random_gated(4, (0, 1, 1)));
        let text: Vec<u32> = (0..37).map(|i| i * i % 13).collect();
        let targets = SoftTargets::new(&model, &text, 10, |_| {});
        for position in [0, 9, 10, 36] {
            let window = position / 10 * 10;
            let inputs = &text[window..=position];
            let logits = model.forward(inputs, inputs.len());
            let logits = &logits[logits.len() - model.config().vocab..];
            let total: f32 = logits.iter().map(|x| x.exp()).sum();
            let (tokens, probabilities) = targets.row(position);
            assert_eq!(tokens.len(), model.config().vocab.min(KEPT));
            for (&token, p) in tokens.iter().zip(probabilities) {
                let exact = logits[usize::from(token)].exp() / total;
                assert!((p.to_f32() - exact).abs() < 1e-3 * exact + 1e-6, "{p} {exact}");
            }
        }
        let alone = crate::threads::with(1, || SoftTargets::new(&model, &text, 10, |_| {}));
        assert_eq!((alone.tokens, alone.probabilities), (targets.tokens, targets.probabilities));
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let vocab = 11;
        let wave = |n: usize, f: f64| (0..n).map(move |i| (i as f64 * f).sin() * 2.0);
        let logits: Vec<f64> = wave(4 * vocab, 1.3).collect();
        let (tokens, probabilities): (Vec<u16>, Vec<f16>) = (0..9)
            .flat_map(|row| [(row % 11, 0.5), ((row + 4) % 11, 0.25), ((row + 7) % 11, 0.125)])
            .map(|(token, p)| (token, f16::from_f32(p)))
            .unzip();
        let text = SoftTargets { kept: 3, tokens, probabilities };
        let targets = [3, 0, 10, 6];
        for cross_entropy in [0.0, 0.25, 1.0] {
            let windows = SoftWindows { text: &text, starts: &[5, 2], cross_entropy };
            let loss = |logits: &[f64]| {
                let rows = logits.chunks_exact(vocab).zip(targets).zip([5, 6, 2, 3]);
                let loss = rows.map(|((row, target), position)| {
                    let total: f64 = row.iter().map(|x| x.exp()).sum();
                    let q = |token: usize| row[token].exp() / total;
                    let (tokens, probabilities) = text.row(position);
                    let (mut others, mut divergence) = (1.0, 0.0);
                    for (&token, p) in tokens.iter().zip(probabilities) {
                        let (p, q) = (p.to_f64(), q(usize::from(token)));
                        divergence += p * (p / q).ln();
                        others -= q;
                    }
                    divergence += 0.125 * (0.125 / others).ln();
                    let c = f64::from(cross_entropy);
                    (1.0 - c) * divergence - c * q(target as usize).ln()
                });
                loss.sum::<f64>()
            };
            let mut gradient = logits.clone();
            let nats = windows.gradient_in_place(&mut gradient, &targets, 0.5);
            let exact: f64 = loss::negative_log_likelihoods(&logits, &targets).iter().sum();
            assert!((nats - exact).abs() < 1e-9);
            loss::tests::check_gradient(&logits, &gradient, |logits| 0.5 * loss(logits));
        }
    }

    #[test]
    fn a_vocabulary_smaller_than_what_is_kept_has_no_others() {
        let model = Model::from_checkpoint(&random_checkpoint(3, 2));
        let text: Vec<u32> = (0..20).map(|i| i % 7).collect();
        let targets = SoftTargets::new(&model, &text, 20, |_| {});
        let windows = SoftWindows { text: &targets, starts: &[2], cross_entropy: 0.0 };
        // The teacher is its own student: no gradient.
        let mut logits = model.forward(&text, 20)[2 * model.config().vocab..].to_vec();
        logits.truncate(10 * model.config().vocab);
        windows.gradient_in_place(&mut logits, &text[3..13], 1.0);
        assert!(logits.iter().all(|x| x.abs() < 2e-3), "{logits:?}");
    }
}
