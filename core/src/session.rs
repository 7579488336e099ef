//! Streaming: one token in, the logits of the next one out if they are wanted, with O(1) state.

use core::fmt;

use half::f16;

use crate::blob::{Dimensions, TensorId};
use crate::block::{Tile, embed, finish, head, normalize_all};
use crate::error::Error;
use crate::kernels::{Vectors, matmul};
use crate::layers::bk::half_step;
#[cfg(feature = "alloc")]
use crate::memory::allocate;
use crate::memory::{Arena, code_words, product, total};
use crate::model::Model;

/// A stream of tokens through a half-chain model.
///
/// The memory is the caller's: a static array, a slice, or with the feature `alloc` a vector.
/// [`Session::words`] says how much a model needs.
pub struct Session<'a, M> {
    model: &'a Model<'a>,
    memory: M,
    position: usize,
}

/// The pieces of a session's memory. State first: the rest is scratch between two tokens.
struct Parts<'a> {
    /// `[layers, 2K]`: 1/L of the last position.
    state: &'a mut [i32],
    h: &'a mut [i32],
    codes: &'a mut [i16],
    scale: &'a mut [u32],
    potentials: &'a mut [i32],
    features: &'a mut [i32],
    tile: Tile<'a>,
    logits: &'a mut [f16],
}

impl<'a> Parts<'a> {
    fn carve(words: &'a mut [u32], dims: &Dimensions) -> Self {
        let (width, potentials) = (dims.width as usize, dims.potentials as usize);
        let mut arena = Arena::new(words);
        Self {
            state: arena.wide(state_words(dims)),
            h: arena.wide(width),
            codes: arena.codes(width),
            scale: arena.words(1),
            potentials: arena.wide(potentials),
            features: arena.wide(2 * potentials),
            tile: Tile::carve(&mut arena, dims, 1),
            logits: arena.halves(dims.vocab as usize),
        }
    }
}

const fn state_words(dims: &Dimensions) -> usize {
    product([dims.layers as usize, 2, dims.potentials as usize])
}

impl<'a, M: AsRef<[u32]> + AsMut<[u32]>> Session<'a, M> {
    /// 32-bit words of memory that a session of this model needs.
    pub const fn words(dims: &Dimensions) -> usize {
        let (width, potentials) = (dims.width as usize, dims.potentials as usize);
        total([
            state_words(dims),
            width,
            code_words(width),
            1,
            product([3, potentials]),
            Tile::words(dims, 1),
            code_words(dims.vocab as usize),
        ])
    }

    /// A session at the beginning of a stream. The memory may hold anything.
    ///
    /// # Errors
    ///
    /// [`Error::NotCausal`] for a full-chain model, [`Error::Memory`] for less than
    /// [`Session::words`].
    pub fn new(model: &'a Model<'a>, memory: M) -> Result<Self, Error> {
        if !model.is_causal() {
            return Err(Error::NotCausal);
        }
        let (needed, given) = (Self::words(model.dims()), memory.as_ref().len());
        if given < needed {
            return Err(Error::Memory { needed, given });
        }
        let mut session = Self { model, memory, position: 0 };
        session.reset();
        Ok(session)
    }

    /// Back to the beginning of a stream.
    pub fn reset(&mut self) {
        self.position = 0;
        self.memory.as_mut()[..state_words(self.model.dims())].fill(0);
    }

    /// Tokens taken since the beginning of the stream.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Takes a token and returns the logits (`[V]`) of the one that follows it.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] for a token that the model does not have, [`Error::EndOfPositions`] past the
    /// end of a position table. Both leave the session as it was.
    pub fn step(&mut self, token: u32) -> Result<&[f16], Error> {
        self.advance(token, true)
    }

    /// Takes a token whose successor is known, as those of a prompt are but for the last one: what
    /// follows is as after [`Session::step`], bit for bit, and what only logits need is left out
    /// (the output layer, and of the last block all but its chain).
    ///
    /// # Errors
    ///
    /// As [`Session::step`].
    pub fn feed(&mut self, token: u32) -> Result<(), Error> {
        self.advance(token, false).map(|_| ())
    }

    /// The logits are of an earlier token unless `logits_wanted`.
    fn advance(&mut self, token: u32, logits_wanted: bool) -> Result<&[f16], Error> {
        let model = self.model;
        let dims = model.dims();
        let parts = Parts::carve(self.memory.as_mut(), dims);
        let Parts { state, h, codes, scale, potentials, features, mut tile, logits } = parts;
        embed(model, token, self.position, h)?;
        let state = state.chunks_exact_mut(2 * dims.potentials as usize);
        for (layer, state) in (0..dims.layers).zip(state) {
            normalize_all(h, codes, scale);
            let x = Vectors { codes, scales: scale };
            matmul(&model.matrix(TensorId::VProj(layer)), x, potentials);
            let parameters = model.chain_parameters(layer);
            half_step(model.chain_format(), parameters, potentials, state, features);
            if !logits_wanted && layer + 1 == dims.layers {
                break;
            }
            finish(model, layer, x, features, h, &mut tile);
        }
        if logits_wanted {
            normalize_all(h, codes, scale);
            head(model, Vectors { codes, scales: scale }, logits, &mut tile);
        }
        // Only a position table looks at it, and that ends long before.
        self.position = self.position.saturating_add(1);
        Ok(logits)
    }
}

/// Without the memory.
impl<M> fmt::Debug for Session<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("position", &self.position).finish_non_exhaustive()
    }
}

#[cfg(feature = "alloc")]
impl<'a> Session<'a, alloc::vec::Vec<u32>> {
    /// A session whose memory is on the heap; [`Error::Memory`] where the heap has no room for it.
    pub fn allocate(model: &'a Model<'a>) -> Result<Self, Error> {
        Self::new(model, allocate(Self::words(model.dims()))?)
    }
}
