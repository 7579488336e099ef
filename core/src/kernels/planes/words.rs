//! Rows as words of codes, for any way to multiply a unit.

use super::units::{UNIT, Unit};
use crate::blob::{Precision, Tensor};
use crate::kernels::portable::group_scale;
use crate::kernels::requantize::requantize;
use crate::numeric::Scale;

/// Products with a unit's words.
pub(super) trait Words {
    /// Sum of a unit whose codes are nibbles.
    fn nibbles(unit: &Unit, words: [u32; 2]) -> i32;

    /// Sum of a unit whose codes are nibbles times 2^`SHIFT` plus lower ones.
    fn bytes<const SHIFT: u32>(unit: &Unit, upper: [u32; 2], lower: [u32; 2]) -> i32;
}

/// See [`super::units::Pairs::multiply`].
#[inline(always)]
pub(super) fn multiply<P: Words>(
    matrix: &Tensor<'_>,
    scale: Scale,
    units: &[Unit],
    out: &mut [i32],
) -> bool {
    match (matrix.precision, matrix.group) {
        (Precision::Int2, 16) => sums::<P, 2, 1>(matrix, units, out),
        (Precision::Int2, _) => sums::<P, 2, 2>(matrix, units, out),
        (Precision::Int3, 16) => sums::<P, 3, 1>(matrix, units, out),
        (Precision::Int3, _) => sums::<P, 3, 2>(matrix, units, out),
        (Precision::Int4, 16) => sums::<P, 4, 1>(matrix, units, out),
        (Precision::Int4, _) => sums::<P, 4, 4>(matrix, units, out),
        (Precision::Int5, _) => sums::<P, 5, 2>(matrix, units, out),
        _ => sums::<P, 6, 2>(matrix, units, out),
    }
    requantize(matrix, scale, out);
    true
}

/// Sums of all rows of `BITS` bits with `UNITS` units to a group.
#[inline(never)]
fn sums<P: Words, const BITS: u32, const UNITS: usize>(
    matrix: &Tensor<'_>,
    units: &[Unit],
    out: &mut [i32],
) {
    let layout = matrix.layout();
    let words: &[u32] = bytemuck::cast_slice(matrix.codes);
    let rows = words.chunks_exact(layout.row_codes / 4);
    let scales = matrix.scales.chunks_exact(layout.row_scales);
    // A unit is one word of 2-bit codes or two of 4-bit codes.
    let upper = if BITS < 4 { units.len() } else { 2 * units.len() };
    assert!(units.len() * UNIT == matrix.cols);
    for ((out, row), scales) in out.iter_mut().zip(rows).zip(scales) {
        let (upper, lower) = row.split_at(upper);
        *out = self::row::<P, BITS, UNITS>(units, scales, upper, lower);
    }
}

/// Sum of a row of `BITS` bits with `UNITS` units to a group.
///
/// Shapes: `units` are those of the row, `upper` and `lower` its planes.
#[inline(always)]
fn row<P: Words, const BITS: u32, const UNITS: usize>(
    units: &[Unit],
    scales: &[u8],
    upper: &[u32],
    lower: &[u32],
) -> i32 {
    let groups = units.as_chunks::<UNITS>().0.iter().enumerate();
    let by_word = groups.clone().zip(upper.as_chunks::<UNITS>().0);
    let by_two_words = groups.zip(upper.as_chunks::<UNITS>().0.as_chunks::<2>().0);
    let scaled = |g: usize, sum: i32| group_scale(scales, g) * sum;
    match BITS {
        2 => by_word.map(|((g, units), words)| scaled(g, int2::<P, UNITS>(units, words))).sum(),
        3 => by_word
            .map(|((g, units), words)| {
                scaled(g, int3::<P, UNITS>(units, words, ones::<UNITS>(lower, g)))
            })
            .sum(),
        4 => {
            by_two_words.map(|((g, units), words)| scaled(g, int4::<P, UNITS>(units, words))).sum()
        }
        5 => by_two_words
            .map(|((g, units), words)| {
                scaled(g, int5::<P, UNITS>(units, words, ones::<UNITS>(lower, g)))
            })
            .sum(),
        _ => by_two_words
            .zip(lower.as_chunks::<UNITS>().0)
            .map(|(((g, units), words), lower)| scaled(g, int6::<P, UNITS>(units, words, lower)))
            .sum(),
    }
}

