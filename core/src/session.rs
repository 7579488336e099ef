//! Streaming inference: one token in, next-token logits out on request, O(1) state.

use core::fmt;

use half::f16;

use crate::blob::{Block, Dimensions};
use crate::error::Error;
use crate::forward::output::logits;
use crate::forward::{Cursor, Tile, check, codes, embed, gated, scratch_words};
#[cfg(feature = "alloc")]
use crate::memory::allocate;
use crate::memory::{Arena, code_words, product, total};
use crate::model::Model;
use crate::piece::Piece;

/// A stream of tokens through a causal model: a half chain.
///
/// The session owns its [`Model`], which is cheap to clone because the weights stay in the blob.
/// The caller provides the memory: a static array, a slice or, with the feature `alloc`, a vector.
/// [`Dimensions::session_words`] is its size, a compile-time constant if the blob is part of the
/// program. Firmware should pass a `&'static mut`: an array passed by value is copied through the
/// stack.
///
/// [`Session::step`] and [`Session::feed`] compute a whole token. To compute it in bounded pieces:
///
/// ```
/// # use resnet_bk_core::{Error, Model, Session};
/// # static BLOB: &[u8] =
/// #     resnet_bk_core::include_blob!("../tests/golden/v3/half-int4.rbk");
/// let model = Model::from_bytes(BLOB)?;
/// let mut memory = vec![0; model.dims().session_words()];
/// let mut session = Session::new(model, &mut memory[..])?;
///
/// session.begin(3)?;
/// let mut pieces = 0;
/// while let Some(piece) = session.advance() {
///     pieces += 1; // feed a watchdog, yield to other tasks, look at `piece`
/// }
/// let polled = session.logits().expect("the token is complete").to_vec();
/// assert!(pieces > 10);
///
/// session.reset();
/// assert_eq!(session.step(3)?, polled); // the same bits
/// # Ok::<(), Error>(())
/// ```
pub struct Session<'a, M> {
    pub(crate) model: Model<'a>,
    pub(crate) memory: M,
    position: usize,
    token: u32,
    /// Progress within `token`.
    cursor: Cursor,
    /// Whether `token` needs logits.
    logits_wanted: bool,
}

/// The parts of a session's memory. The state, which comes first, outlives a token, and the logits
/// at the beginning of the tile's scratch outlive it until the next one begins.
struct Parts<'a> {
    /// `[layers]` blocks of `block_words`.
    state: &'a mut [u32],
    block_words: usize,
    tile: Tile<'a>,
}

impl<'a> Parts<'a> {
    #[inline(never)]
    fn carve(words: &'a mut [u32], dims: &Dimensions) -> Self {
        let mut arena = Arena::new(words);
        Self {
            state: arena.words(dims.state_words()),
            block_words: dims.block_state_words(),
            tile: Tile {
                h: arena.integers(dims.width as usize),
                scales: arena.words(1),
                codes: arena.codes(codes(dims, 1)),
                scratch: arena.words(scratch_words(dims, 1)),
            },
        }
    }
}

impl Dimensions {
    /// 32-bit words of memory that a [`Session`] of such a model needs.
    pub const fn session_words(&self) -> usize {
        total([
            self.state_words(),
            self.width as usize,
            1,
            code_words(codes(self, 1)),
            scratch_words(self, 1),
        ])
    }

    /// Words of the state of all blocks.
    pub const fn state_words(&self) -> usize {
        product([self.layers as usize, self.block_state_words()])
    }

    /// Words of a block's state: a complex 1/L per potential, in a gated chain also its memory and
    /// the tail of its convolution.
    pub(crate) const fn block_state_words(&self) -> usize {
        let potentials = self.potentials as usize;
        match self.block {
            Block::Resolvent => product([2, potentials]),
            Block::Gated { channels } => gated::State::words(potentials, channels as usize),
        }
    }
}

