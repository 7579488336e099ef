//! The gated chain: a memory of the convolved inputs that forgets at a rate set by the chain's
//! local density of states.
//!
//! ```text
//! u = LayerNorm(h)            [a | z] = W_in u                C channels each
//! a = SiLU(convolution(a))    v = clip(W_v a, ±3)             K potentials
//! G = half chain of v         γ_t = η / (η + Im G_t)          C/K channels share one
//! s_t = s_{t−1} + γ_t (a_t − s_{t−1})                         |s_t| ≤ max |a|
//! h += W_out [s ⊙ SiLU(z)]    h += experts(LayerNorm(h))      if there are experts
//! ```
//!
//! In the band, where states are extended, Im G is large and the chain remembers; in a gap it
//! forgets, with η as the leak.

use crate::reference::bk;
use crate::reference::bounds::{POTENTIAL_BOUND, clip_into, mask};
use crate::reference::dropout::Dropout;
use crate::reference::fake_quant::{FakeQuant, round_rows};
use crate::reference::layer_norm;
use crate::reference::layout::Gated;
use crate::reference::memory;
use crate::reference::model::Model;
use crate::reference::moe;
use crate::reference::observer::{ConvolutionGradient, Each, LayerGradient};
use crate::reference::real::{Real, add_to, size};
use crate::reference::silu;

/// What a block carries from one position to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct State<T> {
    /// Last inputs of the convolution `[TAPS − 1, C]`.
    tail: Vec<T>,
    /// G `[2K]`.
    g: Vec<T>,
    /// The memory s `[C]`.
    s: Vec<T>,
}

impl<T: Real> State<T> {
    /// The state before the first position.
    pub(crate) fn reset(&mut self, channels: usize, potentials: usize) {
        for (part, len) in [
            (&mut self.tail, (crate::checkpoint::TAPS - 1) * channels),
            (&mut self.g, 2 * potentials),
            (&mut self.s, channels),
        ] {
            part.clear();
            part.resize(len, T::ZERO);
        }
    }
}

/// The block's activations.
#[derive(Default)]
pub(crate) struct Tape<T> {
    norm: layer_norm::Tape<T>,
    /// Normalised inputs `[rows, d]`.
    pub(crate) u: Vec<T>,
    /// `[rows, 2C]`: inputs of the convolution, then output gates before SiLU.
    pub(crate) projected: Vec<T>,
    /// Output of the convolution `[rows, C]`.
    convolved: Vec<T>,
    /// The same after SiLU.
    pub(crate) a: Vec<T>,
    /// `a` as v_proj reads it where activations are rounded.
    rounded: Vec<T>,
    /// Whether they are.
    rounds: bool,
    /// Output of v_proj `[rows, K]`.
    pub(crate) v_raw: Vec<T>,
    /// Clipped potentials `[rows, K]`.
    pub(crate) v: Vec<T>,
    /// G `[rows, 2K]`: real parts, then imaginary parts.
    pub(crate) g: Vec<T>,
    /// γ `[rows, K]`.
    gates: Vec<T>,
    /// The memory `[rows, C]`.
    s: Vec<T>,
    /// The memory times its output gate, after dropout `[rows, C]`.
    pub(crate) read: Vec<T>,
    /// Output of output_proj `[rows, d]`.
    pub(crate) output: Vec<T>,
    /// Dropout of `read`, and its state before the pass.
    dropout: Option<Dropout>,
    ffn_norm: layer_norm::Tape<T>,
    /// Normalised inputs of the experts `[rows, d]`.
    pub(crate) ffn_u: Vec<T>,
    pub(crate) moe: moe::Tape<T>,
    state: State<T>,
}

/// Buffers of the backward pass.
#[derive(Default)]
pub(crate) struct Scratch<T> {
    du: Vec<T>,
    d_read: Vec<T>,
    d_projected: Vec<T>,
    ds: Vec<T>,
    memory: MemoryScratch<T>,
}

