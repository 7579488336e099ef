//! The gated chain: a memory of the convolved inputs that forgets at a rate set by the chain.
//!
//! ```text
//! [a | z] = W_in u          a = SiLU(convolution(a))          v = W_v a
//! γ = η / (η + Im G)        s = s + γ (a − s)                 h += W_out [s ⊙ SiLU(z)]
//! ```
//!
//! then h += experts of the normalized h, if there are experts.

use super::cursor::Cursor;
use super::experts;
use super::tile::{Tile, add_product, normalize_all, quantize_all};
use crate::blob::{Dimensions, TensorId};
use crate::kernels::{Vectors, matmul, with_simd};
use crate::layers::activation::quantize;
use crate::layers::bk::half_gates;
use crate::layers::convolution::{self, Tail};
use crate::layers::memory;
use crate::memory::{Arena, product, total};
use crate::model::Model;
use crate::piece::Piece;

/// What a block carries from one position to the next.
pub(crate) struct State<'a> {
    /// `[2K]`: 1/L of the last position.
    pub(crate) chain: &'a mut [i32],
    /// `[C]`.
    pub(crate) memory: &'a mut [i32],
    pub(crate) tail: Tail<'a>,
}

impl<'a> State<'a> {
    /// Words of a block's state.
    pub(crate) const fn words(potentials: usize, channels: usize) -> usize {
        total([product([2, potentials]), channels, Tail::words(channels)])
    }

    /// Divides [`State::words`] of memory.
    pub(crate) fn new(words: &'a mut [u32], potentials: usize, channels: usize) -> Self {
        let mut arena = Arena::new(words);
        Self {
            chain: arena.integers(2 * potentials),
            memory: arena.integers(channels),
            tail: Tail::new(arena.words(Tail::words(channels)), channels),
        }
    }
}

/// Words for a tile of `batch` vectors: those of the chain, then those of the experts.
pub(crate) const fn words(dims: &Dimensions, channels: usize, batch: usize) -> usize {
    let chain = product([batch, total([row(dims, channels), dims.potentials as usize])]);
    let experts = if dims.hidden == 0 {
        0
    } else {
        experts::Scratch::words(dims, batch, dims.hidden as usize)
    };
    if chain > experts { chain } else { experts }
}

/// Elements of a row that has, in turn, `[a | z]` and the outputs.
const fn row(dims: &Dimensions, channels: usize) -> usize {
    let (width, both) = (dims.width as usize, product([2, channels]));
    if both > width { both } else { width }
}

impl Cursor {
    /// Computes the next piece of a block for the next B positions. Without `rest` the token ends
    /// with the block's state. The last piece moves on to the next block's normalization.
    ///
    /// The tile is normalized.
    pub(crate) fn advance_gated(
        &mut self,
        model: &Model<'_>,
        channels: usize,
        state: State<'_>,
        tile: Tile<'_>,
        rest: bool,
    ) {
        let (dims, layer) = (model.dims(), self.layer);
        let (width, count) = (dims.width as usize, dims.potentials as usize);
        let Tile { h, codes, scales, scratch } = tile;
        let batch = scales.len();
        let mut arena = Arena::new(scratch);
        if !matches!(
            self.next,
            Some(
                Piece::InputProjection
                    | Piece::Convolution
                    | Piece::Potentials
                    | Piece::Chain
                    | Piece::Memory
                    | Piece::OutputProjection
            )
        ) {
            let codes = &mut codes[..batch * width];
            let mut scratch =
                experts::Scratch::carve(&mut arena, dims, batch, dims.hidden as usize);
            if self.next == Some(Piece::Normalization) {
                normalize_all(h, codes, scales);
                return self.enter_experts(dims, batch, &mut scratch);
            }
            return self.advance_experts(model, Vectors { codes, scales }, h, &mut scratch);
        }
        let rows = arena.integers(batch * row(dims, channels));
        let potentials = arena.integers(batch * count);
        self.next = match self.next {
            Some(Piece::InputProjection) => {
                let x = Vectors { codes: &codes[..batch * width], scales };
                matmul(
                    &model.matrix(TensorId::InProj(layer)),
                    x,
                    &mut rows[..2 * batch * channels],
                );
                Some(Piece::Convolution)
            }
            Some(Piece::Convolution) => {
                let taps = model.tensor(TensorId::Convolution(layer));
                let rows = rows.chunks_exact_mut(2 * channels);
                let vectors = rows.zip(codes.chunks_exact_mut(channels)).zip(scales);
                let mut tail = state.tail;
                with_simd(
                    #[inline(always)]
                    || {
                        for ((row, codes), scale) in vectors {
                            let Some((a, _)) = row.split_at_mut_checked(channels) else { continue };
                            // Twice as many bytes as codes.
                            let own =
                                bytemuck::cast_slice_mut(codes).split_at_mut_checked(channels);
                            let Some((own, _)) = own else { continue };
                            convolution::step(&taps, &mut tail, own, a);
                            *scale = quantize(a, codes).pack();
                        }
                    },
                );
                Some(Piece::Potentials)
            }
            Some(Piece::Potentials) => {
                let x = Vectors { codes: &codes[..batch * channels], scales };
                matmul(&model.matrix(TensorId::VProj(layer)), x, potentials);
                Some(Piece::Chain)
            }
            Some(Piece::Chain) => {
                let (format, parameters) = (model.chain_format(), model.chain_parameters(layer));
                for potentials in potentials.chunks_exact_mut(count) {
                    half_gates(format, parameters, potentials, state.chain);
                }
                Some(Piece::Memory)
            }
            Some(Piece::Memory) => {
                let rows = rows.chunks_exact_mut(2 * channels);
                let gated = potentials.chunks_exact(count).zip(rows);
                with_simd(
                    #[inline(always)]
                    || {
                        for (gates, row) in gated {
                            let Some((a, z)) = row.split_at_mut_checked(channels) else { continue };
                            memory::step(gates, a, state.memory);
                            if rest {
                                memory::read(state.memory, z, a);
                            }
                        }
                    },
                );
                rest.then_some(Piece::OutputProjection)
            }
            _ => {
                let codes = &mut codes[..batch * channels];
                quantize_all(&rows[..2 * batch * channels], codes, scales);
                let matrix = model.matrix(TensorId::OutputProj(layer));
                add_product(&matrix, Vectors { codes, scales }, &mut rows[..h.len()], h);
                if dims.hidden == 0 {
                    *self = self.next_block();
                } else {
                    self.index = 1;
                }
                Some(Piece::Normalization)
            }
        };
    }
}
