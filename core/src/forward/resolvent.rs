//! The published block: h += W_out [Re G, Im G] and h += experts, both of one normalized input.

use super::cursor::Cursor;
use super::experts;
use super::tile::{Tile, add_product, quantize_all};
use crate::blob::{Dimensions, TensorId};
use crate::kernels::{Vectors, matmul};
use crate::layers::bk::half_step;
use crate::layers::moe;
use crate::memory::{Arena, product, total};
use crate::model::Model;
use crate::piece::Piece;

/// Words for a tile of `batch` vectors.
pub(crate) const fn words(dims: &Dimensions, batch: usize) -> usize {
    let chain = product([batch, 3, dims.potentials as usize]);
    total([chain, experts_words(dims, batch)])
}

/// Words of the experts' part of them.
const fn experts_words(dims: &Dimensions, batch: usize) -> usize {
    experts::Scratch::words(dims, batch, hidden_codes(dims))
}

/// Codes of a vector in the buffer that features and, later, hidden vectors share.
const fn hidden_codes(dims: &Dimensions) -> usize {
    let (hidden, features) = (dims.hidden as usize, product([2, dims.potentials as usize]));
    if hidden > features { hidden } else { features }
}

/// Scratch of what comes after the chain.
pub(crate) fn carve_experts<'a>(
    arena: &mut Arena<'a>,
    dims: &Dimensions,
    batch: usize,
) -> experts::Scratch<'a> {
    experts::Scratch::carve(arena, dims, batch, hidden_codes(dims))
}

impl Cursor {
    /// Computes the next piece of a block for the next position of a half chain. Without `rest` the
    /// token ends with the chain's state.
    ///
    /// Shapes: `state` is `[2K]`; a tile of one normalized vector.
    pub(crate) fn advance_half_chain(
        &mut self,
        model: &Model<'_>,
        state: &mut [u32],
        tile: Tile<'_>,
        rest: bool,
    ) {
        let (dims, layer) = (model.dims(), self.layer);
        let count = dims.potentials as usize;
        let mut arena = Arena::new(tile.scratch);
        let (potentials, features) = (arena.integers(count), arena.integers(2 * count));
        let x = Vectors { codes: &tile.codes[..tile.h.len()], scales: tile.scales };
        match self.next {
            Some(Piece::Potentials) => {
                matmul(&model.matrix(TensorId::VProj(layer)), x, potentials);
                self.next = Some(Piece::Chain);
            }
            Some(Piece::Chain) => {
                let (format, parameters) = (model.chain_format(), model.chain_parameters(layer));
                let state = bytemuck::cast_slice_mut(state);
                half_step(format, parameters, potentials, state, features);
                self.next = rest.then_some(Piece::OutputProjection);
            }
            _ => {
                let mut scratch = carve_experts(&mut arena, dims, 1);
                self.advance_behind_chain(model, x, features, tile.h, &mut scratch);
            }
        }
    }

    /// Computes the next piece of the part of a block after its chain: h += s + f, from the
    /// normalized input `x` and the chain's `features`. The last piece moves on to the next block's
    /// normalization. Other pieces are left to the caller.
    ///
    /// Shapes: `x` is `[B, d]`, `features` is `[B, 2K]`, `h` is `[B, d]` in Q15.16.
    pub(crate) fn advance_behind_chain(
        &mut self,
        model: &Model<'_>,
        x: Vectors<'_>,
        features: &[i32],
        h: &mut [i32],
        scratch: &mut experts::Scratch<'_>,
    ) {
        if self.next == Some(Piece::OutputProjection) {
            project(model, self.layer, features, h, &mut scratch.expert);
            self.enter_experts(model.dims(), x.scales.len(), scratch);
        } else {
            self.advance_experts(model, x, h, scratch);
        }
    }
}

/// h += s: quantizes the chain's features and multiplies them by the output projection.
///
/// Shapes: `features` is `[B, 2K]`, `h` is `[B, d]`.
fn project(
    model: &Model<'_>,
    layer: u32,
    features: &[i32],
    h: &mut [i32],
    scratch: &mut moe::Scratch<'_>,
) {
    let feature_width = 2 * model.dims().potentials as usize;
    let codes = &mut scratch.hidden_codes[..features.len()];
    let scales = &mut scratch.scales[..features.len() / feature_width];
    quantize_all(features, codes, scales);
    let matrix = model.matrix(TensorId::OutputProj(layer));
    add_product(&matrix, Vectors { codes, scales }, &mut scratch.outputs[..h.len()], h);
}
