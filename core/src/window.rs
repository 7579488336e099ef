//! Whole-window inference: logits of every position at once. Required for full-chain models.

use core::fmt;

use half::f16;

use crate::blob::{Chain, Dimensions, TensorId};
use crate::block::{Cursor, Tile, check, embed, normalize_all};
use crate::error::Error;
use crate::kernels::{Vectors, matmul, with_simd};
use crate::layers::bk::{full_chain, half_step};
#[cfg(feature = "alloc")]
use crate::memory::allocate;
use crate::memory::{Arena, code_words, product, total};
use crate::model::Model;
use crate::piece::Piece;
use crate::score::log_probability;

/// Scores windows of up to a fixed number of tokens, a tile of positions at a time.
///
/// A half-chain model gives the same bits as in a fresh [`crate::Session`]. Larger tiles read each
/// weight less often and need more memory; the result does not depend on the tile.
///
/// ```
/// # use resnet_bk_core::{Error, Model, Window};
/// # static BLOB: &[u8] =
/// #     resnet_bk_core::include_blob!("../tests/golden/v2/half-int4.rbk");
/// let model = Model::from_bytes(BLOB)?;
/// let (vocab, tokens) = (model.dims().vocab as usize, [3, 1, 2]);
/// let mut memory = vec![0; model.dims().window_words(tokens.len(), 2)];
/// let mut window = Window::new(model, &mut memory[..], tokens.len(), 2)?;
///
/// let mut scored = 0;
/// window.score(&tokens, |position, logits| {
///     assert_eq!((position, logits.len()), (scored, vocab));
///     scored += 1;
/// })?;
/// assert_eq!(scored, 3);
/// # Ok::<(), Error>(())
/// ```
pub struct Window<'a, M> {
    model: Model<'a>,
    memory: M,
    tokens: usize,
    tile: usize,
}

impl Dimensions {
    /// 32-bit words of memory that [`Window::new`] needs for these `tokens` and `tile`; saturates
    /// to `usize::MAX`.
    pub const fn window_words(&self, tokens: usize, tile: usize) -> usize {
        let (tokens, tile) = sizes(tokens, tile);
        let (width, potentials) = (self.width as usize, self.potentials as usize);
        total([
            product([tokens, width]),
            code_words(product([tokens, width])),
            tokens,
            product([tokens, 3, potentials]),
            chain_words(self, tokens),
            Tile::words(self, tile),
            code_words(product([tile, self.vocab as usize])),
        ])
    }
}

/// At least one token, and a tile of 1 to 4096 positions.
const fn sizes(tokens: usize, tile: usize) -> (usize, usize) {
    const LARGEST: usize = 1 << 12;
    let tile = if tile > LARGEST { LARGEST } else { tile };
    (if tokens == 0 { 1 } else { tokens }, if tile == 0 { 1 } else { tile })
}

impl<'a, M: AsRef<[u32]> + AsMut<[u32]>> Window<'a, M> {
    /// For windows of at most `tokens` tokens, computed `tile` positions at a time. Both are at
    /// least 1, and the tile at most 4096: other values are clamped. The memory need not be
    /// initialized.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] for less than [`Dimensions::window_words`].
    pub fn new(model: Model<'a>, memory: M, tokens: usize, tile: usize) -> Result<Self, Error> {
        let needed = model.dims().window_words(tokens, tile);
        let given = memory.as_ref().len();
        if given < needed {
            return Err(Error::Memory { needed, given });
        }
        let (tokens, tile) = sizes(tokens, tile);
        Ok(Self { model, memory, tokens, tile })
    }