/// Gradients between the memory and what it is computed from.
#[derive(Default)]
struct MemoryScratch<T> {
    /// `[rows, C]`.
    da: Vec<T>,
    /// `[rows, K]`.
    d_gates: Vec<T>,
    /// `[rows, 2K]`.
    dg: Vec<T>,
    /// `[rows, K]`.
    dv: Vec<T>,
}

/// Where the rows of a pass come from.
pub(crate) enum Positions<'s, T> {
    /// Windows of so many positions, each starting afresh.
    Windows(usize),
    /// The positions after those that led to this state, which is updated.
    Next(&'s mut State<T>),
    /// One position for each of these states, which are updated.
    NextOfEach(&'s mut [State<T>]),
}

impl<T: Real> Tape<T> {
    /// Inputs of v_proj `[rows, C]`.
    fn of_potentials(&self) -> &[T] {
        if self.rounds { &self.rounded } else { &self.a }
    }
}

impl Gated {
    /// Channels C.
    pub(crate) fn channels(&self) -> usize {
        self.output_proj.inputs
    }

    /// Potentials K.
    fn potentials(&self) -> usize {
        self.v_proj.outputs
    }

    /// Transforms the residual stream `h` `[rows, d]`.
    pub(crate) fn forward<T: Real>(
        &self,
        model: &Model<T>,
        positions: Positions<'_, T>,
        h: &mut [T],
        dropout: Option<Dropout>,
        fake_quant: Option<FakeQuant>,
        tape: &mut Tape<T>,
    ) {
        let (parameters, c, k) = (&model.parameters, self.channels(), self.potentials());
        let (d, rows) = (model.config().width, h.len() / model.config().width);
        tape.rounds = fake_quant.is_some();
        size(&mut tape.u, h.len());
        self.norm.forward(parameters, h, &mut tape.u, &mut tape.norm);
        if tape.rounds {
            round_rows(&mut tape.u, d, 127);
        }
        size(&mut tape.projected, rows * 2 * c);
        self.in_proj.forward(parameters, &tape.u, &mut tape.projected);
        if tape.rounds {
            // Inputs of the convolution; output gates are not rounded.
            tape.projected.chunks_exact_mut(2 * c).for_each(|x| round_rows(&mut x[..c], c, 127));
        }
        size(&mut tape.convolved, rows * c);
        size(&mut tape.a, rows * c);
        size(&mut tape.v_raw, rows * k);
        size(&mut tape.g, rows * 2 * k);
        size(&mut tape.gates, rows * k);
        size(&mut tape.s, rows * c);
        let eta = model.eta(&self.chain);
        let core = model.core(&self.chain, &eta);
        match positions {
            Positions::Windows(window) => {
                let mut state = std::mem::take(&mut tape.state);
                for start in (0..rows).step_by(window) {
                    state.reset(c, k);
                    self.convolve(model, start..start + window, &mut state, tape);
                }
                self.potentials_of(model, fake_quant, tape);
                for start in (0..rows).step_by(window) {
                    state.reset(c, k);
                    self.remember(&core, start..start + window, &mut state, tape);
                }
                tape.state = state;
            }
            Positions::Next(state) => {
                self.convolve(model, 0..rows, state, tape);
                self.potentials_of(model, fake_quant, tape);
                self.remember(&core, 0..rows, state, tape);
            }
            Positions::NextOfEach(states) => {
                for (row, state) in states.iter_mut().enumerate() {
                    self.convolve(model, row..row + 1, state, tape);
                }
                self.potentials_of(model, fake_quant, tape);
                for (row, state) in states.iter_mut().enumerate() {
                    self.remember(&core, row..row + 1, state, tape);
                }
            }
        }
        // As published, dropout is in the experts; a block without any drops what it reads.
        let (of_read, of_experts) =
            if self.ffn.is_some() { (None, dropout) } else { (dropout, None) };
        self.read(tape, of_read);
        if tape.rounds {
            round_rows(&mut tape.read, c, 127);
        }
        (tape.moe.dropout, tape.moe.rounds) = (of_experts, tape.rounds);
        size(&mut tape.output, h.len());
        self.output_proj.forward(parameters, &tape.read, &mut tape.output);
        add_to(h, &tape.output);
        if let Some(ffn) = &self.ffn {
            size(&mut tape.ffn_u, h.len());
            ffn.norm.forward(parameters, h, &mut tape.ffn_u, &mut tape.ffn_norm);
            if tape.rounds {
                round_rows(&mut tape.ffn_u, d, 127);
            }
            let top_k = model.config().top_k;
            moe::forward(&ffn.experts, parameters, top_k, &tape.ffn_u, h, &mut tape.moe);
        }
    }

    /// The convolution over consecutive positions.
    fn convolve<T: Real>(
        &self,
        model: &Model<T>,
        rows: std::ops::Range<usize>,
        state: &mut State<T>,
        tape: &mut Tape<T>,
    ) {
        let c = self.channels();
        let x = (&tape.projected[rows.start * 2 * c..rows.end * 2 * c], 2 * c);
        let y = &mut tape.convolved[rows.start * c..rows.end * c];
        self.conv.forward(&model.parameters, x, &state.tail, y);
        self.conv.shift(x, &mut state.tail);
    }

    /// Potentials of every row.
    fn potentials_of<T: Real>(
        &self,
        model: &Model<T>,
        fake_quant: Option<FakeQuant>,
        tape: &mut Tape<T>,
    ) {
        silu::forward(&tape.convolved, &mut tape.a);
        if tape.rounds {
            // The memory reads `a` unrounded.
            tape.rounded.clone_from(&tape.a);
            round_rows(&mut tape.rounded, self.channels(), 127);
        }
        let mut v_raw = std::mem::take(&mut tape.v_raw);
        self.v_proj.forward(&model.parameters, tape.of_potentials(), &mut v_raw);
        tape.v_raw = v_raw;
        clip_into(&tape.v_raw, POTENTIAL_BOUND, &mut tape.v);
        if let Some(fake_quant) = fake_quant {
            fake_quant.potentials(&mut tape.v);
        }
    }

    /// Chain, gates and memory over consecutive positions.
    fn remember<T: Real>(
        &self,
        core: &bk::Core<'_, T>,
        rows: std::ops::Range<usize>,
        state: &mut State<T>,
        tape: &mut Tape<T>,
    ) {
        let (c, k) = (self.channels(), self.potentials());
        let g = &mut tape.g[rows.start * 2 * k..rows.end * 2 * k];
        bk::forward_from(core, &tape.v[rows.start * k..rows.end * k], &mut state.g, g);
        let gates = &mut tape.gates[rows.start * k..rows.end * k];
        memory::gates(core.eta, g, gates);
        let (a, s) = (&tape.a[rows.start * c..rows.end * c], rows.start * c..rows.end * c);
        memory::forward((gates, k), a, &mut state.s, &mut tape.s[s]);
    }

    /// s ⊙ SiLU(z).
    fn read<T: Real>(&self, tape: &mut Tape<T>, dropout: Option<Dropout>) {
        let c = self.channels();
        size(&mut tape.read, tape.s.len());
        silu::gate(&tape.s, (&tape.projected, c), &mut tape.read);
        tape.dropout = dropout;
        if let Some(mut dropout) = dropout {
            dropout.apply_scaled(&mut tape.read);
        }
    }

    /// Transforms `dh` from the gradient of the block's output to that of its input.
    pub(crate) fn backward<T: Real>(
        &self,
        model: &Model<T>,
        window: usize,
        (tape, scratch): (&mut Tape<T>, &mut Scratch<T>),
        dh: &mut [T],
        gradient: &mut [T],
        each: &mut Each<'_, T>,
    ) {
        let (parameters, c) = (&model.parameters, self.channels());
        let Scratch { du, d_read, d_projected, ds, memory } = scratch;
        size(du, dh.len());
        if let Some(ffn) = &self.ffn {
            du.fill(T::ZERO);
            let (u, moe) = (&tape.ffn_u, &mut tape.moe);
            moe::backward(&ffn.experts, parameters, u, dh, moe, (gradient, du), each);
            ffn.norm.backward(parameters, &tape.ffn_norm, du, gradient, dh);
        }
        self.output_proj.backward_parameters(gradient, &tape.read, dh, each);
        size(d_read, tape.read.len());
        self.output_proj.backward_input(parameters, dh, d_read, false);
        if let Some(mut dropout) = tape.dropout {
            dropout.apply_scaled(d_read);
        }
        // read = s ⊙ SiLU(z)
        size(d_projected, tape.projected.len());
        size(ds, tape.s.len());
        silu::gate_backward((&tape.s, &tape.projected, c), d_read, (ds, d_projected));
        self.memory_backward(model, window, (tape, ds), memory, gradient);
        let MemoryScratch { da, dv, .. } = memory;
        mask(dv, &tape.v_raw, POTENTIAL_BOUND);
        self.v_proj.backward_parameters(gradient, tape.of_potentials(), dv, each);
        self.v_proj.backward_input(parameters, dv, da, true);
        // a = SiLU(convolved)
        silu::backward(&tape.convolved, da);
        each(LayerGradient::Convolution(ConvolutionGradient {
            name: &self.conv.name,
            window,
            channels: c,
            inputs: (&tape.projected, 2 * c),
            outputs: da,
        }));
        let windows = da.chunks_exact(window * c).zip(tape.projected.chunks_exact(window * 2 * c));
        for ((dy, x), dx) in windows.zip(d_projected.chunks_exact_mut(window * 2 * c)) {
            self.conv.backward(parameters, (x, 2 * c), dy, dx, gradient);
        }
        self.in_proj.backward_parameters(gradient, &tape.u, d_projected, each);
        self.in_proj.backward_input(parameters, d_projected, du, false);
        self.norm.backward(parameters, &tape.norm, du, gradient, dh);
    }

    /// Backward through memory, gates and chain of every window: gradients of a and v (written), of
    /// diagonal and log_eta (added).
    fn memory_backward<T: Real>(
        &self,
        model: &Model<T>,
        window: usize,
        (tape, ds): (&Tape<T>, &[T]),
        scratch: &mut MemoryScratch<T>,
        gradient: &mut [T],
    ) {
        let (c, k) = (self.channels(), self.potentials());
        let eta = model.eta(&self.chain);
        let core = model.core(&self.chain, &eta);
        let MemoryScratch { da, d_gates, dg, dv } = scratch;
        size(da, ds.len());
        size(d_gates, tape.gates.len());
        size(dg, tape.g.len());
        size(dv, tape.v.len());
        let mut d_eta = vec![T::ZERO; k];
        for start in (0..ds.len() / c).step_by(window) {
            let wide = start * c..(start + window) * c;
            let narrow = start * k..(start + window) * k;
            let pairs = start * 2 * k..(start + window) * 2 * k;
            let gates = &tape.gates[narrow.clone()];
            let inputs = (&tape.a[wide.clone()], &tape.s[wide.clone()], c);
            let out = (&mut da[wide.clone()], &mut d_gates[narrow.clone()]);
            memory::backward((gates, k), inputs, &ds[wide], out);
            let gates = (gates, &d_gates[narrow.clone()]);
            memory::gates_backward(&eta, gates, &mut dg[pairs.clone()], &mut d_eta);
            let out = bk::Gradients {
                v: &mut dv[narrow],
                diagonal: &mut gradient[self.chain.diagonal.clone()],
                eta: &mut d_eta,
            };
            bk::backward(&core, &tape.g[pairs.clone()], &bk::Tape::default(), &dg[pairs], out);
        }
        model.eta_backward(&self.chain, (&eta, &d_eta), gradient);
    }
}
