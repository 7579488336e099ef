//! Models whose predictions are averaged.

use super::model::Model;
use super::real::add_to;
use super::{Tape, loss};

/// What distillation learns from.
pub trait Predicts: Sync {
    /// Logits `[rows, V]` of the successors of `tokens`, whole windows of `window` tokens, in
    /// `tape.logits`. They may differ from a model's by a constant of each row.
    fn predict<'t>(&self, tokens: &[u32], window: usize, tape: &'t mut Tape) -> &'t [f32];

    /// The same as probabilities, in the same memory.
    fn probabilities<'t>(
        &self,
        tokens: &[u32],
        window: usize,
        tape: &'t mut Tape,
    ) -> &'t mut [f32] {
        self.predict(tokens, window, tape);
        for row in tape.logits.chunks_exact_mut(self.vocab()) {
            let (_, sum) = loss::exponentials(row);
            loss::multiply(row, 1.0 / sum);
        }
        &mut tape.logits
    }

    /// Size of the vocabulary.
    fn vocab(&self) -> usize;
}

impl Predicts for Model {
    fn predict<'t>(&self, tokens: &[u32], window: usize, tape: &'t mut Tape) -> &'t [f32] {
        self.forward_reusing(tokens, window, tape)
    }

    fn vocab(&self) -> usize {
        self.config().vocab
    }
}

impl<P: Predicts + ?Sized> Predicts for &P {
    fn predict<'t>(&self, tokens: &[u32], window: usize, tape: &'t mut Tape) -> &'t [f32] {
        (**self).predict(tokens, window, tape)
    }

    fn vocab(&self) -> usize {
        (**self).vocab()
    }
}

/// Models of one vocabulary whose probabilities are averaged.
pub struct Ensemble<'a> {
    members: Vec<Box<dyn Predicts + 'a>>,
}

/// The smallest averaged probability: its logarithm stays finite.
const LEAST: f32 = 1e-30;

impl<'a> Ensemble<'a> {
    /// An ensemble; one of a single model predicts what that model does.
    ///
    /// # Panics
    /// If there is no model, or vocabularies differ in size.
    pub fn new(members: Vec<Box<dyn Predicts + 'a>>) -> Self {
        assert!(members.iter().all(|other| other.vocab() == members[0].vocab()), "vocabularies");
        assert!(!members.is_empty(), "no model");
        Self { members }
    }
}

impl Predicts for Ensemble<'_> {
    fn probabilities<'t>(
        &self,
        tokens: &[u32],
        window: usize,
        tape: &'t mut Tape,
    ) -> &'t mut [f32] {
        let mut sum = vec![0.0; tokens.len() * self.vocab()];
        for member in &self.members {
            add_to(&mut sum, member.probabilities(tokens, window, tape));
        }
        loss::multiply(&mut sum, 1.0 / self.members.len() as f32);
        tape.logits = sum;
        &mut tape.logits
    }

    fn predict<'t>(&self, tokens: &[u32], window: usize, tape: &'t mut Tape) -> &'t [f32] {
        if let [member] = &*self.members {
            return member.predict(tokens, window, tape);
        }
        let probabilities = self.probabilities(tokens, window, tape);
        probabilities.iter_mut().for_each(|p| *p = p.max(LEAST).ln());
        probabilities
    }

    fn vocab(&self) -> usize {
        self.members[0].vocab()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::{random_checkpoint, random_gated};

    #[test]
    fn probabilities_are_averaged() {
        let models = [random_checkpoint(3, 2), random_gated(4, (0, 1, 1))];
        let models = models.map(|checkpoint| Model::from_checkpoint(&checkpoint));
        let [first, other] = &models;
        let ensemble = Ensemble::new(vec![Box::new(first), Box::new(other)]);
        let (tokens, mut tape) = ([1, 5, 2, 7, 3, 0, 4, 6], Tape::default());
        let mut probabilities = |predicts: &dyn Predicts| -> Vec<f32> {
            let logits = predicts.predict(&tokens, 4, &mut tape);
            let rows = logits.chunks_exact(first.vocab()).flat_map(|row| {
                let total: f32 = row.iter().map(|x| x.exp()).sum();
                row.iter().map(move |x| x.exp() / total)
            });
            rows.collect()
        };
        let alone = [probabilities(first), probabilities(other)];
        let both = probabilities(&ensemble);
        for (p, (a, b)) in both.iter().zip(alone[0].iter().zip(&alone[1])) {
            assert!((p - 0.5 * (a + b)).abs() < 1e-5, "{p} {a} {b}");
        }
        let single = Ensemble::new(vec![Box::new(first)]);
        assert_eq!(probabilities(&single), alone[0]);
    }
}
