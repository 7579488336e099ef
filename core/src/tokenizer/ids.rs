//! The tokens of the numbers of bytes and merges.

use crate::blob::pair_u16;
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
        for token in 0..bytes.len() / 2 {
            let entry = pair_u16(bytes, token);
            match entry {
                NONE => {}
                entry if (entry as usize) < numbers => known += 1,
                _ => return None,
            }
        }
        (known == numbers).then_some(Self::Table(bytes))
    }

    /// The number of a token, of so many numbers.
    pub(super) fn number(&self, token: u32, numbers: usize) -> Option<u32> {
        match self {
            Self::Offset(offset) => {
                token.checked_sub(*offset).filter(|&number| (number as usize) < numbers)
            }
            // A table is no longer than the vocabulary.
            Self::Table(bytes) if token as usize >= bytes.len() / 2 => None,
            Self::Table(bytes) => {
                let number = pair_u16(bytes, token as usize);
                (number != NONE).then_some(number as u32)
            }
        }
    }

    /// The token of a number.
    pub(super) fn token(&self, number: u32) -> Result<u32, Error> {
        match self {
            Self::Offset(offset) => Ok(number + offset),
            Self::Table(bytes) => {
                let mut tokens = 0..bytes.len() / 2;
                let token = tokens.find(|&token| pair_u16(bytes, token) as u32 == number);
                token.map(|token| token as u32).ok_or(Error::TokenizerSection)
            }
        }
    }
}
