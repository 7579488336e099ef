//! Token by token generation with a half chain: one complex number of state per potential.

use resnet_bk_core as core;

use crate::checkpoint::Chain;
use crate::error::{Error, Result};
use crate::reference::bk;
use crate::reference::bounds::{FEATURE_BOUND, POTENTIAL_BOUND, clip_into};
use crate::reference::layer_norm;
use crate::reference::model::Model;
use crate::reference::moe;
use crate::reference::real::{add_scaled, add_to};

/// A model in the middle of a text. Its memory does not grow with the number of tokens.
pub struct Stream<'a> {
    model: &'a Model,
    /// G of the last position, for each block `[2K]`.
    state: Vec<Vec<f32>>,
    /// Tokens seen since the start.
    position: usize,
}

impl<'a> Stream<'a> {
    /// A stream before its first token. Only half chains stream: a full chain sees the future.
    pub fn new(model: &'a Model) -> Result<Self> {
        let config = model.config();
        if config.chain == Chain::Full {
            return Err(Error::Blob(core::Error::NotCausal));
        }
        let state = vec![vec![0.0; 2 * config.potentials]; config.layers];
        Ok(Self { model, state, position: 0 })
    }

    /// Forgets everything: the next token is the first.
    pub fn reset(&mut self) {
        self.position = 0;
    }

    /// Tokens seen since the start.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Takes the next token and returns the logits `[V]` of the one after it. Fails when the token
    /// is not in the vocabulary or the position table is used up.
    pub fn step(&mut self, token: u32) -> Result<Vec<f32>> {
        let h = self.advance(token)?;
        let (model, layout) = (self.model, &self.model.layout);
        let (mut u, mut norm) = (vec![0.0; h.len()], layer_norm::Tape::default());
        layout.norm.forward(&model.parameters, &h, &mut u, &mut norm);
        let mut logits = vec![0.0; model.config().vocab];
        layout.head.forward(&model.parameters, &u, &mut logits);
        Ok(logits)
    }

    /// As [`Stream::step`] for a token whose logits nobody needs: they are not computed.
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
        let (mut u, mut norm) = (vec![0.0; d], layer_norm::Tape::default());
        let (mut v, mut clipped, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
        let (mut features, mut projected) = (Vec::new(), vec![0.0; d]);
        for (block, g) in layout.blocks.iter().zip(&mut self.state) {
            block.norm.forward(parameters, &h, &mut u, &mut norm);
            v.resize(config.potentials, 0.0);
            block.v_proj.forward(parameters, &u, &mut v);
            clip_into(&v, POTENTIAL_BOUND, &mut clipped);
            let eta = model.eta(block);
            let core = model.core(block, &eta);
            bk::step(&core, &clipped, self.position == 0, g, &mut scratch);
            clip_into(g, FEATURE_BOUND, &mut features);
            block.output_proj.forward(parameters, &features, &mut projected);
            let mut tape = moe::Tape::default();
            moe::forward(block, parameters, config.top_k, &u, &mut h, &mut tape);
            add_scaled(&mut h, parameters[block.scale], &projected);
        }
        self.position += 1;
        Ok(h)
    }
}
