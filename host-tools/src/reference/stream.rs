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
use crate::reference::linear;
use crate::reference::model::Model;
use crate::reference::real::{add_to, size};

/// Inference state of a model within a text, or within several of equal length: matrices are read
/// once for all of them. Memory does not grow with the number of tokens.
pub struct Stream<'a> {
    model: &'a Model,
    /// Number of texts.
    texts: usize,
    /// One per block.
    states: Vec<State>,
    /// Tokens seen since the start.
    position: usize,
    tape: BlockTape<f32>,
}

/// What a block carries from token to token: that of its kind, the other stays empty.
#[derive(Clone, Default)]
struct State {
    /// G of the last position `[texts, 2K]`.
    resolvent: Vec<f32>,
    /// One per text.
    gated: Vec<gated::State<f32>>,
}

impl<'a> Stream<'a> {
    /// The most texts whose logits are the same bits as in streams of their own.
    pub const TEXTS: usize = linear::FEW_ROWS;

    /// A stream before its first token. Only half chains stream: a full chain sees future tokens.
    pub fn new(model: &'a Model) -> Result<Self> {
        Self::of_texts(model, 1)
    }

    /// A stream of several texts before their first tokens.
    pub fn of_texts(model: &'a Model, texts: usize) -> Result<Self> {
        let config = model.config();
        if config.chain == Chain::Full {
            return Err(Error::Blob(core::Error::NotCausal));
        }
        let states = vec![State::default(); config.layers];
        let mut stream = Self { model, texts, states, position: 0, tape: BlockTape::default() };
        stream.reset();
        Ok(stream)
    }

    /// Resets to the state before the first token.
    pub fn reset(&mut self) {
        self.position = 0;
        let config = self.model.config();
        for state in &mut self.states {
            match config.block {
                Block::Resolvent => {
                    state.resolvent.clear();
                    state.resolvent.resize(self.texts * 2 * config.potentials, 0.0);
                }
                Block::Gated { channels } => {
                    state.gated.resize_with(self.texts, gated::State::default);
                    let each = state.gated.iter_mut();
                    each.for_each(|state| state.reset(channels, config.potentials));
                }
            }
        }
    }

    /// Tokens of a text seen since the start.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Takes the next token of every text and returns the logits `[texts, V]` of their successors.
    /// Fails if there is not one token per text, a token is not in the vocabulary, or the position
    /// table is exhausted.
    pub fn step(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let h = self.advance(tokens)?;
        let (model, layout) = (self.model, &self.model.layout);
        let (mut u, mut norm) = (vec![0.0; h.len()], layer_norm::Tape::default());
        layout.norm.forward(&model.parameters, &h, &mut u, &mut norm);
        let mut logits = vec![0.0; self.texts * model.config().vocab];
        layout.head.forward(&model.parameters, &u, &mut logits);
        Ok(logits)
    }

    /// As [`Stream::step`] without computing logits, for prompts.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<()> {
        self.advance(tokens).map(|_| ())
    }

    /// Takes the next tokens and returns the residuals `[texts, d]` after the last block.
    fn advance(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        if tokens.len() != self.texts {
            let (tokens, texts) = (tokens.len(), self.texts);
            return Err(Error::Usage(format!("{tokens} tokens for {texts} texts: one for each")));
        }
        let model = self.model;
        let mut h = self.embed(tokens)?;
        let (mut u, mut v, mut next) = (vec![0.0; h.len()], Vec::new(), Vec::new());
        for (block, state) in model.layout.blocks.iter().zip(&mut self.states) {
            match block {
                BlockLayout::Resolvent(block) => {
                    let g = &mut state.resolvent;
                    let buffers = &mut self.tape.resolvent.buffers;
                    block.enter(model, &h, &mut u, &mut v, None, buffers);
                    let eta = model.eta(&block.chain);
                    let core = model.core(&block.chain, &eta);
                    size(&mut next, g.len());
                    let width = g.len() / self.texts;
                    let states = g.chunks_exact_mut(width).zip(next.chunks_exact_mut(width));
                    for (v, (g, next)) in v.chunks_exact(width / 2).zip(states) {
                        bk::forward_from(&core, v, g, next);
                    }
                    block.leave(model, &u, g, &mut h, None, buffers);
                }
                BlockLayout::Gated(block) => {
                    let positions = Positions::NextOfEach(&mut state.gated);
                    let tape = &mut self.tape.gated;
                    block.forward(model, positions, &mut h, None, None, tape);
                }
            }
        }
        self.position += 1;
        Ok(h)
    }

    /// Embeddings of the next tokens `[texts, d]`.
    fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let (parameters, layout) = (&self.model.parameters, &self.model.layout);
        let (config, d) = (self.model.config(), self.model.config().width);
        let mut h = Vec::with_capacity(tokens.len() * d);
        for &token in tokens {
            let row = token as usize * d;
            let Some(embedding) = parameters[layout.embedding.clone()].get(row..row + d) else {
                let vocab = config.vocab as u32;
                return Err(Error::Blob(core::Error::Token { token, vocab }));
            };
            h.extend_from_slice(embedding);
        }
        if let Some(positions) = &layout.positions {
            let table = &parameters[positions.clone()];
            let Some(row) = table.chunks_exact(d).nth(self.position) else {
                let positions = (table.len() / d) as u32;
                return Err(Error::Blob(core::Error::EndOfPositions { positions }));
            };
            h.chunks_exact_mut(d).for_each(|h| add_to(h, row));
        }
        Ok(h)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::tests::{config, gated, single};

    #[test]
    fn a_stream_equals_the_window() {
        let configs = [config(Chain::Half, 1, 2), config(Chain::Half, 4, 2)];
        for config in configs.into_iter().chain([gated(0, 1, 1), gated(5, 3, 2)]) {
            let positions = config.positions;
            let model = single(config);
            let tokens: Vec<u32> = (0..8).map(|i| i * 7 % 11).collect();
            let window = model.forward(&tokens, tokens.len());
            let mut stream = Stream::new(&model).unwrap();
            for _ in 0..2 {
                stream.reset();
                for (&token, expected) in tokens.iter().zip(window.chunks_exact(11)) {
                    for (a, b) in stream.step(&[token]).unwrap().iter().zip(expected) {
                        assert!((a - b).abs() < 1e-5, "{a} against {b}");
                    }
                }
            }
            assert!(stream.step(&[11]).is_err());
            // K = 1 has a position table of 8 here: the ninth token fails.
            assert_eq!(stream.step(&[0]).is_err(), positions == Some(8));
        }
        assert!(Stream::new(&single(config(Chain::Full, 1, 1))).is_err());
    }

    #[test]
    fn texts_of_a_stream_do_not_mix() {
        for config in [config(Chain::Half, 4, 2), gated(0, 1, 1), gated(5, 3, 2)] {
            let model = single(config);
            let token = |text: u32, at: u32| (at * 7 + text * 3) % 11;
            let mut together = Stream::of_texts(&model, 3).unwrap();
            let mut alone: Vec<_> = (0..3).map(|_| Stream::new(&model).unwrap()).collect();
            assert!(together.step(&[0, 1]).is_err(), "two tokens for three texts");
            for at in 0..6 {
                let tokens = [0, 1, 2].map(|text| token(text, at));
                let found = together.step(&tokens).unwrap();
                for ((stream, token), found) in alone.iter_mut().zip(tokens).zip(found.chunks(11)) {
                    assert_eq!(stream.step(&[token]).unwrap(), found, "to the bit");
                }
            }
        }
    }
}
