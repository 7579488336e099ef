//! The forward pass over windows of any length, without a tape: only the chains need memory that
//! grows with the window, a few numbers per position; everything else is computed a chunk of
//! positions at a time.

use std::ops::Range;

use crate::reference::bk;
use crate::reference::forward::BlockTape;
use crate::reference::gated::{self, Positions};
use crate::reference::layer_norm;
use crate::reference::layout::{BlockLayout, Gated, Resolvent};
use crate::reference::model::Model;
use crate::reference::real::size;
use crate::reference::resolvent;

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
        let d = self.config().width;
        let (mut h, mut states) = (vec![0.0; tokens.len() * d], vec![0.0; tokens.len() * d]);
        self.embed(tokens, window, &mut h);
        let mut tape = BlockTape::default();
        for block in &self.layout.blocks {
            match block {
                BlockLayout::Resolvent(block) => {
                    self.resolvent_in_chunks(block, window, &mut h, &mut states);
                }
                BlockLayout::Gated(block) => {
                    self.gated_in_chunks(block, window, &mut h, &mut tape.gated);
                }
            }
        }
        let mut norm = layer_norm::Tape::default();
        for (h, u) in h.chunks(CHUNK * d).zip(states.chunks_mut(CHUNK * d)) {
            self.layout.norm.forward(&self.parameters, h, u, &mut norm);
        }
        Hidden { model: self, states }
    }

    /// `normalised` is a buffer `[positions, d]`.
    fn resolvent_in_chunks(
        &self,
        block: &Resolvent,
        window: usize,
        h: &mut [f32],
        normalised: &mut [f32],
    ) {
        let (d, k) = (self.config().width, self.config().potentials);
        let rows = h.len() / d;
        let (mut v, mut g) = (vec![0.0; rows * k], vec![0.0; rows * 2 * k]);
        let (mut buffers, mut chain) = (resolvent::Buffers::default(), bk::Tape::default());
        let mut clipped = Vec::new();
        let parts = h.chunks(CHUNK * d).zip(normalised.chunks_mut(CHUNK * d));
        for ((h, u), v) in parts.zip(v.chunks_mut(CHUNK * k)) {
            block.enter(self, h, u, &mut clipped, None, &mut buffers);
            v.copy_from_slice(&clipped);
        }
        let eta = self.eta(&block.chain);
        let core = self.core(&block.chain, &eta);
        for (v, g) in v.chunks(window * k).zip(g.chunks_mut(window * 2 * k)) {
            bk::forward(&core, v, g, &mut chain);
        }
        let parts = h.chunks_mut(CHUNK * d).zip(normalised.chunks(CHUNK * d));
        for ((h, u), g) in parts.zip(g.chunks(CHUNK * 2 * k)) {
            block.leave(self, u, g, h, None, &mut buffers);
        }
    }

    /// Several short windows at a time, or a long one in chunks, the state carried on.
    fn gated_in_chunks(
        &self,
        block: &Gated,
        window: usize,
        h: &mut [f32],
        tape: &mut gated::Tape<f32>,
    ) {
        let d = self.config().width;
        let whole = h.len() / (window * d) * window * d;
        let (windows, rest) = h.split_at_mut(whole);
        if window <= CHUNK {
            for h in windows.chunks_mut(CHUNK / window * window * d) {
                block.forward(self, Positions::Windows(window), h, None, None, tape);
            }
        }
        let long = if window <= CHUNK { &mut [] } else { windows };
        let mut state = gated::State::default();
        for window in long.chunks_mut(window * d).chain((!rest.is_empty()).then_some(rest)) {
            state.reset(block.channels(), self.config().potentials);
            for h in window.chunks_mut(CHUNK * d) {
                block.forward(self, Positions::Next(&mut state), h, None, None, tape);
            }
        }
    }
}
