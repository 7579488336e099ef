//! The forward pass over a batch of windows.
//!
//! A batch of B windows of length T is one array of B·T positions, window after window; every
//! activation is row-major with one row per position.

use crate::reference::dropout::Dropout;
use crate::reference::fake_quant::{FakeQuant, round_rows};
use crate::reference::gated::{self, Positions};
use crate::reference::layer_norm;
use crate::reference::layout::BlockLayout;
use crate::reference::linear::Linear;
use crate::reference::model::Model;
use crate::reference::moe::{self, Experts};
use crate::reference::observer::{ChainCall, LinearCall, Observer, Routed};
use crate::reference::real::{Real, add_to, size};
use crate::reference::resolvent;

/// Every activation of a forward pass, as the backward pass needs them; buffers are reused across
/// batches.
#[derive(Default)]
pub struct Tape<T: Real = f32> {
    /// Fraction of hidden activations to drop, and the seed.
    dropout: Option<(f32, u64)>,
    /// How to round activations, if at all.
    fake_quant: Option<FakeQuant>,
    pub(crate) blocks: Vec<BlockTape<T>>,
    /// Residual stream `[rows, d]`.
    pub(crate) h: Vec<T>,
    pub(crate) final_norm: layer_norm::Tape<T>,
    /// Normalised residual stream `[rows, d]`.
    pub(crate) final_u: Vec<T>,
    /// `[rows, V]`; replaced in place by their gradient.
    pub(crate) logits: Vec<T>,
    pub(crate) scratch: Scratch<T>,
}

/// One block's activations: those of its kind, the others stay empty.
#[derive(Default)]
pub(crate) struct BlockTape<T> {
    pub(crate) resolvent: resolvent::Tape<T>,
    pub(crate) gated: gated::Tape<T>,
}

/// Buffers of the backward pass.
#[derive(Default)]
pub(crate) struct Scratch<T> {
    pub(crate) dh: Vec<T>,
    pub(crate) du: Vec<T>,
    pub(crate) resolvent: resolvent::Scratch<T>,
    pub(crate) gated: gated::Scratch<T>,
}

impl<T: Real> Tape<T> {
    /// Enables dropout of this fraction of the experts' hidden activations, or of the memories that
    /// gated chains without experts read, in later passes; drawn from `seed`. 0 disables it.
    pub fn set_dropout(&mut self, share: f32, seed: u64) {
        self.dropout = (share > 0.0).then_some((share, seed));
    }

    /// A tape whose passes round activations like the integer path.
    pub fn fake_quantized(fake_quant: FakeQuant) -> Self {
        Self { fake_quant: Some(fake_quant), ..Self::default() }
    }
}

impl<T: Real> Model<T> {
    /// Logits `[positions, V]` of consecutive windows of `window` tokens each.
    ///
    /// # Panics
    /// If the tokens are not complete windows, a token is not below V, or a window is longer than
    /// the position table.
    pub fn forward(&self, tokens: &[u32], window: usize) -> Vec<T> {
        let mut tape = Tape::default();
        self.forward_tape(tokens, window, &mut tape);
        tape.logits
    }

    /// As [`Model::forward`], in the buffers of `tape`, which may come from any earlier batch.
    pub fn forward_reusing<'t>(
        &self,
        tokens: &[u32],
        window: usize,
        tape: &'t mut Tape<T>,
    ) -> &'t [T] {
        self.forward_tape(tokens, window, tape);
        &tape.logits
    }

    /// As [`Model::forward`], leaving activations and logits in `tape`.
    pub(crate) fn forward_tape(&self, tokens: &[u32], window: usize, tape: &mut Tape<T>) {
        self.forward_with(tokens, window, tape, &mut |_, _| {});
    }

    /// Calls `after(stage, tape)` after each block and after the head.
    fn forward_with(
        &self,
        tokens: &[u32],
        window: usize,
        tape: &mut Tape<T>,
        after: &mut dyn FnMut(Stage, &Tape<T>),
    ) {
        assert!(window > 0 && tokens.len().is_multiple_of(window), "not whole windows");
        size(&mut tape.h, tokens.len() * self.config().width);
        self.embed(tokens, window, &mut tape.h);
        for l in 0..self.config().layers {
            self.block(l, window, tape);
            after(Stage::Block(l), tape);
        }
        self.head(tape);
        after(Stage::Head, tape);
    }

    /// Block `l`, on the residual stream in the tape.
    pub(crate) fn block(&self, l: usize, window: usize, tape: &mut Tape<T>) {
        tape.blocks.resize_with(self.config().layers, BlockTape::default);
        let dropout = tape.dropout.map(|(share, seed)| Dropout::new(share, seed, l as u64));
        let (tapes, h) = (&mut tape.blocks[l], &mut tape.h);
        match &self.layout.blocks[l] {
            BlockLayout::Resolvent(block) => {
                let tapes = &mut tapes.resolvent;
                tapes.buffers.moe.dropout = dropout;
                block.forward(self, window, h, tape.fake_quant, tapes);
            }
            BlockLayout::Gated(block) => {
                let positions = Positions::Windows(window);
                let (fake_quant, tapes) = (tape.fake_quant, &mut tapes.gated);
                block.forward(self, positions, h, dropout, fake_quant, tapes);
            }
        }
    }

    /// Final normalisation and output layer, on the residual stream in the tape.
    pub(crate) fn head(&self, tape: &mut Tape<T>) {
        let (d, rows) = (self.config().width, tape.h.len() / self.config().width);
        size(&mut tape.final_u, rows * d);
        let (norm, head) = (&self.layout.norm, &self.layout.head);
        norm.forward(&self.parameters, &tape.h, &mut tape.final_u, &mut tape.final_norm);
        if tape.fake_quant.is_some() {
            round_rows(&mut tape.final_u, d, 127);
        }
        size(&mut tape.logits, rows * self.config().vocab);
        head.forward(&self.parameters, &tape.final_u, &mut tape.logits);
    }

    /// h = token embedding (+ position embedding).
    pub(crate) fn embed(&self, tokens: &[u32], window: usize, h: &mut [T]) {
        let d = self.config().width;
        let table = &self.parameters[self.layout.embedding.clone()];
        for (row, &token) in h.chunks_exact_mut(d).zip(tokens) {
            row.copy_from_slice(&table[token as usize * d..][..d]);
        }
        if let Some(positions) = &self.layout.positions {
            let table = &self.parameters[positions.clone()];
            for (i, row) in h.chunks_exact_mut(d).enumerate() {
                add_to(row, &table[i % window * d..][..d]);
            }
        }
    }
}

