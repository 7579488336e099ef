//! The forward pass of a tile of B vectors, piece by piece, for sessions and windows.
//!
//! ```text
//! embed ─▶ normalize ─▶ block (resolvent or gated, each with experts) ─▶ … ─▶ normalize ─▶ output
//! ```
//!
//! B is one in a session, more in a window, so that each weight is read once per tile. Sums have
//! the same terms in the same order for every B, so the tile size affects speed and memory but not
//! results. Results of one piece wait for the next in caller-provided memory; what no later piece
//! reads makes room for what comes.

mod cursor;
mod experts;
pub(crate) mod gated;
pub(crate) mod output;
pub(crate) mod resolvent;
mod tile;

pub(crate) use cursor::Cursor;
pub(crate) use tile::{Tile, check, codes, embed, normalize_all};

use crate::blob::{Block, Dimensions};

/// Words that the pieces of a tile of `batch` vectors share: those of a block, then those of the
/// output layer.
pub(crate) const fn scratch_words(dims: &Dimensions, batch: usize) -> usize {
    let block = match dims.block {
        Block::Resolvent => resolvent::words(dims, batch),
        Block::Gated { channels } => gated::words(dims, channels as usize, batch),
    };
    let output = output::words(dims, batch);
    if block > output { block } else { output }
}
