//! A teacher's outputs on a short text, kept in memory and compared with many students.
//!
//! Budgets compare hundreds of mixes with the FP32 model on one text, and fine-tuning compares the
//! same student repeatedly; both use this. Long texts and blobs use
//! [`evaluate`](crate::eval::evaluate), which stores no logits.

use std::ops::Range;

use rayon::prelude::*;

use crate::reference::{Predicts, Tape, WINDOWS_PER_PASS};

/// Complete windows of a text, with the teacher's values for every position.
pub struct Teacher<'a> {
    tokens: &'a [u32],
    window: usize,
    vocab: usize,
    /// `[positions, V]` in batches of [`WINDOWS_PER_PASS`] windows.
    values: Vec<Vec<f32>>,
}

/// A batch of consecutive windows.
#[derive(Clone, Debug)]
pub struct Batch<'b> {
    /// Positions in the text.
    pub positions: Range<usize>,
    /// Tokens of those positions.
    pub inputs: &'b [u32],
    /// The teacher's values `[positions, V]`.
    pub teacher: &'b [f32],
}

impl<'a> Teacher<'a> {
    /// Runs the teacher over `tokens`, complete windows of `window` tokens, and stores
    /// `keep(logits)` for each batch's logits `[positions, V]`.
    pub fn new(
        model: &(impl Predicts + ?Sized),
        tokens: &'a [u32],
        window: usize,
        keep: impl Fn(&[f32]) -> Vec<f32> + Sync,
    ) -> Self {
        let batches = tokens.par_chunks(window * WINDOWS_PER_PASS);
        let values = batches
            .map_init(Tape::default, |tape, inputs| keep(model.predict(inputs, window, tape)));
        let values = values.collect();
        Self { tokens, window, vocab: model.vocab(), values }
    }

    /// The text.
    pub fn tokens(&self) -> &'a [u32] {
        self.tokens
    }

    /// Tokens of a window.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Size of the vocabulary.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Results of `compare` on every batch, in text order; `tape` creates buffers for the student's
    /// forward passes.
    pub fn batches<R: Send>(
        &self,
        tape: impl Fn() -> Tape + Sync + Send,
        compare: impl Fn(&mut Tape, Batch<'_>) -> R + Sync + Send,
    ) -> Vec<R> {
        let step = self.window * WINDOWS_PER_PASS;
        let inputs = self.tokens.par_chunks(step).zip(&self.values).enumerate();
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
        let teacher = Teacher::new(&model, &tokens, 12, <[f32]>::to_vec);
        let found = teacher.batches(Tape::default, |tape, batch| {
            assert_eq!(batch.inputs, &tokens[batch.positions.clone()]);
            assert_eq!(model.forward_reusing(batch.inputs, 12, tape), batch.teacher);
            batch.inputs.to_vec()
        });
        assert_eq!(found.len(), 3);
        assert_eq!(found.concat(), tokens);
    }
}
