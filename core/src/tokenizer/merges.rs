//! Byte-pair encoding from tables in the blob.
//!
//! Inside of this module tokens have *numbers*: below 256 those of bytes, then 256 + i that of
//! merge i. A merge refers only to lower numbers, so one pass over the merges in order of rank,
//! each applied from left to right, gives the result of the usual priority queue without extra
//! memory.

use heapless::Vec;

use super::{MAX_TEXT_BYTES, MAX_TOKEN_BYTES};
use crate::blob::pair_u16;
use crate::error::Error;

/// Bytes of the table of bytes.
pub(super) const BYTES: usize = 512;

/// The numbers of bytes, and the pair of numbers of each merge by rank.
#[derive(Clone, Copy, Debug)]
pub(super) struct Merges<'a> {
    bytes: &'a [u8],
    pairs: &'a [u8],
}

impl<'a> Merges<'a> {
    /// Validates the tables: 256 `u16`, the number of each byte, and two `u16` per merge. There may
    /// be at most `most` numbers.
    pub(super) fn new(tables: &'a [u8], most: usize) -> Result<Self, Error> {
        if tables.len() < BYTES || !(tables.len() - BYTES).is_multiple_of(4) {
            return Err(Error::TokenizerSection);
        }
        let (bytes, pairs) = tables.split_at(BYTES);
        let mut seen = [false; 256];
        for byte in 0..256 {
            let number = pair_u16(bytes, byte) as usize;
            if number >= 256 || core::mem::replace(&mut seen[number], true) {
                return Err(Error::TokenizerSection);
            }
        }
        let merges = Self { bytes, pairs };
        let ordered = (0..merges.count()).all(|rank| {
            let (left, right) = merges.pair(rank);
            (left.max(right) as usize) < 256 + rank
        });
        if !ordered || merges.numbers() > most {
            return Err(Error::TokenizerSection);
        }
        let mut left = MAX_TEXT_BYTES - 256;
        for number in 256..merges.numbers() {
            let mut len = 0;
            merges.walk(number as u32, |_| len += 1)?;
            let limit = MAX_TEXT_BYTES;
            left = left.checked_sub(len).ok_or(Error::TokenizerText { limit })?;
        }
        Ok(merges)
    }

    /// Number of merges.
    pub(super) fn count(&self) -> usize {
        self.pairs.len() / 4
    }

    /// Number of bytes and merges.
    pub(super) fn numbers(&self) -> usize {
        256 + self.count()
    }

    /// The numbers that a merge joins.
    pub(super) fn pair(&self, rank: usize) -> (u32, u32) {
        (pair_u16(self.pairs, 2 * rank) as u32, pair_u16(self.pairs, 2 * rank + 1) as u32)
    }

    /// The number of a byte.
    pub(super) fn of_byte(&self, byte: u8) -> u32 {
        pair_u16(self.bytes, byte as usize) as u32
    }

    /// The byte that a number begins with, as its number.
    pub(super) fn first(&self, mut number: u32) -> u32 {
        while number >= 256 {
            number = self.pair(number as usize - 256).0;
        }
        number
    }

    /// Calls `each` with the bytes of a number.
    pub(super) fn decode(&self, number: u32, mut each: impl FnMut(u8)) -> Result<(), Error> {
        self.walk(number, |first| {
            let byte = (0..=255u8).find(|&byte| self.of_byte(byte) == first);
            each(byte.unwrap_or(0));
        })
    }

    /// Calls `each` with the numbers of the bytes of `number`, from left to right. Fails for one of
    /// more than [`MAX_TOKEN_BYTES`], after at most that many calls.
    fn walk(&self, mut number: u32, mut each: impl FnMut(u32)) -> Result<(), Error> {
        // Everything pending is at least a byte, so the capacity suffices for allowed tokens.
        let mut pending: Vec<u16, MAX_TOKEN_BYTES> = Vec::new();
        for _ in 0..MAX_TOKEN_BYTES {
            while number >= 256 {
                let (left, right) = self.pair(number as usize - 256);
                pending.push(right as u16).map_err(|_| Error::TokenizerSection)?;
                number = left;
            }
            each(number);
            match pending.pop() {
                Some(next) => number = next as u32,
                None => return Ok(()),
            }
        }
        Err(Error::TokenizerSection)
    }

    /// Encodes a piece; `numbers` has as many elements as it has bytes. Returns how many numbers
    /// are at the front then.
    pub(super) fn encode(&self, piece: &[u8], numbers: &mut [u32]) -> usize {
        for (number, &byte) in numbers.iter_mut().zip(piece) {
            *number = self.of_byte(byte);
        }
        let mut count = piece.len();
        for rank in 0..self.count() {
            if count < 2 {
                break;
            }
            let (left, right) = self.pair(rank);
            let (mut read, mut write) = (0, 0);
            while read < count {
                let joined =
                    numbers[read] == left && read + 1 < count && numbers[read + 1] == right;
                numbers[write] = if joined { 256 + rank as u32 } else { numbers[read] };
                read += if joined { 2 } else { 1 };
                write += 1;
            }
            count = write;
        }
        count
    }
}
