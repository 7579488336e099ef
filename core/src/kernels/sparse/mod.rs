//! Vectors of which few codes are not zero, which is what a ReLU leaves: rows are summed over those alone.
//!
//! A vector becomes a list. For every code that is not zero, and every plane, a [`Tap`] says which byte of a row
//! has the weight, which of its bits are the weight, and what they are worth times the code; one before those of a
//! group says where a row has the group's scale. Several rows share what is loaded of the list.
//!
//! Bits are multiplied where they lie in their byte, so that sums are raised by [`PLACES`] bits; and without a
//! sign, what that adds being taken off where a group's sum starts.
#![allow(unsafe_code)]

#[cfg(not(any(arm_dsp, armv7m, armv6m)))]
mod plain;
#[cfg(any(arm_dsp, armv7m, armv6m))]
mod thumb;

use core::mem::MaybeUninit;

use super::Vectors;
use super::initialized::initialized;
use crate::blob::Tensor;
use crate::numeric::Scale;
#[cfg(not(any(arm_dsp, armv7m, armv6m)))]
use plain::{ROWS, sums};
#[cfg(any(arm_dsp, armv7m, armv6m))]
use thumb::{ROWS, sums};

/// Taps of a vector at most, not counting those of groups.
const TAPS: usize = 64;
/// A vector is sparse where one code in so many is not zero, or less: else other kernels are faster.
const SPARSE: usize = 8;
/// As many more may be, so that a dense vector is given up soon and a sparse one not where it begins.
const MORE: usize = 8;
/// Bits that sums are raised by: a byte's lowest bit is 7 below its highest. Of [`TAPS`] codes of at most 2^5 times
/// scales of at most 15 times activations below 2^8 a sum stays below 2^30 with them.
const PLACES: u32 = 7;

/// A weight, in any row, and what it is multiplied by; or what comes before those of a group.
#[derive(Clone, Copy)]
#[repr(C)]
struct Tap {
    /// What the weight's bits are multiplied by; of a group, what its sum starts from.
    factor: i32,
    /// Byte of the row's codes; of a group, of the row's scales.
    byte: u16,
    /// What this byte differs from one whose weight has no sign by (exclusive or); of a group, its scale's lowest
    /// bit.
    flip: u8,
    /// Bits of the byte that are the weight; of a group, how many taps follow, one or more.
    mask: u8,
}

/// Room for a list, in which every tap may have a group of its own.
type List = [MaybeUninit<Tap>; 2 * TAPS];

/// Multiplies a single vector if few of its codes are other than zero; says whether they were.
#[inline(never)]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    // Where there was no ReLU vectors are not worth looking at.
    let relu = matrix.max_code > 127 && matrix.precision.is_grouped();
    let (&[scale], true) = (x.scales, relu && matrix.rows.is_multiple_of(ROWS)) else {
        return false;
    };
    let (layout, rows) = (matrix.layout(), matrix.rows);
    let complete = rows > 0
        && matrix.codes.len() >= rows * layout.row_codes
        && matrix.scales.len() >= rows * layout.row_scales
        && matrix.biases.len() >= 2 * rows;
    let (Some(codes), Some(out), true) =
        (x.codes.get(..matrix.cols), out.get_mut(..rows), complete)
    else {
        return false;
    };
    let mut memory: List = [const { MaybeUninit::uninit() }; 2 * TAPS];
    let Some(list) = list(matrix, codes, &mut memory) else { return false };
    // SAFETY: there are codes, scales and biases of as many rows as outputs, more than none and a multiple of `ROWS`,
    // as was checked just above, and the list was made for such rows.
    unsafe {
        sums(matrix, &layout, list, out);
        finish(matrix, Scale::unpack(scale), out);
    }
    true
}

/// The list of a vector that is sparse, which is not empty. Shapes: `codes` is `[cols]`.
#[inline(always)]
fn list<'a>(matrix: &Tensor<'_>, codes: &[i16], memory: &'a mut List) -> Option<&'a [Tap]> {
    let (planes, group) = (matrix.precision.planes(), matrix.group);
    // Rows of whole groups, groups of whole bytes in every plane.
    let whole = group.is_power_of_two() && group >= 8 && matrix.cols & (group - 1) == 0;
    if !whole || matrix.cols > u16::MAX as usize {
        return None;
    }
    let group_bits = group.trailing_zeros();
    let mut taps = 0;
    let (mut count, mut head, mut end) = (0, 0, 0);
    for (two, codes) in codes.as_chunks().0.iter().enumerate() {
        if *codes == [0, 0] {
            continue;
        }
        for (odd, &code) in codes.iter().enumerate() {
            if code == 0 {
                continue;
            }
            let input = 2 * two + odd;
            let g = input >> group_bits;
            if input >= end {
                (head, end) = (count, (g + 1) << group_bits);
                count += 1;
                let (byte, flip) = (2 + g as u16 / 2, g as u8 % 2 * 4);
                memory.get_mut(head)?.write(Tap { factor: 0, byte, flip, mask: 0 });
            }
            taps += planes.len();
            if taps > TAPS || taps > (MORE + input / SPARSE) * planes.len() {
                return None;
            }
            // Where the plane's codes of the group begin.
            let mut first = 0;
            for plane in planes {
                // Bytes of a group are a power of two, as inputs and bits are (1, 2 or 4, halved 0, 1 or 2).
                let bytes_bits = group_bits + plane.bits / 2 - 3;
                let within = input & (group - 1);
                let lowest = plane.bits * (within >> bytes_bits) as u32;
                let byte = first + (g << bytes_bits) + (within & ((1 << bytes_bits) - 1));
                first += matrix.cols >> group_bits << bytes_bits;
                let offset = if plane.signed { 1 << (plane.bits - 1) } else { 0 };
                let factor = (code as i32) << (PLACES + plane.shift);
                memory.get_mut(count)?.write(Tap {
                    factor: factor >> lowest,
                    byte: byte as u16,
                    flip: plane.offsets[odd % 2] ^ (offset << lowest) as u8,
                    mask: (((1u32 << plane.bits) - 1) << lowest) as u8,
                });
                count += 1;
                // SAFETY: it was written when the group began.
                let head = unsafe { memory.get_unchecked_mut(head).assume_init_mut() };
                head.factor -= factor * offset;
                head.mask += 1;
            }
        }
    }
    // SAFETY: all before `count` were written.
    let list = unsafe { initialized(memory.get_unchecked(..count)) };
    (!list.is_empty()).then_some(list)
}

/// Turns sums, with their [`PLACES`], into outputs.
///
/// # Safety
///
/// There are scales and biases of as many rows as outputs, more than none.
#[cfg(arm_dsp)]
#[inline(always)]
unsafe fn finish(matrix: &Tensor<'_>, scale: Scale, out: &mut [i32]) {
    let bound = (TAPS as u32 * 15 * 255) << (matrix.precision.bits() as u32 - 1 + PLACES);
    // SAFETY: as the caller says.
    unsafe { super::dsp::finish::finish(matrix, scale, (PLACES, bound), out) }
}

/// The same, safe without assembly.
#[cfg(not(arm_dsp))]
#[inline(always)]
unsafe fn finish(matrix: &Tensor<'_>, scale: Scale, out: &mut [i32]) {
    out.iter_mut().for_each(|sum| *sum >>= PLACES);
    super::rescale::finish(matrix, scale, out);
}