/// The part of the model that was just computed.
#[derive(Clone, Copy)]
enum Stage {
    Block(usize),
    Head,
}

impl Model<f32> {
    /// As [`Model::forward`], passing every linear layer's inputs and outputs to `observer`.
    pub fn forward_observed(
        &self,
        tokens: &[u32],
        window: usize,
        observer: &mut dyn Observer,
    ) -> Vec<f32> {
        let mut tape = Tape::default();
        self.forward_observed_in(tokens, window, &mut tape, observer);
        tape.logits
    }

    /// As [`Model::forward_observed`], leaving activations and logits in `tape`.
    pub(crate) fn forward_observed_in(
        &self,
        tokens: &[u32],
        window: usize,
        tape: &mut Tape,
        observer: &mut dyn Observer,
    ) {
        self.forward_with(tokens, window, tape, &mut |stage, tape| match stage {
            Stage::Block(l) => self.report_block(l, tape, observer),
            Stage::Head => self.report_head(tape, observer),
        });
    }

    /// Passes what block `l` computed to `observer`.
    pub(crate) fn report_block(&self, l: usize, tape: &Tape, observer: &mut dyn Observer) {
        report_block(&self.layout.blocks[l], l, &tape.blocks[l], observer);
    }

    /// Passes what the output layer computed to `observer`.
    pub(crate) fn report_head(&self, tape: &Tape, observer: &mut dyn Observer) {
        observer.linear(call(&self.layout.head, &tape.final_u, &tape.logits, None));
    }
}

fn call<'a>(
    layer: &'a Linear,
    inputs: &'a [f32],
    outputs: &'a [f32],
    routed: Option<Routed<'a>>,
) -> LinearCall<'a> {
    LinearCall {
        name: &layer.name,
        inputs,
        outputs,
        input_width: layer.inputs,
        output_width: layer.outputs,
        routed,
    }
}

fn report_block(
    block: &BlockLayout,
    index: usize,
    tape: &BlockTape<f32>,
    observer: &mut dyn Observer,
) {
    match block {
        BlockLayout::Resolvent(block) => {
            let resolvent::Tape { u, v, g, buffers, .. } = &tape.resolvent;
            observer.linear(call(&block.v_proj, u, &buffers.v_raw, None));
            observer.chain(ChainCall { block: index, potentials: v, resolvent: g });
            observer.linear(call(&block.output_proj, &buffers.features, &buffers.projected, None));
            report_experts(&block.experts, u, &buffers.moe, observer);
        }
        BlockLayout::Gated(block) => {
            let tape = &tape.gated;
            observer.linear(call(&block.in_proj, &tape.u, &tape.projected, None));
            observer.linear(call(&block.v_proj, &tape.a, &tape.v_raw, None));
            observer.chain(ChainCall { block: index, potentials: &tape.v, resolvent: &tape.g });
            observer.linear(call(&block.output_proj, &tape.read, &tape.output, None));
            if let Some(ffn) = &block.ffn {
                report_experts(&ffn.experts, &tape.ffn_u, &tape.moe, observer);
            }
        }
    }
}

fn report_experts(
    experts: &Experts,
    u: &[f32],
    tape: &moe::Tape<f32>,
    observer: &mut dyn Observer,
) {
    if let Some(gate) = &experts.gate {
        observer.linear(call(gate, u, &tape.logits, None));
    }
    for ((first, second), expert) in experts.layers.iter().zip(&tape.experts) {
        if expert.positions.is_empty() {
            continue;
        }
        let routed = Routed { positions: &expert.positions, probabilities: &expert.probabilities };
        observer.linear(call(first, &expert.input, &expert.before, Some(routed)));
        observer.linear(call(second, &expert.hidden, &expert.output, Some(routed)));
    }
}
