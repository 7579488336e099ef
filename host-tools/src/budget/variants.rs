//! A model's residual streams on a text, from which variants of it are computed.

use rayon::prelude::*;
use resnet_bk_core::blob::TensorId;

use crate::reference::{Model, Tape};

/// A model with its residual stream before every block and after the last one.
pub(super) struct Base {
    pub(super) model: Model,
    /// By batch and block, `[positions, d]`.
    streams: Vec<Vec<Vec<f32>>>,
}

impl Base {
    /// Runs a model over windows of `window` tokens, `batch` tokens at a time.
    pub(super) fn new(model: Model, tokens: &[u32], window: usize, batch: usize) -> Self {
        let run = |tape: &mut Tape, tokens: &[u32]| {
            let mut streams = vec![model.stream(tokens, window)];
            for l in 0..model.config().layers {
                let mut stream = streams[l].clone();
                model.advance(l, window, &mut stream, tape, None);
                streams.push(stream);
            }
            streams
        };
        let streams = tokens.par_chunks(batch).map_init(Tape::default, run).collect();
        Self { model, streams }
    }

    /// Logits `[positions, V]` of a batch.
    pub(super) fn logits<'t>(&self, batch: usize, window: usize, tape: &'t mut Tape) -> &'t [f32] {
        self.logits_of(&self.model, self.streams[batch].len() - 1, (batch, window), tape)
    }

    /// Logits `[positions, V]` of a batch, of a variant that differs in nothing before block `l`;
    /// the block after the last one is the output layer.
    pub(super) fn logits_of<'t>(
        &self,
        variant: &Model,
        l: usize,
        (batch, window): (usize, usize),
        tape: &'t mut Tape,
    ) -> &'t [f32] {
        variant.logits_from(l, window, &self.streams[batch][l], tape, None)
    }
}

/// The first block that a matrix changes, with the output layer as the one after the last; `None`
/// for an embedding, which changes the input of the first.
pub(super) fn first_changed(id: TensorId, layers: usize) -> Option<usize> {
    match id {
        TensorId::TokenEmbedding(_) | TensorId::PositionEmbedding => None,
        TensorId::LmHead(_) => Some(layers),
        TensorId::InProj(l)
        | TensorId::Convolution(l)
        | TensorId::VProj(l)
        | TensorId::OutputProj(l)
        | TensorId::Gate(l)
        | TensorId::ExpertUp(l, _)
        | TensorId::ExpertDown(l, _) => Some(l as usize),
    }
}
