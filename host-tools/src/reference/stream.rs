//! Token-by-token inference with a half chain: one complex number of state per potential.

use resnet_bk_core as core;

use crate::checkpoint::Chain;
use crate::error::{Error, Result};
use crate::reference::bk;
use crate::reference::block::BlockBuffers;
use crate::reference::layer_norm;
use crate::reference::model::Model;
use crate::reference::real::add_to;

/// Inference state of a model within a text. Memory does not grow with the number of tokens.
pub struct Stream<'a> {
    model: &'a Model,
    /// G of the last position, for each block `[2K]`.
    state: Vec<Vec<f32>>,
    /// Tokens seen since the start.
    position: usize,
    buffers: BlockBuffers<f32>,
    /// `[2K]`.
    scratch: Vec<f32>,
}

impl<'a> Stream<'a> {
    /// A stream before its first token. Only half chains stream: a full chain sees future tokens.
    pub fn new(model: &'a Model) -> Result<Self> {
        let config = model.config();
        if config.chain == Chain::Full {
            return Err(Error::Blob(core::Error::NotCausal));
        }
        let state = vec![vec![0.0; 2 * config.potentials]; config.layers];
        let (buffers, scratch) = (BlockBuffers::default(), Vec::new());
        Ok(Self { model, state, position: 0, buffers, scratch })
    }

    /// Resets to the state before the first token.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Tokens seen since the start.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Takes the next token and returns the logits `[V]` of its successor. Fails if the token is
    /// not in the vocabulary or the position table is exhausted.
    pub fn step(&mut self, token: u32) -> Result<Vec<f32>> {
        let h = self.advance(token)?;
        let (model, layout) = (self.model, &self.model.layout);
        let (mut u, mut norm) = (vec![0.0; h.len()], layer_norm::Tape::default());
        layout.norm.forward(&model.parameters, &h, &mut u, &mut norm);
        let mut logits = vec![0.0; model.config().vocab];
        layout.head.forward(&model.parameters, &u, &mut logits);
        Ok(logits)
    }

    /// As [`Stream::step`] without computing logits, for prompts.
    pub fn feed(&mut self, token: u32) -> Result<()> {
        self.advance(token).map(|_| ())
    }

    /// Takes the next token and returns the residual `[d]` after the last block.
    fn advance(&mut self, token: u32) -> Result<Vec<f32>> {
        let (model, config) = (self.model, self.model.config());
        let (parameters, layout, d) = (&model.parameters, &model.layout, config.width);
        let row = token as usize * d;
        let Some(embedding) = parameters[layout.embedding.clone()].get(row..row + d) else {
            let vocab = config.vocab as u32;
            return Err(Error::Blob(core::Error::Token { token, vocab }));
        };
        let mut h = embedding.to_vec();
        if let Some(positions) = &layout.positions {
            let table = &parameters[positions.clone()];
            let Some(row) = table.chunks_exact(d).nth(self.position) else {
                let positions = (table.len() / d) as u32;
                return Err(Error::Blob(core::Error::EndOfPositions { positions }));
            };
            add_to(&mut h, row);
        }
        let (mut u, mut v) = (vec![0.0; d], Vec::new());
        for (block, g) in layout.blocks.iter().zip(&mut self.state) {
            model.enter_block(block, &h, &mut u, &mut v, None, &mut self.buffers);
            let eta = model.eta(block);
            let core = model.core(block, &eta);
            bk::step(&core, &v, self.position == 0, g, &mut self.scratch);
            model.leave_block(block, &u, g, &mut h, None, &mut self.buffers);
        }
        self.position += 1;
        Ok(h)
    }
}
