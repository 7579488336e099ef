//! A teacher's outputs on a short text, compared with a student repeatedly, as fine-tuning does.
//! Budgets compare variants of one model ([`crate::budget::Bench`]); blobs use
//! [`evaluate`](crate::eval::evaluate).

use std::ops::Range;

use rayon::prelude::*;

use crate::memory;
use crate::reference::{Predicts, Tape, windows_per_pass};

/// Complete windows of a text, with the teacher's values for every position.
pub struct Teacher<'a> {
    model: &'a dyn Predicts,
    tokens: &'a [u32],
    window: usize,
    /// Windows of a batch.
    windows: usize,
    /// Logits `[positions, V]` by batch; `None` if they are too many to keep, and computed again
    /// for every student.
    logits: Option<Vec<Vec<f32>>>,
}

/// A batch of consecutive windows.
#[derive(Clone, Debug)]
pub struct Batch<'b> {
    /// Positions in the text.
    pub positions: Range<usize>,
    /// Tokens of those positions.
    pub inputs: &'b [u32],
    /// The teacher's logits `[positions, V]`.
    pub teacher: &'b [f32],
}

impl<'a> Teacher<'a> {
    /// The teacher of `tokens`, complete windows of `window` tokens.
    pub fn new(model: &'a dyn Predicts, tokens: &'a [u32], window: usize) -> Self {
        let windows = windows_per_pass(model.vocab(), window);
        let keeps = tokens.len() * model.vocab() <= memory::kept_logits();
        let logits = keeps.then(|| {
            let batches = tokens.par_chunks(window * windows);
            let predict = |tape: &mut Tape, inputs| model.predict(inputs, window, tape).to_vec();
            batches.map_init(Tape::default, predict).collect()
        });
        Self { model, tokens, window, windows, logits }
    }

    /// Tokens of a window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Results of `compare` on every batch, in text order; `tape` creates buffers for the student's
    /// forward passes.
    pub fn batches<R: Send>(
        &self,
        tape: impl Fn() -> Tape + Sync + Send,
        compare: impl Fn(&mut Tape, Batch<'_>) -> R + Sync + Send,
    ) -> Vec<R> {
        let step = self.window * self.windows;
        let batches = self.tokens.par_chunks(step).enumerate();
        let tapes = || (tape(), Tape::default());
        let results = batches.map_init(tapes, |(tape, own), (index, inputs)| {
            let positions = index * step..index * step + inputs.len();
            let teacher = match &self.logits {
                Some(kept) => &kept[index],
                None => self.model.predict(inputs, self.window, own),
            };
            compare(tape, Batch { positions, inputs, teacher })
        });
        results.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::random_checkpoint;
    use crate::reference::Model;

    #[test]
    fn batches_are_the_text_in_its_order() {
        let model = Model::from_checkpoint(&random_checkpoint(1, 2));
        let tokens: Vec<u32> = (0..12 * 19).map(|i| i * 7 % 40).collect();
        let teacher = Teacher::new(&model, &tokens, 12);
        let found = teacher.batches(Tape::default, |tape, batch| {
            assert_eq!(batch.inputs, &tokens[batch.positions.clone()]);
            assert_eq!(model.forward_reusing(batch.inputs, 12, tape), batch.teacher);
            batch.inputs.to_vec()
        });
        assert_eq!(found.len(), 3);
        assert_eq!(found.concat(), tokens);
    }
}