/// Words of nibbles from a word of 2-bit fields.
#[inline(always)]
fn twos(word: u32) -> [u32; 2] {
    [word & 0x3333_3333, word >> 2 & 0x3333_3333]
}

/// The 1-bit plane of group `g`: the first unit's fields in the places of [`nibbles_of_ones`], the
/// second unit's one bit higher.
#[inline(always)]
fn ones<const UNITS: usize>(plane: &[u32], g: usize) -> u32 {
    if UNITS == 2 {
        return u32::from_le(plane[g]);
    }
    // A half word, whose odd bits belong 16 bits higher.
    let half = u32::from_le(plane[g / 2]) >> (16 * (g % 2)) & 0xffff;
    half | half << 15
}

/// Words of nibbles from the fields that [`ones`] returns.
#[inline(always)]
fn nibbles_of_ones(word: u32) -> [u32; 2] {
    [word & 0x1111_1111, word >> 2 & 0x1111_1111]
}

#[inline(always)]
fn int2<P: Words, const UNITS: usize>(units: &[Unit; UNITS], words: &[u32; UNITS]) -> i32 {
    let parts = units.iter().zip(words);
    parts.map(|(unit, word)| P::nibbles(unit, twos(u32::from_le(*word) ^ 0xaaaa_aaaa))).sum()
}

#[inline(always)]
fn int3<P: Words, const UNITS: usize>(
    units: &[Unit; UNITS],
    words: &[u32; UNITS],
    lower: u32,
) -> i32 {
    let parts = units.iter().zip(words).enumerate();
    parts
        .map(|(m, (unit, word))| {
            let [a, b] = twos(u32::from_le(*word) ^ 0xaaaa_aaaa);
            let [lower_a, lower_b] = nibbles_of_ones(lower >> m);
            P::nibbles(unit, [a << 1 | lower_a, b << 1 | lower_b])
        })
        .sum()
}

#[inline(always)]
fn int4<P: Words, const UNITS: usize>(units: &[Unit; UNITS], words: &[[u32; UNITS]; 2]) -> i32 {
    // Stored with an offset except for the highest nibble of each half.
    let parts = units.iter().zip(words[0]).zip(words[1]);
    parts
        .map(|((unit, a), b)| P::nibbles(unit, [a, b].map(|word| u32::from_le(word) ^ 0x8000_8000)))
        .sum()
}

#[inline(always)]
fn int5<P: Words, const UNITS: usize>(
    units: &[Unit; UNITS],
    words: &[[u32; UNITS]; 2],
    lower: u32,
) -> i32 {
    let parts = units.iter().zip(words[0]).zip(words[1]).enumerate();
    parts
        .map(|(m, ((unit, a), b))| P::bytes::<1>(unit, signed([a, b]), nibbles_of_ones(lower >> m)))
        .sum()
}

#[inline(always)]
fn int6<P: Words, const UNITS: usize>(
    units: &[Unit; UNITS],
    words: &[[u32; UNITS]; 2],
    lower: &[u32; UNITS],
) -> i32 {
    let parts = units.iter().zip(words[0]).zip(words[1]).zip(lower);
    parts
        .map(|(((unit, a), b), lower)| {
            P::bytes::<2>(unit, signed([a, b]), twos(u32::from_le(*lower)))
        })
        .sum()
}

/// Words of two's complement nibbles, offset by 8.
#[inline(always)]
fn signed(words: [u32; 2]) -> [u32; 2] {
    words.map(|word| u32::from_le(word) ^ 0x8888_8888)
}
