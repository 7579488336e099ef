//! Instructions per kind of piece: the counter is read between the pieces of a token.

use resnet_bk_core::Piece;

use crate::machine::Moment;

/// Instructions per kind of piece. Each lap begins where the previous one ended, so nothing is
/// missed and the sum is as exact as a single measurement.
pub struct Laps {
    last: Moment,
    kinds: [Kind; Piece::ALL.len()],
}

/// Totals for one kind of piece.
#[derive(Clone, Copy, Default)]
pub struct Kind {
    /// Total instructions.
    pub total: u64,
    /// Instructions of the longest piece.
    pub longest: u64,
}

impl Laps {
    /// No laps yet.
    pub fn new() -> Self {
        Self { last: Moment::now(), kinds: [Kind::default(); Piece::ALL.len()] }
    }

    /// Begins a lap.
    pub fn begin(&mut self) {
        self.last = Moment::now();
    }

    /// Ends the lap that computed `piece` and begins the next one.
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
