//! The published block: the elements of the resolvent are features, added beside the experts.
//!
//! [`Resolvent::enter`] computes normalisation and potentials; the caller computes the chain, over
//! whole windows or one position at a time; [`Resolvent::leave`] adds features and experts to the
//! residual stream. Batches, long windows and streams share these two functions.

use crate::reference::bk;
use crate::reference::bounds::{FEATURE_BOUND, POTENTIAL_BOUND, clip_into, mask};
use crate::reference::fake_quant::{FakeQuant, round_rows};
use crate::reference::layer_norm;
use crate::reference::layout::Resolvent;
use crate::reference::model::Model;
use crate::reference::moe;
use crate::reference::observer::Each;
use crate::reference::real::{Real, add_scaled, dot, size};

/// The block's activations.
#[derive(Default)]
pub(crate) struct Tape<T> {
    /// Normalised inputs `[rows, d]`.
    pub(crate) u: Vec<T>,
    /// Clipped potentials `[rows, K]`.
    pub(crate) v: Vec<T>,
    /// G `[rows, 2K]`: real parts, then imaginary parts.
    pub(crate) g: Vec<T>,
    /// One per window.
    chains: Vec<bk::Tape<T>>,
    pub(crate) buffers: Buffers<T>,
}

/// Activations of a block, besides its inputs, potentials and resolvent elements.
#[derive(Default)]
pub(crate) struct Buffers<T> {
    norm: layer_norm::Tape<T>,
    /// Output of v_proj `[rows, K]`.
    pub(crate) v_raw: Vec<T>,
    /// Clipped G `[rows, 2K]`.
    pub(crate) features: Vec<T>,
    /// Output of output_proj `[rows, d]`, before bk_scale.
    pub(crate) projected: Vec<T>,
    pub(crate) moe: moe::Tape<T>,
}

/// Buffers of the backward pass.
#[derive(Default)]
pub(crate) struct Scratch<T> {
    du: Vec<T>,
    projected: Vec<T>,
    features: Vec<T>,
    v: Vec<T>,
}

impl Resolvent {
    /// Transforms the residual stream `h` `[rows, d]` of windows of `window` positions.
    pub(crate) fn forward<T: Real>(
        &self,
        model: &Model<T>,
        window: usize,
        h: &mut [T],
        fake_quant: Option<FakeQuant>,
        tape: &mut Tape<T>,
    ) {
        size(&mut tape.u, h.len());
        self.enter(model, h, &mut tape.u, &mut tape.v, fake_quant, &mut tape.buffers);
        self.resolve(model, window, tape);
        self.leave(model, &tape.u, &tape.g, h, fake_quant, &mut tape.buffers);
    }

    /// Computes normalised inputs `u` `[rows, d]` and clipped potentials `v` `[rows, K]` from the
    /// residual stream `h` `[rows, d]`.
    pub(crate) fn enter<T: Real>(
        &self,
        model: &Model<T>,
        h: &[T],
        u: &mut [T],
        v: &mut Vec<T>,
        fake_quant: Option<FakeQuant>,
        buffers: &mut Buffers<T>,
    ) {
        let (d, k) = (model.config().width, model.config().potentials);
        self.norm.forward(&model.parameters, h, u, &mut buffers.norm);
        if fake_quant.is_some() {
            round_rows(u, d, 127);
        }
        size(&mut buffers.v_raw, u.len() / d * k);
        self.v_proj.forward(&model.parameters, u, &mut buffers.v_raw);
        clip_into(&buffers.v_raw, POTENTIAL_BOUND, v);
        if let Some(fake_quant) = fake_quant {
            fake_quant.potentials(v);
        }
    }

    /// Adds the chain's features (from G, `g` `[rows, 2K]`) and the experts (from `u` `[rows, d]`)
    /// to the residual stream `h` `[rows, d]`.
    pub(crate) fn leave<T: Real>(
        &self,
        model: &Model<T>,
        u: &[T],
        g: &[T],
        h: &mut [T],
        fake_quant: Option<FakeQuant>,
        buffers: &mut Buffers<T>,
    ) {
        clip_into(g, FEATURE_BOUND, &mut buffers.features);
        if fake_quant.is_some() {
            round_rows(&mut buffers.features, 2 * model.config().potentials, 127);
        }
        size(&mut buffers.projected, h.len());
        self.output_proj.forward(&model.parameters, &buffers.features, &mut buffers.projected);
        buffers.moe.rounds = fake_quant.is_some();
        let top_k = model.config().top_k;
        moe::forward(&self.experts, &model.parameters, top_k, u, h, &mut buffers.moe);
        add_scaled(h, model.parameters[self.scale], &buffers.projected);
    }

    /// G from potentials, window by window.
    fn resolve<T: Real>(&self, model: &Model<T>, window: usize, tape: &mut Tape<T>) {
        let k = model.config().potentials;
        let rows = tape.v.len() / k;
        size(&mut tape.g, rows * 2 * k);
        tape.chains.resize_with(rows / window, bk::Tape::default);
        let eta = model.eta(&self.chain);
        let core = model.core(&self.chain, &eta);
        let windows = tape.v.chunks_exact(window * k).zip(tape.g.chunks_exact_mut(window * 2 * k));
        for ((v, g), chain) in windows.zip(&mut tape.chains) {
            bk::forward(&core, v, g, chain);
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
        let parameters = &model.parameters;
        let Scratch { du, projected, features, v } = scratch;
        // s = bk_scale · projected
        gradient[self.scale] += dot(dh, &tape.buffers.projected);
        let scale = parameters[self.scale];
        projected.clear();
        projected.extend(dh.iter().map(|&x| scale * x));
        self.output_proj.backward_parameters(gradient, &tape.buffers.features, projected, each);
        size(features, tape.buffers.features.len());
        self.output_proj.backward_input(parameters, projected, features, false);
        mask(features, &tape.g, FEATURE_BOUND);
        self.resolve_backward(model, window, tape, features, v, gradient);
        mask(v, &tape.buffers.v_raw, POTENTIAL_BOUND);
        self.v_proj.backward_parameters(gradient, &tape.u, v, each);
        size(du, dh.len());
        self.v_proj.backward_input(parameters, v, du, false);
        let (experts, moe) = (&self.experts, &mut tape.buffers.moe);
        moe::backward(experts, parameters, &tape.u, dh, moe, (gradient, du), each);
        self.norm.backward(parameters, &tape.buffers.norm, du, gradient, dh);
    }

    /// Backward through the chains of every window: gradients of v (written) and of diagonal and
    /// log_eta (added).
    fn resolve_backward<T: Real>(
        &self,
        model: &Model<T>,
        window: usize,
        tape: &Tape<T>,
        dg: &[T],
        dv: &mut Vec<T>,
        gradient: &mut [T],
    ) {
        let k = model.config().potentials;
        let eta = model.eta(&self.chain);
        let core = model.core(&self.chain, &eta);
        size(dv, tape.v.len());
        let mut d_eta = vec![T::ZERO; k];
        let d_diagonal = &mut gradient[self.chain.diagonal.clone()];
        let rows = tape.g.chunks_exact(window * 2 * k).zip(dg.chunks_exact(window * 2 * k));
        let windows = rows.zip(dv.chunks_exact_mut(window * k)).zip(&tape.chains);
        for (((g, dg), dv), chain) in windows {
            let out = bk::Gradients { v: dv, diagonal: d_diagonal, eta: &mut d_eta };
            bk::backward(&core, g, chain, dg, out);
        }
        model.eta_backward(&self.chain, (&eta, &d_eta), gradient);
    }
}
