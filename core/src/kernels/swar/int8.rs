//! INT8, four rows at a time where loads extend signs, else four weights of a word by shifts.

#[cfg(armv6m)]
use core::mem::MaybeUninit;

#[cfg(armv6m)]
use super::LONGEST;
use crate::blob::Tensor;

/// Rows that share what is loaded of the vector.
#[cfg(not(armv6m))]
pub(super) const ROWS: usize = 4;
/// Inputs that are taken at a time.
#[cfg(not(armv6m))]
pub(super) const ROUND: usize = 16;

/// Sums of all rows. Shapes: `vector` is `[cols]`, `out` is `[rows]`.
#[cfg(not(armv6m))]
#[inline(never)]
pub(super) fn sums(matrix: &Tensor<'_>, _: &[u32], vector: &[i16], out: &mut [i32]) {
    let row = |r: usize| &matrix.codes[r * matrix.cols..][..matrix.cols];
    // Codes at even places are stored as w + 128.
    let start = -128 * vector.iter().step_by(2).map(|&code| code as i32).sum::<i32>();
    let mut first = 0;
    while first < out.len() {
        // Rows that a last block lacks are its last one again.
        let rows = [0, 1, 2, 3].map(|r| row((first + r).min(out.len() - 1)));
        let sums = dot(rows, vector, start);
        let left = &mut out[first..];
        let count = left.len().min(ROWS);
        left[..count].copy_from_slice(&sums[..count]);
        first += ROWS;
    }
}

#[cfg(not(armv6m))]
#[inline(always)]
fn dot(rows: [&[u8]; ROWS], vector: &[i16], start: i32) -> [i32; ROWS] {
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<ROUND>().0);
    let rounds = a.iter().zip(b).zip(c).zip(d).zip(vector.as_chunks::<ROUND>().0);
    rounds.fold([start; ROWS], |sums, ((((a, b), c), d), codes)| round([a, b, c, d], codes, sums))
}

#[cfg(armv7m)]
use super::armv7m::int8 as round;
#[cfg(all(swar, target_arch = "riscv32"))]
use super::riscv32::int8 as round;

/// Adds the products of a round of inputs with the codes as they are stored.
#[cfg(not(any(armv6m, armv7m, all(swar, target_arch = "riscv32"))))]
#[inline(always)]
fn round(rows: [&[u8; ROUND]; ROWS], codes: &[i16; ROUND], mut sums: [i32; ROWS]) -> [i32; ROWS] {
    for (i, &code) in codes.iter().enumerate() {
        for (sum, weights) in sums.iter_mut().zip(rows) {
            let weight = if i % 2 == 0 { weights[i] as i32 } else { weights[i] as i8 as i32 };
            *sum += weight * code as i32;
        }
    }
    sums
}

/// A vector for words of four weights. With the sign bits flipped that are stored as they are, a word is
/// x = Σ 2^(8k) · u[k] with u = w + 128 not negative, and x >> 8k is 2^8 · (x >> 8(k + 1)) + u[k]. So
///
/// ```text
/// Σ u[k] · a[k]  =  x · a[0]  +  Σ_{k > 0} (x >> 8k) · (a[k] − 2^8 · a[k − 1])
/// ```
///
/// modulo 2^32, and no byte has to be cut out of its word. 128 · Σ a is taken from every sum at its start.
#[cfg(armv6m)]
#[repr(C)]
pub(super) struct Prepared {
    /// What sums start with.
    start: u32,
    /// Multipliers of a word shifted by 8, 16, 24 and 0 bits, of as many words as a row has.
    multipliers: [MaybeUninit<[u32; 4]>; LONGEST / 4],
}

/// Sums of all rows. Shapes: `words` are the codes of `matrix`, `vector` is `[cols]`, `out` is `[rows]`.
#[cfg(armv6m)]
#[inline(never)]
pub(super) fn sums(matrix: &Tensor<'_>, words: &[u32], vector: &[i16], out: &mut [i32]) {
    // Filled where it lies: it is the largest thing on the stack.
    let mut prepared =
        Prepared { start: 0, multipliers: [const { MaybeUninit::uninit() }; LONGEST / 4] };
    let mut sum = 0;
    for (multipliers, codes) in prepared.multipliers.iter_mut().zip(vector.as_chunks::<4>().0) {
        let [a, b, c, d] = codes.map(|code| code as i32);
        multipliers.write([b - (a << 8), c - (b << 8), d - (c << 8), a].map(|m| m as u32));
        sum += a + b + c + d;
    }
    prepared.start = 0u32.wrapping_sub((sum as u32) << 7);
    super::armv6m::int8(matrix, words, &prepared, out);
}