impl<'a, M: AsRef<[u32]> + AsMut<[u32]>> Session<'a, M> {
    /// A session at the beginning of a stream. The memory need not be initialized.
    ///
    /// # Errors
    ///
    /// [`Error::NotCausal`] for a full-chain model, [`Error::Memory`] for less than
    /// [`Dimensions::session_words`].
    pub fn new(model: Model<'a>, mut memory: M) -> Result<Self, Error> {
        if !model.is_causal() {
            return Err(Error::NotCausal);
        }
        let (needed, given) = (model.dims().session_words(), memory.as_ref().len());
        if given < needed {
            return Err(Error::Memory { needed, given });
        }
        memory.as_mut()[..model.dims().state_words()].fill(0);
        let cursor = Cursor::DONE;
        Ok(Self { model, memory, position: 0, token: 0, cursor, logits_wanted: false })
    }

    /// The model.
    pub fn model(&self) -> &Model<'a> {
        &self.model
    }

    /// Returns to the beginning of a stream and drops a token in progress.
    pub fn reset(&mut self) {
        self.rewind(0);
        self.state_mut().fill(0);
    }

    /// Tokens completed since the beginning of the stream.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Computes a token and returns the logits (`[V]`) of the next one. Equivalent to
    /// [`Session::begin`] and [`Session::advance`] to the end.
    ///
    /// # Errors
    ///
    /// As [`Session::begin`].
    pub fn step(&mut self, token: u32) -> Result<&mut [f16], Error> {
        self.begin(token)?;
        Ok(self.compute(true))
    }

    /// Computes a token without logits, for all tokens of a prompt but the last. Leaves the same
    /// state as [`Session::step`], bit for bit, but skips the output layer and, in the last block,
    /// everything after the chain.
    ///
    /// # Errors
    ///
    /// As [`Session::begin`].
    pub fn feed(&mut self, token: u32) -> Result<(), Error> {
        self.begin_feed(token)?;
        self.compute(true);
        Ok(())
    }

    /// The logits (`[V]`) of a first token, before which there is nothing: the output layer of a
    /// residual stream of zeros, its biases. Leaves the state unchanged.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] while a token is in progress.
    pub fn prior(&mut self) -> Result<&mut [f16], Error> {
        if self.is_busy() {
            return Err(Error::Busy);
        }
        let dims = self.model.dims();
        let Parts { mut tile, .. } = Parts::carve(self.memory.as_mut(), dims);
        tile.h.fill(0);
        tile.normalize();
        let mut cursor = Cursor::OUTPUT;
        while cursor.next.is_some() {
            cursor.advance_output(&self.model, tile.lend());
        }
        self.logits_wanted = true;
        Ok(logits(tile.scratch, dims, 1))
    }

    /// Begins a token, which [`Session::advance`] then computes piece by piece.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] while another token is in progress, [`Error::Token`] for a token that the
    /// model does not have, [`Error::EndOfPositions`] past the end of the position table. All leave
    /// the session unchanged.
    pub fn begin(&mut self, token: u32) -> Result<(), Error> {
        self.start(token, true)
    }

    /// [`Session::begin`] without logits, like [`Session::feed`].
    ///
    /// # Errors
    ///
    /// As [`Session::begin`].
    pub fn begin_feed(&mut self, token: u32) -> Result<(), Error> {
        self.start(token, false)
    }

    /// Computes the next piece of the token in progress and returns which one it was; `None` if no
    /// token is in progress.
    ///
    /// Halfway through a token, the states of some blocks are ahead of others. Until the token is
    /// complete the session therefore refuses another token and a snapshot ([`Error::Busy`]).
    /// [`Session::reset`] and [`Session::restore`] replace the state and drop the token.
    pub fn advance(&mut self) -> Option<Piece> {
        let piece = self.cursor.next?;
        self.compute(false);
        Some(piece)
    }

    /// Whether a token is in progress.
    pub fn is_busy(&self) -> bool {
        self.cursor.next.is_some()
    }

    /// The logits (`[V]`) after the last token; `None` before the first token, while one is in
    /// progress, and after one without logits. The caller may overwrite them: the next token
    /// recomputes all of them.
    pub fn logits(&mut self) -> Option<&mut [f16]> {
        if self.is_busy() || !self.logits_wanted {
            return None;
        }
        let dims = self.model.dims();
        Some(logits(Parts::carve(self.memory.as_mut(), dims).tile.scratch, dims, 1))
    }

    fn start(&mut self, token: u32, logits_wanted: bool) -> Result<(), Error> {
        if self.is_busy() {
            return Err(Error::Busy);
        }
        check(self.model.dims(), token, self.position)?;
        (self.token, self.logits_wanted) = (token, logits_wanted);
        self.cursor = Cursor::at(Some(Piece::Embedding), 0);
        Ok(())
    }

    /// Computes the next piece of the token in progress, or all that remain. The logits are stale
    /// unless this token computes them and is complete.
    fn compute(&mut self, all: bool) -> &mut [f16] {
        let dims = self.model.dims();
        let mut parts = Parts::carve(self.memory.as_mut(), dims);
        let task = Task { token: self.token, position: self.position, logits: self.logits_wanted };
        loop {
            parts.advance(&self.model, task, &mut self.cursor);
            if !all || self.cursor.next.is_none() {
                break;
            }
        }
        if self.cursor.next.is_none() {
            // Only position tables use the position, and they end long before it saturates.
            self.position = self.position.saturating_add(1);
        }
        logits(parts.tile.scratch, dims, 1)
    }

    /// Sets the position; drops a token in progress and the logits.
    pub(crate) fn rewind(&mut self, position: usize) {
        self.position = position;
        (self.cursor, self.logits_wanted) = (Cursor::DONE, false);
    }

    /// `[layers]` states of blocks.
    pub(crate) fn state_mut(&mut self) -> &mut [u32] {
        &mut self.memory.as_mut()[..self.model.dims().state_words()]
    }

    /// `[layers]` states of blocks.
    pub(crate) fn state(&self) -> &[u32] {
        &self.memory.as_ref()[..self.model.dims().state_words()]
    }
}

