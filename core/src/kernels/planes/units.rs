//! A vector as units, and what a processor has to offer to multiply by them.

use core::mem::MaybeUninit;

use crate::blob::Tensor;
use crate::kernels::shapes::LONGEST;
use crate::kernels::stack::initialized;
use crate::numeric::Scale;

/// Inputs per unit.
pub(super) const UNIT: usize = 16;
/// Mark of a row's last unit: a bit that a rotation by a register ignores.
pub(super) const LAST: u32 = 32;

/// Room for the units of the longest vector.
pub(super) type Units = [MaybeUninit<Unit>; UNITS];
/// Units of the longest vector.
pub(super) const UNITS: usize = LONGEST / UNIT;

/// The factors of a unit of weights.
#[derive(Clone, Copy)]
#[repr(C)]
pub(in crate::kernels) struct Unit {
    /// Initial value of the sum.
    pub(super) start: u32,
    /// Coefficients of the first word: of nibbles 0 and 4, 2 and 6, 1 and 5, 3 and 7.
    pub(super) first: [[u32; 2]; 2],
    /// Place of the group's scale: its byte of the row's scales times 2^8, its bit in that byte,
    /// and [`LAST`] in the last unit of a row.
    scale: u32,
    /// Coefficients of the second word.
    pub(super) second: [[u32; 2]; 2],
}

/// How a processor multiplies two codes at a time, one in each half of a word.
pub(in crate::kernels) trait Pairs {
    /// The factor for a word with one code in each half.
    fn coefficient(low: i16, high: i16) -> u32;

    /// Initial value of a unit's sum that cancels the offset of `bits`-bit codes; `codes` is the
    /// sum of the unit's activations.
    fn start(codes: i32, bits: u32) -> u32;

    /// Multiplies all rows by a vector of this scale; returns whether it did.
    ///
    /// Shapes: `units` is `[cols / 16]`, `out` is `[rows]`.
    ///
    /// # Safety
    ///
    /// [`crate::kernels::shapes::planes`] admits the matrix, which has at least one row, codes,
    /// scales and biases of all rows, and as many rows as `out`. The units are those that
    /// [`prepare`] returns for a vector of its columns.
    unsafe fn multiply(matrix: &Tensor<'_>, scale: Scale, units: &[Unit], out: &mut [i32]) -> bool;
}

/// A vector as units. Shapes: `vector` is `[cols]`, the result is `[cols / 16]`.
#[inline(never)]
pub(super) fn prepare<'a, P: Pairs>(
    matrix: &Tensor<'_>,
    vector: &[i16],
    memory: &'a mut Units,
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
        // SAFETY: the first `count` units were written.
        unsafe { unit.assume_init_mut() }.scale |= LAST;
    }
    // SAFETY: likewise.
    unsafe { initialized(units) }
}

/// Coefficients of four codes; returns the sum of the codes. Outlined to keep one copy.
#[inline(never)]
fn pairs<P: Pairs>(&[a, b, c, d]: &[i16; 4], pairs: &mut [u32; 2]) -> i32 {
    *pairs = [P::coefficient(a, c), P::coefficient(b, d)];
    a as i32 + b as i32 + c as i32 + d as i32
}
