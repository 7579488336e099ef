//! How the loops of every core expect a prepared vector and take rows.

#[cfg(thumb1)]
use core::mem::MaybeUninit;

#[cfg(thumb1)]
use crate::kernels::shapes::LONGEST;

/// Sign bits of the nibbles of a word that are stored without an offset.
#[cfg(not(thumb1))]
pub(super) const SIGNS: u32 = 0x8000_8000;
/// The lowest nibble of each half.
#[cfg(not(thumb1))]
pub(super) const MASK: u32 = 0x000f_000f;
/// Rows of INT4 that share the loads of the vector.
#[cfg(not(thumb1))]
pub(super) const INT4_ROWS: usize = 2;
/// Rows of INT8 that share the loads of the vector.
#[cfg(not(thumb1))]
pub(super) const INT8_ROWS: usize = 4;
/// Inputs of INT8 per round.
#[cfg(not(thumb1))]
pub(super) const INT8_ROUND: usize = 16;

/// Words of a prepared INT4 vector per chunk of `w` words of a row: the initial value of the sum,
/// then for each word of the row four multipliers, of the word shifted right by 8, 4, 12 and 0
/// bits.
pub(super) const fn chunk_words(w: usize) -> usize {
    1 + 4 * w
}

/// An INT8 vector for words of four weights. With the sign bits flipped that are stored without an
/// offset, a word is x = Σ 2^(8k) · u[k] with u = w + 128 not negative, and x >> 8k is 2^8 · (x >>
/// 8(k + 1)) + u[k]. So
///
/// ```text
/// Σ u[k] · a[k]  =  x · a[0]  +  Σ_{k > 0} (x >> 8k) · (a[k] − 2^8 · a[k − 1])
/// ```
///
/// modulo 2^32, without extracting any byte. The initial value of every sum subtracts 128 · Σ a.
#[cfg(thumb1)]
#[repr(C)]
pub(super) struct Prepared {
    /// Initial value of sums.
    pub(super) start: u32,
    /// Multipliers of a word shifted right by 8, 16, 24 and 0 bits, for each word of a row.
    pub(super) multipliers: [MaybeUninit<[u32; 4]>; LONGEST / 4],
}
