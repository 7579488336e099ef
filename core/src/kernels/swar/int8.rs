//! INT8: four rows at a time where loads extend signs, else the four weights of a word by shifts.

#[cfg(thumb1)]
use core::mem::MaybeUninit;

#[cfg(thumb1)]
use super::layout::Prepared;
#[cfg(not(thumb1))]
use super::layout::{INT8_ROUND as ROUND, INT8_ROWS as ROWS};
use crate::blob::Tensor;
#[cfg(thumb1)]
use crate::kernels::shapes::LONGEST;

/// Sums of all rows. Shapes: `vector` is `[cols]`, `out` is `[rows]`.
#[cfg(not(thumb1))]
#[inline(never)]
pub(super) fn sums(matrix: &Tensor<'_>, _: &[u32], vector: &[i16], out: &mut [i32]) {
    let row = |r: usize| &matrix.codes[r * matrix.cols..][..matrix.cols];
    // Codes at even places are stored as w + 128.
    let start = -128 * vector.iter().step_by(2).map(|&code| code as i32).sum::<i32>();
    let mut first = 0;
    while first < out.len() {
        // A short last block repeats its last row.
        let rows = [0, 1, 2, 3].map(|r| row((first + r).min(out.len() - 1)));
        let sums = dot(rows, vector, start);
        let left = &mut out[first..];
        let count = left.len().min(ROWS);
        left[..count].copy_from_slice(&sums[..count]);
        first += ROWS;
    }
}

#[cfg(not(thumb1))]
#[inline(always)]
fn dot(rows: [&[u8]; ROWS], vector: &[i16], start: i32) -> [i32; ROWS] {
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<ROUND>().0);
    let rounds = a.iter().zip(b).zip(c).zip(d).zip(vector.as_chunks::<ROUND>().0);
    rounds.fold([start; ROWS], |sums, ((((a, b), c), d), codes)| round([a, b, c, d], codes, sums))
}

#[cfg(all(swar, target_arch = "riscv32"))]
use super::riscv32::int8 as round;
#[cfg(all(swar, thumb2))]
use super::thumb2::int8 as round;

/// Adds the products of a round of inputs; weights as stored.
#[cfg(not(swar))]
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

/// Sums of all rows. Shapes: `words` are the codes of `matrix`, `vector` is `[cols]`, `out` is
/// `[rows]`.
#[cfg(thumb1)]
#[inline(never)]
pub(super) fn sums(matrix: &Tensor<'_>, words: &[u32], vector: &[i16], out: &mut [i32]) {
    // Filled in place: it is the largest object on the stack.
    let mut prepared =
        Prepared { start: 0, multipliers: [const { MaybeUninit::uninit() }; LONGEST / 4] };
    let mut sum = 0;
    for (multipliers, codes) in prepared.multipliers.iter_mut().zip(vector.as_chunks::<4>().0) {
        let [a, b, c, d] = codes.map(|code| code as i32);
        multipliers.write([b - (a << 8), c - (b << 8), d - (c << 8), a].map(|m| m as u32));
        sum += a + b + c + d;
    }
    prepared.start = 0u32.wrapping_sub((sum as u32) << 7);
    super::thumb1::int8(matrix, words, &prepared, out);
}
