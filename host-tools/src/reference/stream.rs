//! Token-by-token inference with a half chain: one complex number of state per potential, and the
//! memory of a gated chain.

use resnet_bk_core as core;

use crate::checkpoint::{Block, Chain};
use crate::error::{Error, Result};
use crate::reference::bk;
use crate::reference::forward::BlockTape;
use crate::reference::gated::{self, Positions};
use crate::reference::layer_norm;
use crate::reference::layout::BlockLayout;
use crate::reference::model::Model;
use crate::reference::real::add_to;

/// Inference state of a model within a text. Memory does not grow with the number of tokens.
pub struct Stream<'a> {
    model: &'a Model,
    /// One per block.
    states: Vec<State>,
    /// Tokens seen since the start.
    position: usize,
    tape: BlockTape<f32>,
    /// `[2K]`.
    scratch: Vec<f32>,
}

/// What a block carries from token to token: that of its kind, the other stays empty.
#[derive(Clone, Default)]
struct State {
    /// G of the last position `[2K]`.
    resolvent: Vec<f32>,
    gated: gated::State<f32>,
}

impl<'a> Stream<'a> {
    /// A stream before its first token. Only half chains stream: a full chain sees future tokens.
    pub fn new(model: &'a Model) -> Result<Self> {
        let config = model.config();
        if config.chain == Chain::Full {
            return Err(Error::Blob(core::Error::NotCausal));
        }
        let states = vec![State::default(); config.layers];
        let mut stream =
            Self { model, states, position: 0, tape: BlockTape::default(), scratch: Vec::new() };
        stream.reset();
        Ok(stream)
    }

    /// Resets to the state before the first token.
    pub fn reset(&mut self) {
        self.position = 0;
        let config = self.model.config();
        for state in &mut self.states {
            match config.block {
                // Not read at the first position.
                Block::Resolvent => state.resolvent.resize(2 * config.potentials, 0.0),
                Block::Gated { channels } => state.gated.reset(channels, config.potentials),
            }
        }
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
        for (block, state) in layout.blocks.iter().zip(&mut self.states) {
            match block {
                BlockLayout::Resolvent(block) => {
                    let g = &mut state.resolvent;
                    let buffers = &mut self.tape.resolvent.buffers;
                    block.enter(model, &h, &mut u, &mut v, None, buffers);
                    let eta = model.eta(&block.chain);
                    let core = model.core(&block.chain, &eta);
                    bk::step(&core, &v, self.position == 0, g, &mut self.scratch);
                    block.leave(model, &u, g, &mut h, None, buffers);
                }
                BlockLayout::Gated(block) => {
                    let positions = Positions::Next(&mut state.gated);
                    let tape = &mut self.tape.gated;
                    block.forward(model, positions, &mut h, None, None, tape);
                }
            }
        }
        self.position += 1;
        Ok(h)
    }
}
