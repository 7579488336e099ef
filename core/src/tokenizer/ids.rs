//! The tokens of the numbers of bytes and merges.

use super::fields::half;
use crate::error::Error;

/// In a table of numbers: a token that is neither a byte nor made by a merge.
pub(super) const NONE: u16 = u16::MAX;

/// Tokens of numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ids<'a> {
    /// A number plus this.
    Offset(u32),
    /// By token, its number as `u16`, or [`NONE`].
    Table(&'a [u8]),
}

impl<'a> Ids<'a> {
    /// A table, if every entry is one of `numbers` numbers, or none, and there are as many entries.
    pub(super) fn table(bytes: &'a [u8], numbers: usize) -> Option<Self> {
        let mut known = 0;
        let mut entries = (0..bytes.len() / 2).map(|i| half(bytes, 2 * i));
        let valid = entries.all(|entry| {
            known += (entry != Some(NONE)) as usize;
            entry.is_some_and(|entry| entry == NONE || (entry as usize) < numbers)
        });
        (valid && known == numbers && bytes.len().is_multiple_of(2)).then_some(Self::Table(bytes))
    }

    /// The number of a token, of so many numbers.
    pub(super) fn number(&self, token: u32, numbers: usize) -> Option<u32> {
        match self {
            Self::Offset(offset) => {
                token.checked_sub(*offset).filter(|&number| (number as usize) < numbers)
            }
            Self::Table(bytes) => {
                let number = half(bytes, (token as usize).checked_mul(2)?)?;
                (number != NONE).then_some(number as u32)
            }
        }
    }

    /// The token of a number.
    pub(super) fn token(&self, number: u32) -> Result<u32, Error> {
        match self {
            Self::Offset(offset) => Ok(number + offset),
            Self::Table(bytes) => {
                let mut entries = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]));
                let token = entries.position(|entry| entry as u32 == number);
                token.map(|token| token as u32).ok_or(Error::TokenizerSection)
            }
        }
    }
}
