//! INT4 in groups of 32, two products by one multiplication.
//!
//! The low half of a word holds the nibbles of inputs i, i + 16, i + 1, i + 17, lowest first, its
//! high half those of the inputs two further. A nibble is stored as u = w + 8, not negative, except
//! the highest of a half, whose sign bit is flipped first. With m a mask for the lowest nibble of
//! each half
//!
//! ```text
//! (x & m) · (a[i + 2] + 2^16 · a[i])
//!     =  u[i] · a[i + 2]  +  2^16 · (u[i] · a[i] + u[i + 2] · a[i + 2])
//! ```
//!
//! modulo 2^32. Such products are accumulated; the dot product is in the high half, the low half is
//! not used. It must not overflow: with |a| ≤ 127 it stays within ±16 · 15 · 127 in a group, with a
//! ≤ 255 within 8 · 15 · 255 in half a group, below 2^15 either way, so that an initial value of
//! 2^15 keeps it from borrowing or carrying. The initial value of the high half subtracts the
//! offset of the nibbles, 8 · Σ a. The dot product is at most 8 · 127 · 32 or 8 · 255 · 16 in
//! magnitude: 16 bits with sign.
//!
//! Masking x >> 4, x >> 8 and x >> 12 gives the other three pairs p, q, r. The first pair needs no
//! mask: since x & m = x − 2^4 p − 2^8 q − 2^12 r, x itself is multiplied by the first pair of
//! codes, and the multipliers of the others are corrected.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;

#[cfg(not(thumb1))]
use super::layout::INT4_ROWS as ROWS;
use super::layout::chunk_words;
#[cfg(not(swar))]
use super::layout::{MASK, SIGNS};
use crate::blob::Tensor;
use crate::kernels::shapes::{BLOCK, LONGEST};
use crate::kernels::stack::initialized;

/// `second + 2^16 · first`: the multiplier that leaves the dot product in the high half.
#[inline(always)]
fn pair(first: i16, second: i16) -> u32 {
    (second as u32).wrapping_add((first as u32) << 16)
}

/// Multipliers for a word whose low nibbles belong to the inputs `low` and high nibbles to `high`.
/// Returns the sum of the pairs. Outlined because of register pressure.
#[inline(never)]
fn prepare(low: &[i16; 4], high: &[i16; 4], multipliers: &mut [MaybeUninit<u32>; 4]) -> u32 {
    let plain = pair(low[0], low[2]);
    let parts =
        [(pair(low[1], low[3]), 8), (pair(high[0], high[2]), 4), (pair(high[1], high[3]), 12)];
    multipliers[3].write(plain);
    let mut sum = plain;
    for (multiplier, (pair, shift)) in multipliers.iter_mut().zip(parts) {
        multiplier.write(pair.wrapping_sub(plain << shift));
        sum = sum.wrapping_add(pair);
    }
    sum
}

/// Sums of all rows by chunks of `W` words: 4, a group, or 2 where codes may exceed 127.
///
/// Shapes: `words` are the codes of `matrix`, `vector` is `[cols]`, `out` is `[rows]`.
#[inline(never)]
pub(super) fn sums<const W: usize>(
    matrix: &Tensor<'_>,
    words: &[u32],
    vector: &[i16],
    out: &mut [i32],
) {
    const { assert!(W == 2 || W == 4) };
    let mut prepared = [const { MaybeUninit::uninit() }; LONGEST / 16 * chunk_words(2)];
    let prepared = &mut prepared[..matrix.cols / (8 * W) * chunk_words(W)];
    let groups = vector.as_chunks::<BLOCK>().0;
    assert!(groups.len() * (4 / W) * chunk_words(W) == prepared.len());
    for (group, chunks) in groups.iter().zip(prepared.chunks_exact_mut(4 / W * chunk_words(W))) {
        let (low, high) = group.split_at(BLOCK / 2);
        let mut inputs = low.as_chunks().0.iter().zip(high.as_chunks().0);
        for chunk in chunks.chunks_exact_mut(chunk_words(W)) {
            let (start, multipliers) = chunk.split_at_mut(1);
            let multipliers = multipliers.as_chunks_mut().0.iter_mut().zip(inputs.by_ref());
            let sum = multipliers.fold(0u32, |sum, (multipliers, (low, high))| {
                sum.wrapping_add(prepare(low, high, multipliers))
            });
            // Each half is a sum of codes, at most 16 · 255.
            let second = sum as i16 as i32;
            let first = (sum as i32 - second) >> 16;
            start[0].write((1u32 << 15).wrapping_sub(((first + second) as u32) << 19));
        }
    }
    // SAFETY: the slice is whole chunks; the loops have written the first word and all multipliers
    // of each, since a group has inputs for as many words as its chunks have.
    let prepared = unsafe { initialized(prepared) };
    #[cfg(thumb1)]
    super::thumb1::int4::<W>(matrix, words, prepared, out);
    #[cfg(not(thumb1))]
    rows::<W>(matrix, words, prepared, out);
}

