//! INT4 in groups of 32, two products by one multiplication.
//!
//! A word holds in its low half the nibbles of inputs i, i + 16, i + 1, i + 17, lowest first, and in its high
//! half those of the inputs two further. With the sign bits flipped a nibble is u = w + 8, never negative, and
//! with m a mask for the lowest nibble of each half
//!
//! ```text
//! (x & m) · (a[i + 2] + 2^16 · a[i])  =  u[i] · a[i + 2]  +  2^16 · (u[i] · a[i] + u[i + 2] · a[i + 2])
//! ```
//!
//! modulo 2^32. Such products are added up; the upper half is the sum that is wanted, the lower one is not
//! looked at. It must not run over: with |a| ≤ 127 it stays within ±16 · 15 · 127 in a group, with a ≤ 255
//! within 8 · 15 · 255 in half of one, below 2^15 either way, so that 2^15 at the start keeps it from
//! borrowing or carrying. What nibbles are too large by, 8 · Σ a, is taken from the upper half at the start as
//! well. The sum itself is at most 8 · 127 · 32 or 8 · 255 · 16 in magnitude: 16 bits, sign included.
//!
//! Masking x >> 4, x >> 8 and x >> 12 gives the other three pairs p, q, r. The first needs no mask:
//! x & m = x − 2^4 p − 2^8 q − 2^12 r, so multiplying x itself by the first pair of codes is put right by taking
//! as much from the multipliers of the others.

use super::{BLOCK, LONGEST, in_order};
use crate::blob::Tensor;
#[cfg(not(armv6m))]
use crate::kernels::portable::group_scale;

/// Sign bits of the nibbles of a word.
#[cfg(not(armv6m))]
pub(super) const SIGNS: u32 = 0x8888_8888;
/// The lowest nibble of each half.
#[cfg(not(armv6m))]
pub(super) const MASK: u32 = 0x000f_000f;
/// Rows that share what is loaded of the vector.
#[cfg(not(armv6m))]
pub(super) const ROWS: usize = 2;

/// `W` words of a row times their inputs: a group, or half of one.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Stretch<const W: usize> {
    /// What its sum starts with.
    pub(super) start: u32,
    /// Multipliers of a word shifted by 8, 4, 12 and 0 bits.
    multipliers: [[u32; 4]; W],
}

impl<const W: usize> Stretch<W> {
    const ZERO: Self = Self { start: 0, multipliers: [[0; 4]; W] };

    /// The stretch of the inputs of a group whose first word is `first`.
    #[inline(always)]
    fn new(codes: &[i16; BLOCK], first: usize) -> Self {
        let mut stretch = Self::ZERO;
        let mut sum = 0i32;
        for (j, multipliers) in stretch.multipliers.iter_mut().enumerate() {
            let mut pair = |i: usize| {
                let (low, high) = (codes[i] as i32, codes[i + 2] as i32);
                sum += low + high;
                (high as u32).wrapping_add((low as u32) << 16)
            };
            let i = 4 * (first + j);
            let plain = pair(i);
            let less = |other: u32, shift: u32| other.wrapping_sub(plain << shift);
            *multipliers =
                [less(pair(i + 1), 8), less(pair(i + 16), 4), less(pair(i + 17), 12), plain];
            in_order();
        }
        stretch.start = (1u32 << 15).wrapping_sub((sum as u32) << 19);
        stretch
    }

    /// The sums of weights times codes of rows that share what is loaded of the vector.
    #[cfg(not(armv6m))]
    #[inline(always)]
    fn dot(&self, rows: [&[u32; W]; ROWS]) -> [i32; ROWS] {
        #[cfg(armv7m)]
        let sums = super::armv7m::int4(self, rows);
        #[cfg(all(swar, target_arch = "riscv32"))]
        let sums = super::riscv32::int4(self, rows);
        #[cfg(not(any(armv7m, all(swar, target_arch = "riscv32"))))]
        let sums = rows.map(|words| {
            words.iter().zip(&self.multipliers).fold(self.start, |sum, (word, &[a, b, c, d])| {
                let x = u32::from_le(*word) ^ SIGNS;
                let parts = [(x >> 8 & MASK, a), (x >> 4 & MASK, b), (x >> 12 & MASK, c), (x, d)];
                parts.into_iter().fold(sum, |sum, (x, multiplier)| {
                    sum.wrapping_add(x.wrapping_mul(multiplier))
                })
            })
        });
        sums.map(|sum| sum as i32 >> 16)
    }
}

/// Sums of all rows; `W` is 4, or 2 where codes may be beyond 127.
///
/// Shapes: `words` are the codes of `matrix`, `vector` is `[cols]`, `out` is `[rows]`.
#[inline(never)]
pub(super) fn sums<const W: usize>(
    matrix: &Tensor<'_>,
    words: &[u32],
    vector: &[i16],
    out: &mut [i32],
) {
    // Two stretches of two words are no smaller than one of four, but for their starts.
    let mut stretches = [[Stretch::<W>::ZERO; 2]; LONGEST / BLOCK];
    let stretches = stretches.as_flattened_mut();
    let stretches = &mut stretches[..matrix.cols / (8 * W)];
    let groups = vector.as_chunks::<BLOCK>().0;
    for (group, stretches) in groups.iter().zip(stretches.chunks_exact_mut(4 / W)) {
        for (part, stretch) in stretches.iter_mut().enumerate() {
            *stretch = Stretch::new(group, W * part);
        }
    }
    #[cfg(armv6m)]
    super::armv6m::int4(matrix, words, stretches, out);
    #[cfg(not(armv6m))]
    rows(matrix, words, stretches, out);
}

#[cfg(not(armv6m))]
#[inline(always)]
fn rows<const W: usize>(
    matrix: &Tensor<'_>,
    words: &[u32],
    stretches: &[Stretch<W>],
    out: &mut [i32],
) {
    let layout = matrix.layout();
    let row_words = layout.row_codes / 4;
    let row = |r: usize| {
        let words = &words[r * row_words..][..row_words];
        (words, &matrix.scales[r * layout.row_scales..][..layout.row_scales])
    };
    let mut first = 0;
    while first < out.len() {
        // The last row of an odd number is its own partner.
        let second = (first + 1).min(out.len() - 1);
        let [a, b] = dot([row(first), row(second)], stretches);
        (out[first], out[second]) = (a, b);
        first += ROWS;
    }
}

#[cfg(not(armv6m))]
#[inline(always)]
fn dot<const W: usize>(rows: [(&[u32], &[u8]); ROWS], stretches: &[Stretch<W>]) -> [i32; ROWS] {
    let mut totals = [0; ROWS];
    let [a, b] = rows.map(|(words, _)| words.as_chunks::<4>().0);
    let groups = a.iter().zip(b).zip(stretches.chunks_exact(4 / W));
    for (g, ((a, b), stretches)) in groups.enumerate() {
        let mut sums = [0; ROWS];
        let parts = a.as_chunks::<W>().0.iter().zip(b.as_chunks::<W>().0);
        for ((a, b), stretch) in parts.zip(stretches) {
            let [part_a, part_b] = stretch.dot([a, b]);
            sums = [sums[0] + part_a, sums[1] + part_b];
        }
        for ((total, sum), (_, scales)) in totals.iter_mut().zip(sums).zip(rows) {
            *total += group_scale(scales, g) * sum;
        }
    }
    totals
}
