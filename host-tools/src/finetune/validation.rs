//! The validation text, which selects the best step.

use resnet_bk_schema::outputs::DistillationScore;

use super::Student;
use crate::eval::teacher::Teacher;
use crate::reference::{Losses, Predicts, Tape};

/// A text to score students on, with the teacher's logits.
pub struct ValidationSet<'a> {
    /// One token longer than the teacher's: the last is only predicted.
    tokens: &'a [u32],
    teacher: Teacher<'a>,
}

impl<'a> ValidationSet<'a> {
    /// The complete windows of `tokens`, each with the token after it.
    pub fn new(teacher: &'a dyn Predicts, tokens: &'a [u32], window: usize) -> Self {
        let whole = tokens.len().saturating_sub(1) / window * window;
        let teacher = Teacher::new(teacher, &tokens[..whole], window);
        Self { tokens: &tokens[..whole + 1], teacher }
    }

    /// Number of predicted tokens.
    pub fn predictions(&self) -> usize {
        self.tokens.len() - 1
    }

    /// Scores the student's current model; the result does not depend on the number of threads.
    pub fn score(&self, student: &Student) -> DistillationScore {
        let (window, model) = (self.teacher.window(), student.model());
        let tape = || Tape::fake_quantized(student.fake_quant());
        let parts: Vec<Losses> = self.teacher.batches(tape, |tape, batch| {
            let targets = &self.tokens[batch.positions.start + 1..=batch.positions.end];
            model.losses(batch.inputs, (targets, batch.teacher), window, tape)
        });
        let count = self.predictions() as f64;
        let mean = |loss: fn(&Losses) -> f64| parts.iter().map(loss).sum::<f64>() / count;
        DistillationScore {
            kl: mean(|losses| losses.kl),
            perplexity: mean(|losses| losses.nats).exp(),
        }
    }
}