/// Dot products of two rows with a chunk of the vector.
#[cfg(not(thumb1))]
#[inline(always)]
fn dot<const W: usize>(chunk: &[u32], rows: [&[u32; W]; ROWS]) -> [i32; ROWS] {
    #[cfg(all(swar, thumb2))]
    let sums = super::thumb2::int4(chunk, rows);
    #[cfg(all(swar, target_arch = "riscv32"))]
    let sums = super::riscv32::int4(chunk, rows);
    #[cfg(not(swar))]
    let sums = rows.map(|words| {
        words.iter().zip(chunk[1..].as_chunks().0).fold(chunk[0], |sum, (word, &[a, b, c, d])| {
            let x = u32::from_le(*word) ^ SIGNS;
            let parts = [(x >> 8 & MASK, a), (x >> 4 & MASK, b), (x >> 12 & MASK, c), (x, d)];
            parts
                .into_iter()
                .fold(sum, |sum, (x, multiplier)| sum.wrapping_add(x.wrapping_mul(multiplier)))
        })
    });
    sums.map(|sum| sum as i32 >> 16)
}

/// A row: its words and scales.
#[cfg(not(thumb1))]
type Row<'a> = (&'a [u32], &'a [u8]);

#[cfg(not(thumb1))]
#[inline(always)]
fn rows<const W: usize>(matrix: &Tensor<'_>, words: &[u32], prepared: &[u32], out: &mut [i32]) {
    let pairs = prepared.chunks_exact(8 / W * chunk_words(W));
    let last = pairs.remainder();
    by_rows(matrix, words, out, |rows, _| pairs_of_groups::<W>(rows, prepared));
    if !last.is_empty() {
        by_rows(matrix, words, out, |rows, sums| last_group::<W>(rows, last, sums));
    }
}

/// Replaces the sums of two rows at a time by those that `both` returns.
#[cfg(not(thumb1))]
#[inline(always)]
fn by_rows(
    matrix: &Tensor<'_>,
    words: &[u32],
    out: &mut [i32],
    both: impl Fn([Row<'_>; ROWS], [i32; ROWS]) -> [i32; ROWS],
) {
    let layout = matrix.layout();
    let row_words = layout.row_codes / 4;
    let row = |r: usize| {
        let words = &words[r * row_words..][..row_words];
        (words, &matrix.scales[r * layout.row_scales..][..layout.row_scales])
    };
    let mut first = 0;
    while first < out.len() {
        // An odd last row is paired with itself.
        let second = (first + 1).min(out.len() - 1);
        let [a, b] = both([row(first), row(second)], [out[first], out[second]]);
        (out[first], out[second]) = (a, b);
        first += ROWS;
    }
}

/// Sums over the pairs of groups, which share a byte of scales.
#[cfg(not(thumb1))]
#[inline(always)]
fn pairs_of_groups<const W: usize>(rows: [Row<'_>; ROWS], prepared: &[u32]) -> [i32; ROWS] {
    let mut totals = [0; ROWS];
    let [a, b] = rows.map(|(words, scales)| words.as_chunks::<8>().0.iter().zip(&scales[2..]));
    let pairs = a.zip(b).zip(prepared.chunks_exact(8 / W * chunk_words(W)));
    for (((a, &scales_a), (b, &scales_b)), prepared) in pairs {
        let mut sums = [[0; ROWS]; 2];
        let parts = a.as_chunks::<W>().0.iter().zip(b.as_chunks::<W>().0);
        for (part, ((a, b), chunk)) in parts.zip(prepared.chunks_exact(chunk_words(W))).enumerate()
        {
            let sums = &mut sums[part * W / 4];
            let [part_a, part_b] = dot(chunk, [a, b]);
            *sums = [sums[0] + part_a, sums[1] + part_b];
        }
        let [first, second] = sums;
        for (r, (total, scales)) in totals.iter_mut().zip([scales_a, scales_b]).enumerate() {
            *total += (scales & 15) as i32 * first[r] + (scales >> 4) as i32 * second[r];
        }
    }
    totals
}

/// Adds the last of an odd number of groups.
#[cfg(not(thumb1))]
#[inline(always)]
fn last_group<const W: usize>(
    rows: [Row<'_>; ROWS],
    prepared: &[u32],
    [mut sum_a, mut sum_b]: [i32; ROWS],
) -> [i32; ROWS] {
    let [(a, scale_a), (b, scale_b)] = rows.map(|(words, scales)| {
        let scale = scales.last().map_or(0, |scales| (scales & 15) as i32);
        (words.as_chunks::<8>().1, scale)
    });
    let parts = a.as_chunks::<W>().0.iter().zip(b.as_chunks::<W>().0);
    for ((a, b), chunk) in parts.zip(prepared.chunks_exact(chunk_words(W))) {
        let [part_a, part_b] = dot(chunk, [a, b]);
        (sum_a, sum_b) = (sum_a + scale_a * part_a, sum_b + scale_b * part_b);
    }
    [sum_a, sum_b]
}
