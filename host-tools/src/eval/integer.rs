//! Blobs on the integer path.

use half::f16;
use half::slice::HalfFloatSliceExt;
use resnet_bk_core as core;

use crate::error::{Error, Result};
use crate::reference::{Predicts, Tape};

/// Positions per tile.
const TILE: usize = 128;

/// Calls `each` with every position of consecutive windows and its logits `[V]`.
pub(super) fn for_each_position(
    model: &core::Model<'_>,
    tokens: &[u32],
    window: usize,
    mut each: impl FnMut(usize, &[f16]),
) -> Result<()> {
    let longest = window.min(tokens.len());
    let mut scorer = core::Window::allocate(model.clone(), longest, TILE).map_err(Error::Blob)?;
    for (index, part) in tokens.chunks(window).enumerate() {
        let score = |offset: usize, logits: &[f16]| each(index * window + offset, logits);
        scorer.score(part, score).map_err(Error::Blob)?;
    }
    Ok(())
}

/// Tokens must be in the vocabulary, and windows no longer than the table of positions.
impl Predicts for core::Model<'_> {
    fn predict<'t>(&self, tokens: &[u32], window: usize, tape: &'t mut Tape) -> &'t [f32] {
        let vocab = Predicts::vocab(self);
        tape.logits.resize(tokens.len() * vocab, 0.0);
        let keep = |position: usize, logits: &[f16]| {
            logits.convert_to_f32_slice(&mut tape.logits[position * vocab..][..vocab]);
        };
        for_each_position(self, tokens, window, keep).expect("tokens and windows of the model");
        &tape.logits
    }

    fn vocab(&self) -> usize {
        self.dims().vocab as usize
    }
}

#[cfg(test)]
mod tests {
    use resnet_bk_core::blob::Precision;
    use resnet_bk_schema::Storage;

    use super::*;
    use crate::quantize::calibration::Calibration;
    use crate::quantize::tests::random_gated;
    use crate::quantize::{Origin, Source};
    use crate::reference::Model;
    use crate::tensors::Assignment;

    /// A blob predicts nearly what its checkpoint does, in windows that begin afresh.
    #[test]
    fn predictions_are_those_of_the_checkpoint() {
        let checkpoint = random_gated(2, (0, 1, 1));
        let source = Source::new(&checkpoint, [7; 32], 0, None).unwrap();
        let storage = Storage { precision: Precision::Fp16, group: 0 };
        let assignment = Assignment {
            name: "one".into(),
            storage: vec![storage; source.dims.tensor_count()],
            potentials_int8: false,
        };
        let encoded = source.encode_all(&assignment, &Calibration::default(), |_| {}).unwrap();
        let origin = Origin { calibration: "none", calibration_tokens: 0, seed: 0, measured: None };
        let blob = source.assemble(&encoded, &assignment, &origin).unwrap();
        let blob = core::Model::from_bytes(&blob).unwrap();

        let tokens: Vec<u32> = (0..50).map(|i| i * 7 % 40).collect();
        let (mut ours, mut exact) = (Tape::default(), Tape::default());
        let ours = blob.probabilities(&tokens, 10, &mut ours);
        let exact =
            Model::from_checkpoint(&checkpoint).probabilities(&tokens, 10, &mut exact).to_vec();
        assert_eq!(ours.len(), exact.len());
        let distances = ours.iter().zip(&exact).map(|(p, q)| (p - q).abs());
        let farthest = distances.fold(0.0f32, f32::max);
        assert!(farthest < 0.01, "{farthest}");
    }
}
