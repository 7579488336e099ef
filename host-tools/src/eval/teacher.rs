//! A teacher's outputs on a short text, kept in memory and compared with a student repeatedly, as
//! fine-tuning does. Budgets compare variants of one model ([`crate::budget::Bench`]); long texts
//! and blobs use [`evaluate`](crate::eval::evaluate), which stores no logits.

use std::ops::Range;

use rayon::prelude::*;

use crate::reference::{Predicts, Tape, WINDOWS_PER_PASS};

/// Complete windows of a text, with the teacher's values for every position.
pub struct Teacher<'a> {
    tokens: &'a [u32],
    window: usize,
    /// Logits `[positions, V]` in batches of [`WINDOWS_PER_PASS`] windows.
    logits: Vec<Vec<f32>>,
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
    /// Runs the teacher over `tokens`, complete windows of `window` tokens.
    pub fn new(model: &(impl Predicts + ?Sized), tokens: &'a [u32], window: usize) -> Self {
        let batches = tokens.par_chunks(window * WINDOWS_PER_PASS);
        let predict = |tape: &mut Tape, inputs| model.predict(inputs, window, tape).to_vec();
        Self { tokens, window, logits: batches.map_init(Tape::default, predict).collect() }
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
        let step = self.window * WINDOWS_PER_PASS;
        let inputs = self.tokens.par_chunks(step).zip(&self.logits).enumerate();
        let results = inputs.map_init(tape, |tape, (index, (inputs, teacher))| {
            let positions = index * step..index * step + inputs.len();
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
