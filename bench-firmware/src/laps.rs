//! Where a token's instructions go: the counter, read between the pieces of a session.

use resnet_bk_core::Piece;

use crate::machine::Moment;

/// Instructions by kind of piece. Each lap begins where the one before ended, so nothing is left
/// out and the sum is as exact as one measurement.
pub struct Laps {
    last: Moment,
    kinds: [Kind; Piece::ALL.len()],
}

/// All pieces of one kind.
#[derive(Clone, Copy, Default)]
pub struct Kind {
    /// Instructions in all.
    pub total: u64,
    /// Instructions of the longest one.
    pub longest: u64,
}

impl Laps {
    /// None yet.
    pub fn new() -> Self {
        Self { last: Moment::now(), kinds: [Kind::default(); Piece::ALL.len()] }
    }

    /// Begins a lap.
    pub fn begin(&mut self) {
        self.last = Moment::now();
    }

    /// Ends a lap, which computed this piece, and begins the next.
    pub fn lap(&mut self, piece: Piece) {
        let now = Moment::now();
        let instructions = self.last.instructions_until(now);
        let kind = &mut self.kinds[piece as usize];
        kind.total += instructions;
        kind.longest = kind.longest.max(instructions);
        self.last = now;
    }

    /// Every kind of piece.
    pub fn kinds(&self) -> impl Iterator<Item = (Piece, Kind)> {
        Piece::ALL.into_iter().zip(self.kinds)
    }
}

impl Default for Laps {
    fn default() -> Self {
        Self::new()
    }
}