    /// The model.
    pub fn model(&self) -> &Model<'a> {
        &self.model
    }

    /// Calls `each` with the index and the log-probability (in nats) of every token of `window`
    /// but the first, in order. The values have the same bits as [`crate::log_probability`] of the
    /// logits of a session. Logits are computed a tile at a time and not kept.
    ///
    /// # Errors
    ///
    /// As [`Window::score`].
    pub fn log_probabilities(
        &mut self,
        window: &[u32],
        mut each: impl FnMut(usize, f32),
    ) -> Result<(), Error> {
        self.score(window, |position, logits| {
            let next = position + 1;
            // `score` has refused tokens that the model does not have.
            if let Some(Ok(value)) = window.get(next).map(|&t| log_probability(logits, t)) {
                each(next, value);
            }
        })
    }

    /// Scores a window: calls `each` with every position and its logits (`[V]`), in order.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyWindow`], [`Error::Buffer`] for a window of more than `tokens` tokens,
    /// [`Error::Token`] and [`Error::EndOfPositions`] as in [`crate::Session::step`]; all before
    /// the first call of `each`.
    pub fn score(
        &mut self,
        window: &[u32],
        mut each: impl FnMut(usize, &[f16]),
    ) -> Result<(), Error> {
        let model = &self.model;
        let dims = model.dims();
        if window.is_empty() {
            return Err(Error::EmptyWindow);
        }
        if window.len() > self.tokens {
            return Err(Error::Buffer { needed: window.len(), given: self.tokens });
        }
        let (width, count) = (dims.width as usize, dims.potentials as usize);
        let positions = window.len();
        let mut arena = Arena::new(self.memory.as_mut());
        let h = arena.integers(positions * width);
        let codes = arena.codes(positions * width);
        let scales = arena.words(positions);
        let potentials = arena.integers(positions * count);
        let features = arena.integers(positions * 2 * count);
        let chain = arena.integers(chain_words(dims, positions));
        let mut tile = Tile::carve(&mut arena, dims, self.tile);
        let logits = arena.halves(self.tile * dims.vocab as usize);

        let places = window.iter().zip(h.chunks_exact_mut(width)).enumerate();
        for (position, &token) in window.iter().enumerate() {
            check(dims, token, position)?;
        }
        with_simd(
            #[inline(always)]
            || places.for_each(|(t, (&token, h))| embed(model, token, t, h)),
        );
        for layer in 0..dims.layers {
            normalize_all(h, codes, scales);
            let x = Vectors { codes, scales };
            matmul(&model.matrix(TensorId::VProj(layer)), x, potentials);
            let (format, parameters) = (model.chain_format(), model.chain_parameters(layer));
            with_simd(
                #[inline(always)]
                || match dims.chain {
                    Chain::Full => full_chain(format, parameters, potentials, chain, features),
                    Chain::Half => {
                        chain.fill(0);
                        let features = features.chunks_exact_mut(2 * count);
                        for (potentials, features) in potentials.chunks_exact(count).zip(features) {
                            half_step(format, parameters, potentials, chain, features);
                        }
                    }
                },
            );
            for first in (0..positions).step_by(self.tile) {
                let last = positions.min(first + self.tile);
                let x = Vectors {
                    codes: &codes[first * width..last * width],
                    scales: &scales[first..last],
                };
                let features = &features[first * 2 * count..last * 2 * count];
                let h = &mut h[first * width..last * width];
                let mut cursor = Cursor::at(Some(Piece::OutputProjection), layer);
                while cursor.layer == layer {
                    cursor.advance_block(model, x, features, h, &mut tile);
                }
            }
        }
        normalize_all(h, codes, scales);
        let vocab = dims.vocab as usize;
        for first in (0..positions).step_by(self.tile) {
            let last = positions.min(first + self.tile);
            let x = Vectors {
                codes: &codes[first * width..last * width],
                scales: &scales[first..last],
            };
            let logits = &mut logits[..(last - first) * vocab];
            let mut cursor = Cursor::OUTPUT;
            while cursor.next.is_some() {
                cursor.advance_output(model, x, logits, &mut tile);
            }
            for (offset, logits) in logits.chunks_exact(vocab).enumerate() {
                each(first + offset, logits);
            }
        }
        Ok(())
    }
}

/// Scratch of the chain: L of every position (full), or the state of every potential (half).
const fn chain_words(dims: &Dimensions, tokens: usize) -> usize {
    match dims.chain {
        Chain::Full => product([2, tokens]),
        Chain::Half => product([2, dims.potentials as usize]),
    }
}

/// Omits the memory.
impl<M> fmt::Debug for Window<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window")
            .field("tokens", &self.tokens)
            .field("tile", &self.tile)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "alloc")]
impl<'a> Window<'a, alloc::vec::Vec<u32>> {
    /// [`Window::new`] with heap-allocated memory; [`Error::Memory`] if the allocation fails.
    pub fn allocate(model: Model<'a>, tokens: usize, tile: usize) -> Result<Self, Error> {
        let memory = allocate(model.dims().window_words(tokens, tile))?;
        Self::new(model, memory, tokens, tile)
    }
}
