//! INT4 in groups of 32, two products by one multiplication.
//!
//! A word holds in its low half the nibbles of inputs i, i + 16, i + 1, i + 17, lowest first, and in its high
//! half those of the inputs two further. A nibble is stored as u = w + 8, never negative, but for the uppermost of a half, whose sign bit is
//! flipped first; and
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
#![allow(unsafe_code)]

use core::mem::MaybeUninit;

use super::{BLOCK, LONGEST};
use crate::blob::Tensor;
use crate::kernels::initialized::initialized;

/// Sign bits of the nibbles of a word that are stored without an offset.
#[cfg(not(armv6m))]
pub(super) const SIGNS: u32 = 0x8000_8000;
/// The lowest nibble of each half.
#[cfg(not(armv6m))]
pub(super) const MASK: u32 = 0x000f_000f;
/// Rows that share what is loaded of the vector.
#[cfg(not(armv6m))]
pub(super) const ROWS: usize = 2;

/// Words of a prepared vector for `W` words of a row, a stretch: what its sum starts with, then for each of the
/// row's words the multipliers of it shifted by 8, 4, 12 and 0 bits.
pub(super) const fn stretch(w: usize) -> usize {
    1 + 4 * w
}

/// `second + 2^16 · first`: what a product with weights in both halves has the wanted sum in its upper half of.
#[inline(always)]
fn pair(first: i16, second: i16) -> u32 {
    (second as u32).wrapping_add((first as u32) << 16)
}

/// Multipliers for a word, whose low nibbles belong to the inputs `low` and whose high ones to `high`. Returns
/// the sum of the pairs. Not a part of its callers, which would want more registers than there are.
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

/// Sums of all rows; `W` is 4, a group, or where codes may be beyond 127 half of that.
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
    let mut prepared = [const { MaybeUninit::uninit() }; LONGEST / 16 * stretch(2)];
    let prepared = &mut prepared[..matrix.cols / (8 * W) * stretch(W)];
    let groups = vector.as_chunks::<BLOCK>().0;
    assert!(groups.len() * (4 / W) * stretch(W) == prepared.len());
    for (group, stretches) in groups.iter().zip(prepared.chunks_exact_mut(4 / W * stretch(W))) {
        let (low, high) = group.split_at(BLOCK / 2);
        let mut inputs = low.as_chunks().0.iter().zip(high.as_chunks().0);
        for stretch in stretches.chunks_exact_mut(stretch(W)) {
            let (start, multipliers) = stretch.split_at_mut(1);
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
    // SAFETY: what is taken of the array is whole stretches, of each of which the loops have written the first
    // word and all multipliers: a group has inputs for as many words as its stretches have.
    let prepared = unsafe { initialized(prepared) };
    #[cfg(armv6m)]
    super::armv6m::int4::<W>(matrix, words, prepared, out);
    #[cfg(not(armv6m))]
    rows::<W>(matrix, words, prepared, out);
}

/// The sums of weights times codes of rows that share what is loaded of the vector: a `stretch` of it.
#[cfg(not(armv6m))]
#[inline(always)]
fn dot<const W: usize>(stretch: &[u32], rows: [&[u32; W]; ROWS]) -> [i32; ROWS] {
    #[cfg(armv7m)]
    let sums = super::armv7m::int4(stretch, rows);
    #[cfg(all(swar, target_arch = "riscv32"))]
    let sums = super::riscv32::int4(stretch, rows);
    #[cfg(not(any(armv7m, all(swar, target_arch = "riscv32"))))]
    let sums = rows.map(|words| {
        words.iter().zip(stretch[1..].as_chunks().0).fold(
            stretch[0],
            |sum, (word, &[a, b, c, d])| {
                let x = u32::from_le(*word) ^ SIGNS;
                let parts = [(x >> 8 & MASK, a), (x >> 4 & MASK, b), (x >> 12 & MASK, c), (x, d)];
                parts
                    .into_iter()
                    .fold(sum, |sum, (x, multiplier)| sum.wrapping_add(x.wrapping_mul(multiplier)))
            },
        )
    });
    sums.map(|sum| sum as i32 >> 16)
}

#[cfg(not(armv6m))]
#[inline(always)]
fn rows<const W: usize>(matrix: &Tensor<'_>, words: &[u32], prepared: &[u32], out: &mut [i32]) {
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
        let [a, b] = two_rows::<W>([row(first), row(second)], prepared);
        (out[first], out[second]) = (a, b);
        first += ROWS;
    }
}

#[cfg(not(armv6m))]
#[inline(always)]
fn two_rows<const W: usize>(rows: [(&[u32], &[u8]); ROWS], prepared: &[u32]) -> [i32; ROWS] {
    let mut totals = [0; ROWS];
    // By two groups, as a byte of scales is for two; a row has an even number of them.
    let [a, b] = rows.map(|(words, scales)| words.as_chunks::<8>().0.iter().zip(&scales[2..]));
    let pairs = a.zip(b).zip(prepared.chunks_exact(8 / W * stretch(W)));
    for (((a, &scales_a), (b, &scales_b)), prepared) in pairs {
        let mut sums = [[0; ROWS]; 2];
        let parts = a.as_chunks::<W>().0.iter().zip(b.as_chunks::<W>().0);
        for (part, ((a, b), stretch)) in parts.zip(prepared.chunks_exact(stretch(W))).enumerate() {
            let sums = &mut sums[part * W / 4];
            let [part_a, part_b] = dot(stretch, [a, b]);
            *sums = [sums[0] + part_a, sums[1] + part_b];
        }
        let [first, second] = sums;
        for (r, (total, scales)) in totals.iter_mut().zip([scales_a, scales_b]).enumerate() {
            *total += (scales & 15) as i32 * first[r] + (scales >> 4) as i32 * second[r];
        }
    }
    totals
}
