//! Whole windows: every position's logits at once, the only way to run a full-chain model.

use core::fmt;

use half::f16;

use crate::blob::{Chain, Dimensions, TensorId};
use crate::block::{Tile, embed, finish, head, normalize_all};
use crate::error::Error;
use crate::kernels::{Vectors, matmul, with_simd};
use crate::layers::bk::{full_chain, half_step};
#[cfg(feature = "alloc")]
use crate::memory::allocate;
use crate::memory::{Arena, code_words, product, total};
use crate::model::Model;

/// Scores windows of up to a fixed number of tokens, a tile of positions at a time.
///
/// A half-chain model gives the same bits here as in a [`crate::Session`] from the beginning of a
/// stream. Larger tiles read each weight less often and need more memory; they change no bit.
pub struct Window<'a, M> {
    model: &'a Model<'a>,
    memory: M,
    tokens: usize,
    tile: usize,
}

impl<'a, M: AsRef<[u32]> + AsMut<[u32]>> Window<'a, M> {
    /// 32-bit words of memory for windows of at most `tokens`, `tile` positions at a time;
    /// `usize::MAX` for more than there can be.
    pub const fn words(dims: &Dimensions, tokens: usize, tile: usize) -> usize {
        let (width, potentials) = (dims.width as usize, dims.potentials as usize);
        total([
            product([tokens, width]),
            code_words(product([tokens, width])),
            tokens,
            product([tokens, 3, potentials]),
            chain_words(dims, tokens),
            Tile::words(dims, tile),
            code_words(product([tile, dims.vocab as usize])),
        ])
    }

    /// Room for windows of at most `tokens`, `tile` positions at a time: at least one of each, and a
    /// tile of at most 4096. The memory may hold anything.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] for less than [`Window::words`].
    pub fn new(model: &'a Model<'a>, memory: M, tokens: usize, tile: usize) -> Result<Self, Error> {
        let (tokens, tile) = (tokens.max(1), tile.clamp(1, 1 << 12));
        let needed = Self::words(model.dims(), tokens, tile);
        let given = memory.as_ref().len();
        if given < needed {
            return Err(Error::Memory { needed, given });
        }
        Ok(Self { model, memory, tokens, tile })
    }

    /// Scores a window: calls `each` with every position and its logits (`[V]`), in order.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyWindow`], [`Error::Buffer`] for a window longer than there is room for,
    /// [`Error::Token`] and [`Error::EndOfPositions`] as in [`crate::Session::step`]; all before the
    /// first call of `each`.
    pub fn score(
        &mut self,
        window: &[u32],
        mut each: impl FnMut(usize, &[f16]),
    ) -> Result<(), Error> {
        let model = self.model;
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
        let h = arena.wide(positions * width);
        let codes = arena.codes(positions * width);
        let scales = arena.words(positions);
        let potentials = arena.wide(positions * count);
        let features = arena.wide(positions * 2 * count);
        let chain = arena.wide(chain_words(dims, positions));
        let mut tile = Tile::carve(&mut arena, dims, self.tile);
        let logits = arena.halves(self.tile * dims.vocab as usize);

        let places = window.iter().zip(h.chunks_exact_mut(width)).enumerate();
        with_simd(
            #[inline(always)]
            || places.into_iter().try_for_each(|(t, (&token, h))| embed(model, token, t, h)),
        )?;
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
                finish(model, layer, x, features, &mut h[first * width..last * width], &mut tile);
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
            head(model, x, logits, &mut tile);
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

/// Without the memory.
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
    /// Room for windows of at most `tokens`, on the heap; [`Error::Memory`] where it has none.
    pub fn allocate(model: &'a Model<'a>, tokens: usize, tile: usize) -> Result<Self, Error> {
        let words = Self::words(model.dims(), tokens.max(1), tile.clamp(1, 1 << 12));
        Self::new(model, allocate(words)?, tokens, tile)
    }
}
