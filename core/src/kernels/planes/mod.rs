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
//! Unless they are joined in bytes, codes are multiplied offset by half their range, which is never negative, and what
//! that adds is taken off where a unit's sum starts.

#![allow(unsafe_code)]

#[cfg(any(arm_dsp, test))]
mod dsp;
#[cfg(not(arm_dsp))]
mod plain;
#[cfg(any(swar, test))]
mod swar;

use core::mem::MaybeUninit;

use super::Vectors;
use super::choice::{self, LONGEST};
use super::initialized::initialized;
use super::portable::batch;
use crate::blob::Tensor;
use crate::numeric::Scale;
#[cfg(any(arm_dsp, test))]
pub(super) use dsp::Dsp;
#[cfg(any(swar, test))]
pub(super) use swar::Swar;

/// What this processor multiplies by.
#[cfg(arm_dsp)]
pub(super) type Native = Dsp;
#[cfg(swar)]
pub(super) type Native = Swar;

/// Inputs of a unit.
pub(super) const UNIT: usize = 16;
/// Mark of a row's last group: rotating by so many bits does nothing.
pub(super) const LAST: u32 = 32;

/// What a unit of weights is multiplied by.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Unit {
    /// What the sum starts with.
    start: u32,
    /// Coefficients of the first word: of nibbles 0 and 4, 2 and 6, 1 and 5, 3 and 7.
    first: [[u32; 2]; 2],
    /// Where the group's scale is: its byte of the row's scales times 2^8, the bit in that byte, and
    /// [`LAST`] in the last unit of a row.
    scale: u32,
    /// Coefficients of the second word.
    second: [[u32; 2]; 2],
}

/// How a processor multiplies two codes at a time, one in either half of a word.
pub(super) trait Pairs {
    /// What a word with a code in either half is multiplied by.
    fn coefficient(low: i16, high: i16) -> u32;

    /// What the sum of a unit starts with, `codes` being the sum of its activations, to be free of what codes of
    /// `bits` bits are offset by.
    fn start(codes: i32, bits: u32) -> u32;

    /// Multiplies all rows with the units of a vector of this scale; says whether it could.
    ///
    /// Shapes: `units` is `[cols / 16]`, `out` is `[rows]`.
    ///
    /// # Safety
    ///
    /// The matrix is one that [`choice::planes`] admits, with at least one row; its codes, aligned to words,
    /// scales and biases are of all rows, and `out` is as long. The units are those that [`prepare`] makes of a vector
    /// of its columns.
    unsafe fn multiply(matrix: &Tensor<'_>, scale: Scale, units: &[Unit], out: &mut [i32]) -> bool;
}

/// Multiplies where there is a kernel for the matrix; says whether there was. Not a part of its
/// caller, whose stack would have room for every kernel's vector at once.
#[inline(never)]
pub(super) fn matmul<P: Pairs>(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    if choice::planes(matrix).is_err() {
        return false;
    }
    let layout = matrix.layout();
    assert!(matrix.rows > 0 && matrix.codes.len() >= matrix.rows * layout.row_codes);
    assert!(matrix.scales.len() >= matrix.rows * layout.row_scales);
    assert!(matrix.biases.len() >= 2 * matrix.rows);
    let mut memory = [const { MaybeUninit::uninit() }; LONGEST / UNIT];
    batch(x, matrix.cols).all(|(b, vector, scale)| {
        let units = prepare::<P>(matrix, vector, &mut memory);
        let out = &mut out[b * matrix.rows..][..matrix.rows];
        // SAFETY: the matrix was checked just above, and the vector has as many codes as it has columns.
        unsafe { P::multiply(matrix, scale, units, out) }
    })
}

/// A vector as units. Shapes: `vector` is `[cols]`, the result is `[cols / 16]`.
#[inline(never)]
fn prepare<'a, P: Pairs>(
    matrix: &Tensor<'_>,
    vector: &[i16],
    memory: &'a mut [MaybeUninit<Unit>; LONGEST / UNIT],
) -> &'a [Unit] {
    let (quarter, bits) = (matrix.group / UNIT, matrix.precision.bits() as u32);
    let mut count = 0;
    // A row's scales begin with its mantissa.
    let (mut byte, mut bit) = (2, 0);
    for group in vector.as_chunks().0.chunks_exact(4 * quarter) {
        for m in 0..quarter {
            let mut unit =
                Unit { start: 0, first: [[0; 2]; 2], scale: byte << 8 | bit, second: [[0; 2]; 2] };
            let codes = pairs::<P>(&group[m], &mut unit.first[0])
                + pairs::<P>(&group[m + 2 * quarter], &mut unit.first[1])
                + pairs::<P>(&group[m + quarter], &mut unit.second[0])
                + pairs::<P>(&group[m + 3 * quarter], &mut unit.second[1]);
            unit.start = P::start(codes, bits);
            memory[count].write(unit);
            count += 1;
        }
        (byte, bit) = (byte + bit / 4, bit ^ 4);
    }
    let units = &mut memory[..count];
    if let Some(unit) = units.last_mut() {
        // SAFETY: as many were written, from the first on.
        unsafe { unit.assume_init_mut() }.scale |= LAST;
    }
    // SAFETY: likewise.
    unsafe { initialized(units) }
}

/// Coefficients of four codes, and their sum. Not a part of its caller: the code would be there four times.
#[inline(never)]
fn pairs<P: Pairs>(&[a, b, c, d]: &[i16; 4], pairs: &mut [u32; 2]) -> i32 {
    *pairs = [P::coefficient(a, c), P::coefficient(b, d)];
    a as i32 + b as i32 + c as i32 + d as i32
}
