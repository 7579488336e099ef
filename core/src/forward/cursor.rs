//! Progress of a forward pass.

use crate::piece::Piece;

/// Progress of a forward pass.
#[derive(Clone, Copy)]
pub(crate) struct Cursor {
    /// The next piece; `None` after the last one.
    pub(crate) next: Option<Piece>,
    /// Block of the next piece.
    pub(crate) layer: u32,
    /// Its expert; in the output layer its token class; in a normalization 1 if it is the one
    /// before the experts of a gated chain.
    pub(super) index: u32,
    /// Vectors of the tile that are routed to the expert; in the output layer the next token to
    /// examine for its class.
    pub(super) count: u32,
    /// Hidden units of the expert; in the output layer the completed rows of the class.
    pub(super) rows: u32,
}

impl Cursor {
    /// After the last piece.
    pub(crate) const DONE: Self = Self::at(None, 0);
    /// At the start of the output layer.
    pub(crate) const OUTPUT: Self = Self::at(Some(Piece::OutputLayer), 0);

    /// At the given piece of a block.
    pub(crate) const fn at(next: Option<Piece>, layer: u32) -> Self {
        Self { next, layer, index: 0, count: 0, rows: 0 }
    }

    /// Whether the next piece is the normalization before a block or the output layer.
    pub(crate) fn is_before_block(&self) -> bool {
        self.next == Some(Piece::Normalization) && self.index == 0
    }

    /// At the normalization before the next block, or the output layer.
    pub(super) fn next_block(&self) -> Self {
        Self::at(Some(Piece::Normalization), self.layer + 1)
    }
}
