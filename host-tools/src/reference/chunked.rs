//! The forward pass over windows of any length, without a tape: only the chains need memory that
//! grows with the window, a few numbers per position; everything else is computed a chunk of
//! positions at a time.

use std::ops::Range;

use crate::reference::bk;
use crate::reference::block::BlockBuffers;
use crate::reference::model::Model;
use crate::reference::real::size;

/// Positions per chunk.
pub const CHUNK: usize = 1024;

/// Final hidden states of a batch of windows, from which logits are computed a chunk at a time.
#[derive(Debug)]
pub struct Hidden<'a> {
    model: &'a Model,
    /// Normalised, `[positions, d]`.
    states: Vec<f32>,
}

impl Hidden<'_> {
    /// Number of positions.
    pub fn positions(&self) -> usize {
        self.states.len() / self.model.config().width
    }

    /// Computes the logits of a range of positions, `[positions, V]`.
    ///
    /// # Panics
    /// If there are no such positions.
    pub fn logits(&self, positions: Range<usize>, logits: &mut Vec<f32>) {
        let (d, head) = (self.model.config().width, &self.model.layout.head);
        let states = &self.states[positions.start * d..positions.end * d];
        size(logits, positions.len() * head.outputs);
        head.forward(&self.model.parameters, states, logits);
    }
}

impl Model {
    /// Hidden states of consecutive windows of `window` tokens, the last of which may be shorter.
    /// Their logits equal those of [`Model::forward`] up to rounding, and bit for bit for batches
    /// of at most [`CHUNK`] positions.
    ///
    /// # Panics
    /// If a token is not below V, or a window is longer than the position table.
    pub fn hidden(&self, tokens: &[u32], window: usize) -> Hidden<'_> {
        let (d, k) = (self.config().width, self.config().potentials);
        let rows = tokens.len();
        let (mut h, mut states) = (vec![0.0; rows * d], vec![0.0; rows * d]);
        let (mut v, mut g) = (vec![0.0; rows * k], vec![0.0; rows * 2 * k]);
        self.embed(tokens, window, &mut h);
        let (mut buffers, mut chain) = (BlockBuffers::default(), bk::Tape::default());
        let mut clipped = Vec::new();
        for block in &self.layout.blocks {
            let parts = h.chunks(CHUNK * d).zip(states.chunks_mut(CHUNK * d));
            for ((h, u), v) in parts.zip(v.chunks_mut(CHUNK * k)) {
                self.enter_block(block, h, u, &mut clipped, None, &mut buffers);
                v.copy_from_slice(&clipped);
            }
            let eta = self.eta(block);
            let core = self.core(block, &eta);
            for (v, g) in v.chunks(window * k).zip(g.chunks_mut(window * 2 * k)) {
                bk::forward(&core, v, g, &mut chain);
            }
            let parts = h.chunks_mut(CHUNK * d).zip(states.chunks(CHUNK * d));
            for ((h, u), g) in parts.zip(g.chunks(CHUNK * 2 * k)) {
                self.leave_block(block, u, g, h, None, &mut buffers);
            }
        }
        for (h, u) in h.chunks(CHUNK * d).zip(states.chunks_mut(CHUNK * d)) {
            self.layout.norm.forward(&self.parameters, h, u, &mut buffers.norm);
        }
        Hidden { model: self, states }
    }
}
