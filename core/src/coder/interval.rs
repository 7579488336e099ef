//! The interval of a range coder, and the code of the end at each of its positions.
//!
//! A code is a number in [0, 1): its bytes are the digits, base 256. Each token narrows the
//! interval to its share, and the code of a message is a string of bytes in the interval that its
//! tokens leave. Which one tells the end: after every token, the message that ends there gets the
//! shortest string that no message of fewer tokens has. An end costs no symbol, and the number of
//! bytes says where it is.

use crate::numeric::shares::{Share, TOTAL_BITS};

/// Bits of the window: the digits of the interval's bounds that can still change.
pub(super) const WINDOW: u32 = 56;
/// Digits in the window.
const DIGITS: u32 = WINDOW / 8;
/// A digit leaves the window when the range falls below this.
const LEAST: u64 = 1 << (WINDOW - 8);
const ONE: u64 = 1 << WINDOW;

/// The interval that the tokens so far leave, in a window of seven digits behind `shifted` others.
#[derive(Clone, Debug)]
pub(super) struct Interval {
    /// Its lower bound in the window, below 2^56.
    low: u64,
    /// Its length, at most 2^56; at least 2^48 once the digits have been shifted out.
    range: u64,
    /// Digits that left the window.
    shifted: usize,
    /// Digits of the window that the next code has.
    digits: u32,
    /// The least value that no code of this length has yet.
    free: u64,
}

/// The code of an end: a string of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Its length.
    pub(super) len: usize,
    /// Its last bytes as digits of the window; 2^56 or more where it carries.
    pub(super) value: u64,
}

impl Interval {
    /// Everything.
    pub(super) const fn whole() -> Self {
        Self { low: 0, range: ONE, shifted: 0, digits: 0, free: 0 }
    }

    pub(super) fn low(&self) -> u64 {
        self.low
    }

    /// Digits that left the window.
    pub(super) fn shifted(&self) -> usize {
        self.shifted
    }

    /// The point of a value in the window, in units of shares; 2^24 or more if it lies in no share.
    pub(super) fn point(&self, value: u64) -> u64 {
        value.wrapping_sub(self.low) / (self.range >> TOTAL_BITS)
    }

    /// Narrows the interval to a share of it. Returns whether the digits before the window
    /// increase by one.
    pub(super) fn narrow(&mut self, share: Share) -> bool {
        let unit = self.range >> TOTAL_BITS;
        self.low += unit * u64::from(share.start);
        self.range = unit * u64::from(share.size);
        let carries = self.low >= ONE;
        if carries {
            self.low -= ONE;
            self.free = self.free.saturating_sub(ONE);
        }
        // Codes above the interval will never be in it again.
        self.free = self.free.min(self.low + self.range);
        carries
    }

    /// Shifts the first digit out of the window if it is settled, but for a carry.
    pub(super) fn shift(&mut self) -> Option<u8> {
        if self.range >= LEAST {
            return None;
        }
        let first = self.low & !(LEAST - 1);
        self.low = (self.low - first) << 8;
        self.range <<= 8;
        self.free = self.free.saturating_sub(first) << 8;
        self.shifted += 1;
        match self.digits.checked_sub(1) {
            Some(digits) => self.digits = digits,
            // The codes before were shorter.
            None => self.free = 0,
        }
        Some((first >> (WINDOW - 8)) as u8)
    }

    /// The code of a message that ends here, which no other message then has. `None` after more
    /// than 2^48 tokens that took no digit.
    pub(super) fn end(&mut self) -> Option<End> {
        while self.digits <= DIGITS {
            let unit = 1u64 << (WINDOW - 8 * self.digits);
            let value = self.free.max(self.low).next_multiple_of(unit);
            if value < self.low + self.range {
                self.free = value + unit;
                return Some(End { len: self.shifted + self.digits as usize, value });
            }
            (self.digits, self.free) = (self.digits + 1, 0);
        }
        None
    }
}
