//! INT2 to INT6 in the groups that policies choose: sixteen inputs at a time, as two words of nibbles.
//!
//! A unit is the m-th word of a group's 2-bit plane, or words m and m + n/2 of its 4-bit plane of n. Either
//! way it holds, q being a quarter of a group, inputs 4m to 4m + 3 and those q, 2q and 3q further, and one
//! mask turns it into two words of nibbles:
//!
//! ```text
//! nibble       7    6    5    4    3    2    1    0
//! first word   3+2q 3    2+2q 2    1+2q 1    2q   0        of inputs 4m + …
//! second word  3+3q 3+q  2+3q 2+q  1+3q 1+q  3q   q
//! ```
//!
//! The lower plane has the same inputs in the same places, so that INT3 joins its planes in the nibbles, and
//! INT5 and INT6 either join theirs in bytes or multiply both by the same vector, whichever the processor does
//! better ([`Pairs`]). Lanes of 16 bits hold every fourth nibble, so the vector is prepared, once for all rows,
//! as pairs of inputs 4m + i and 4m + i + 2.
//!
//! Codes are multiplied offset by half their range, which is never negative, and what that adds is taken off
//! where a unit's sum starts.

#![allow(unsafe_code)]

#[cfg(any(arm_dsp, test))]
mod dsp;
#[cfg(not(arm_dsp))]
mod plain;
#[cfg(arm_dsp)]
mod rows;
#[cfg(any(swar, test))]
mod swar;

use core::mem::MaybeUninit;

use super::portable::batch;
use super::{Vectors, rescale};
use crate::blob::{Precision, Tensor};
#[cfg(any(arm_dsp, test))]
pub(super) use dsp::Dsp;
#[cfg(any(swar, test))]
pub(super) use swar::Swar;

/// What this processor multiplies by.
#[cfg(arm_dsp)]
pub(super) type Native = Dsp;
#[cfg(swar)]
pub(super) type Native = Swar;

/// Longest row whose vector is kept on the stack.
const LONGEST: usize = 512;
/// Inputs of a unit.
const UNIT: usize = 16;

/// What a unit of weights is multiplied by.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::kernels) struct Unit {
    /// What the sum starts with.
    start: u32,
    /// Coefficients of the first word: of nibbles 0 and 4, 2 and 6, 1 and 5, 3 and 7.
    first: [u32; 4],
    /// Bit of a row's scales at which the group's is.
    scale: u32,
    /// Coefficients of the second word.
    second: [u32; 4],
}

/// How a processor multiplies two codes at a time, one in either half of a word.
pub(super) trait Pairs {
    /// What a word with a code in either half is multiplied by.
    fn coefficient(low: i16, high: i16) -> u32;

    /// What the sum of a unit starts with, `codes` being the sum of its activations, to be free of what codes of
    /// `bits` bits are offset by.
    fn start(codes: i32, bits: u32) -> u32;

    /// Sum of a row of `BITS` bits with `UNITS` units to a group.
    ///
    /// Shapes: `units` are those of the row, of whole groups, `scales` are its mantissa and group scales, `upper` and
    /// `lower` its planes.
    fn row<const BITS: u32, const UNITS: usize>(
        units: &[Unit],
        scales: &[u8],
        upper: &[u32],
        lower: &[u32],
    ) -> i32;
}

/// Sums of all rows from their words.
type Sums = fn(&Tensor<'_>, &[u32], &[Unit], &mut [i32]);

/// Multiplies where there is a kernel for the matrix; says whether there was. Not a part of its callers: the
/// code would be there as often as layers multiply.
#[inline(never)]
pub(super) fn matmul<P: Pairs>(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let sums: Sums = match (matrix.precision, matrix.group) {
        (Precision::Int2, 16) => sums::<P, 2, 1>,
        (Precision::Int2, 32) => sums::<P, 2, 2>,
        (Precision::Int3, 16) => sums::<P, 3, 1>,
        (Precision::Int3, 32) => sums::<P, 3, 2>,
        (Precision::Int4, 16) => sums::<P, 4, 1>,
        (Precision::Int4, 64) => sums::<P, 4, 4>,
        (Precision::Int5, 32) => sums::<P, 5, 2>,
        (Precision::Int6, 32) => sums::<P, 6, 2>,
        _ => return false,
    };
    // Rows of whole groups and words.
    let whole = matrix.cols.is_multiple_of(matrix.group.max(32)) && matrix.cols <= LONGEST;
    let Ok(words) = bytemuck::try_cast_slice::<u8, u32>(matrix.codes) else { return false };
    if !whole || words.is_empty() || matrix.biases.is_empty() || matrix.max_code > 255 {
        return false;
    }
    let mut memory = [const { MaybeUninit::uninit() }; LONGEST / UNIT];
    for (b, vector, scale) in batch(x, matrix.cols) {
        let out = &mut out[b * matrix.rows..][..matrix.rows];
        let units = prepare::<P>(matrix, vector, &mut memory);
        sums(matrix, words, units, out);
        rescale::finish(matrix, scale, out);
    }
    true
}

/// A vector as units. Shapes: `vector` is `[cols]`, the result is `[cols / 16]`.
#[inline(never)]
fn prepare<'a, P: Pairs>(
    matrix: &Tensor<'_>,
    vector: &[i16],
    memory: &'a mut [MaybeUninit<Unit>; LONGEST / UNIT],
) -> &'a [Unit] {
    let quarter = matrix.group / 4;
    let mut count = 0;
    for (g, group) in vector.chunks_exact(matrix.group).enumerate() {
        for m in (0..quarter).step_by(4) {
            let mut codes = 0;
            let [first, second] = [m, m + quarter].map(|input| {
                let mut pair = |i: usize| {
                    let (low, high) = (group[input + i], group[input + i + 2]);
                    codes += low as i32 + high as i32;
                    P::coefficient(low, high)
                };
                [pair(0), pair(1), pair(2 * quarter), pair(2 * quarter + 1)]
            });
            let start = P::start(codes, matrix.precision.bits() as u32);
            memory[count].write(Unit { start, first, scale: 16 + 4 * g as u32, second });
            count += 1;
        }
    }
    // SAFETY: as many were written, from the first on.
    unsafe { memory[..count].assume_init_ref() }
}

/// Sums of the rows of `BITS` bits with `UNITS` units to a group.
///
/// Shapes: `words` are the codes of `matrix`, `units` is `[cols / 16]`, `out` is `[rows]`.
#[inline(never)]
fn sums<P: Pairs, const BITS: u32, const UNITS: usize>(
    matrix: &Tensor<'_>,
    words: &[u32],
    units: &[Unit],
    out: &mut [i32],
) {
    let layout = matrix.layout();
    let rows = words.chunks_exact(layout.row_codes / 4);
    let scales = matrix.scales.chunks_exact(layout.row_scales);
    // A unit is one word of two bits or two of four.
    let upper = if BITS < 4 { units.len() } else { 2 * units.len() };
    assert!(units.len() * UNIT == matrix.cols && units.len().is_multiple_of(UNITS));
    for ((out, row), scales) in out.iter_mut().zip(rows).zip(scales) {
        let (upper, lower) = row.split_at(upper);
        *out = P::row::<BITS, UNITS>(units, scales, upper, lower);
    }
}
