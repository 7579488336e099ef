//! Whole-window inference: logits of every position at once. Required for full-chain models.

use core::fmt;

use half::f16;

use crate::blob::{Block, Chain, Dimensions, TensorId};
use crate::error::Error;
use crate::forward::output::logits;
use crate::forward::{
    Cursor, Tile, check, codes, embed, gated, normalize_all, resolvent, scratch_words,
};
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
/// #     resnet_bk_core::include_blob!("../tests/golden/v3/half-int4.rbk");
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
        total([
            product([tokens, self.width as usize]),
            tile,
            code_words(codes(self, tile)),
            scratch_words(self, tile),
            mixer_words(self, tokens),
        ])
    }
}

/// What the mixers of a window need beside the scratch of a tile: a published block the normalized
/// vectors, potentials and features of all positions and its chain, a gated chain its state.
const fn mixer_words(dims: &Dimensions, tokens: usize) -> usize {
    let potentials = dims.potentials as usize;
    match dims.block {
        Block::Resolvent => total([
            code_words(product([tokens, dims.width as usize])),
            tokens,
            product([tokens, 3, potentials]),
            chain_words(dims, tokens),
        ]),
        Block::Gated { channels } => gated::State::words(potentials, channels as usize),
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
        for (position, &token) in window.iter().enumerate() {
            check(dims, token, position)?;
        }
        let (width, vocab, positions) = (dims.width as usize, dims.vocab as usize, window.len());
        let mut arena = Arena::new(self.memory.as_mut());
        let h = arena.integers(positions * width);
        let mut tile = Tile {
            h: &mut [],
            scales: arena.words(self.tile),
            codes: arena.codes(codes(dims, self.tile)),
            scratch: arena.words(scratch_words(dims, self.tile)),
        };
        let places = window.iter().zip(h.chunks_exact_mut(width)).enumerate();
        with_simd(
            #[inline(always)]
            || places.for_each(|(t, (&token, h))| embed(model, token, t, h)),
        );
        match dims.block {
            Block::Resolvent => resolvent_blocks(model, h, arena, self.tile, tile.scratch),
            Block::Gated { channels } => {
                gated_blocks(model, channels as usize, h, arena, self.tile, &mut tile);
            }
        }
        let mut first = 0;
        for h in h.chunks_mut(self.tile * width) {
            let mut tile = tile.of(h, width);
            tile.normalize();
            let mut cursor = Cursor::OUTPUT;
            while cursor.next.is_some() {
                cursor.advance_output(model, tile.lend());
            }
            let count = tile.scales.len();
            for logits in logits(tile.scratch, dims, count).chunks_exact(vocab) {
                each(first, logits);
                first += 1;
            }
        }
        Ok(())
    }
}

/// The blocks of a published model: chains over the whole window, then the rest a tile at a time.
fn resolvent_blocks(
    model: &Model<'_>,
    h: &mut [i32],
    mut arena: Arena<'_>,
    tile: usize,
    scratch: &mut [u32],
) {
    let dims = model.dims();
    let (width, count) = (dims.width as usize, dims.potentials as usize);
    let positions = h.len() / width;
    let codes = arena.codes(positions * width);
    let scales = arena.words(positions);
    let potentials = arena.integers(positions * count);
    let features = arena.integers(positions * 2 * count);
    let chain = arena.integers(chain_words(dims, positions));
    let mut scratch = resolvent::carve_experts(&mut Arena::new(scratch), dims, tile);
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
        for first in (0..positions).step_by(tile) {
            let last = positions.min(first + tile);
            let x = Vectors {
                codes: &codes[first * width..last * width],
                scales: &scales[first..last],
            };
            let features = &features[first * 2 * count..last * 2 * count];
            let h = &mut h[first * width..last * width];
            let mut cursor = Cursor::at(Some(Piece::OutputProjection), layer);
            while cursor.layer == layer {
                cursor.advance_behind_chain(model, x, features, h, &mut scratch);
            }
        }
    }
}

/// The blocks of gated chains: a tile after the other, as a session would.
fn gated_blocks(
    model: &Model<'_>,
    channels: usize,
    h: &mut [i32],
    mut arena: Arena<'_>,
    count: usize,
    tile: &mut Tile<'_>,
) {
    let dims = model.dims();
    let (width, potentials) = (dims.width as usize, dims.potentials as usize);
    let state = arena.words(gated::State::words(potentials, channels));
    for layer in 0..dims.layers {
        state.fill(0);
        for h in h.chunks_mut(count * width) {
            let mut tile = tile.of(h, width);
            tile.normalize();
            let mut cursor = Cursor::at(Some(Piece::InputProjection), layer);
            while cursor.layer == layer {
                let state = gated::State::new(state, potentials, channels);
                cursor.advance_gated(model, channels, state, tile.lend(), true);
            }
        }
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