/// The token in progress.
#[derive(Clone, Copy)]
struct Task {
    token: u32,
    position: usize,
    /// Whether to compute its logits.
    logits: bool,
}

impl Parts<'_> {
    /// Computes the piece at the cursor and advances it; does nothing after the last piece.
    // Outlined: one copy for all types of memory, compiled in this crate for size on devices.
    #[inline(never)]
    fn advance(&mut self, model: &Model<'_>, task: Task, cursor: &mut Cursor) {
        let (dims, layer) = (model.dims(), cursor.layer);
        let tile = &mut self.tile;
        if cursor.next == Some(Piece::Embedding) {
            embed(model, task.token, task.position, tile.h);
            cursor.next = Some(Piece::Normalization);
        } else if cursor.is_before_block() {
            tile.normalize();
            *cursor = match dims.block {
                _ if layer == dims.layers => Cursor::OUTPUT,
                Block::Resolvent => Cursor::at(Some(Piece::Potentials), layer),
                Block::Gated { .. } => Cursor::at(Some(Piece::InputProjection), layer),
            };
        } else if cursor.next == Some(Piece::OutputLayer) {
            cursor.advance_output(model, tile.lend());
        } else if cursor.next.is_some() {
            let state = layer as usize * self.block_words;
            let state = &mut self.state[state..][..self.block_words];
            let (tile, rest) = (tile.lend(), layer + 1 < dims.layers || task.logits);
            match dims.block {
                Block::Resolvent => cursor.advance_half_chain(model, state, tile, rest),
                Block::Gated { channels } => {
                    let channels = channels as usize;
                    let state = gated::State::new(state, dims.potentials as usize, channels);
                    cursor.advance_gated(model, channels, state, tile, rest);
                }
            }
        }
    }
}

/// Omits the memory.
impl<M> fmt::Debug for Session<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("position", &self.position).finish_non_exhaustive()
    }
}

#[cfg(feature = "alloc")]
impl<'a> Session<'a, alloc::vec::Vec<u32>> {
    /// A session with heap-allocated memory; [`Error::Memory`] if the allocation fails.
    pub fn allocate(model: Model<'a>) -> Result<Self, Error> {
        let memory = allocate(model.dims().session_words())?;
        Self::new(model, memory)
    }
}
