//! The forward pass of one block, except its chain.
//!
//! [`Model::enter_block`] computes normalisation and potentials; the caller computes the chain,
//! over whole windows or one position at a time; [`Model::leave_block`] adds features and experts
//! to the residual stream. Batches, long windows and streams share these two functions.

use crate::reference::bounds::{FEATURE_BOUND, POTENTIAL_BOUND, clip_into};
use crate::reference::fake_quant::{FakeQuant, round_rows};
use crate::reference::layer_norm;
use crate::reference::model::{BlockLayout, Model};
use crate::reference::moe;
use crate::reference::real::{Real, add_scaled, size};

/// Activations of a block, besides its inputs, potentials and resolvent elements.
#[derive(Default)]
pub(crate) struct BlockBuffers<T> {
    pub(crate) norm: layer_norm::Tape<T>,
    /// Output of v_proj `[rows, K]`.
    pub(crate) v_raw: Vec<T>,
    /// Clipped G `[rows, 2K]`.
    pub(crate) features: Vec<T>,
    /// Output of output_proj `[rows, d]`, before bk_scale.
    pub(crate) projected: Vec<T>,
    pub(crate) moe: moe::Tape<T>,
}

impl<T: Real> Model<T> {
    /// Computes normalised inputs `u` `[rows, d]` and clipped potentials `v` `[rows, K]` from the
    /// residual stream `h` `[rows, d]`.
    pub(crate) fn enter_block(
        &self,
        block: &BlockLayout,
        h: &[T],
        u: &mut [T],
        v: &mut Vec<T>,
        fake_quant: Option<FakeQuant>,
        buffers: &mut BlockBuffers<T>,
    ) {
        let (d, k) = (self.config().width, self.config().potentials);
        block.norm.forward(&self.parameters, h, u, &mut buffers.norm);
        if fake_quant.is_some() {
            round_rows(u, d, 127);
        }
        size(&mut buffers.v_raw, u.len() / d * k);
        block.v_proj.forward(&self.parameters, u, &mut buffers.v_raw);
        clip_into(&buffers.v_raw, POTENTIAL_BOUND, v);
        if let Some(fake_quant) = fake_quant {
            fake_quant.potentials(v);
        }
    }

    /// Adds the chain's features (from G, `g` `[rows, 2K]`) and the experts (from `u` `[rows, d]`)
    /// to the residual stream `h` `[rows, d]`.
    pub(crate) fn leave_block(
        &self,
        block: &BlockLayout,
        u: &[T],
        g: &[T],
        h: &mut [T],
        fake_quant: Option<FakeQuant>,
        buffers: &mut BlockBuffers<T>,
    ) {
        clip_into(g, FEATURE_BOUND, &mut buffers.features);
        if fake_quant.is_some() {
            round_rows(&mut buffers.features, 2 * self.config().potentials, 127);
        }
        size(&mut buffers.projected, h.len());
        block.output_proj.forward(&self.parameters, &buffers.features, &mut buffers.projected);
        buffers.moe.rounds = fake_quant.is_some();
        moe::forward(block, &self.parameters, self.config().top_k, u, h, &mut buffers.moe);
        add_scaled(h, self.parameters[block.scale], &buffers.projected);
    }
}
