//! A sparse vector as a list of terms.

use core::mem::MaybeUninit;

use crate::blob::Tensor;
use crate::kernels::stack::initialized;

/// Most terms of a list, group headers not counted: a code is one term per plane.
pub(super) const TERMS: usize = 64;
/// A vector is sparse if at most one code in so many is not zero; for others dense kernels are
/// faster.
const SPARSITY: usize = 8;
/// Slack before the density test applies, so that early clusters do not reject a sparse vector.
const SLACK: usize = 8;
/// Bits by which sums are raised: the lowest bit of a byte is 7 below its highest. [`TERMS`] codes
/// of at most 2^5, times scales of at most 15, times activations below 2^8, keep a sum below 2^30
/// with them.
pub(super) const RAISED: u32 = 7;

/// A weight, in any row, and its factor; or the header of a group's terms.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Term {
    /// Factor of the weight's bits. Header: initial value of the group's sum.
    pub(super) factor: i32,
    /// Byte of the row's codes. Header: byte of the row's scales.
    pub(super) byte: u16,
    /// Difference (exclusive or) between the byte and one whose weight is unsigned. Header: lowest
    /// bit of the scale.
    pub(super) flip: u8,
    /// Mask of the weight's bits in the byte. Header: number of terms that follow, at least one.
    pub(super) mask: u8,
}

/// Room for a list in which every term has a group of its own.
pub(super) type List = [MaybeUninit<Term>; 2 * TERMS];

/// Whether rows are of whole groups, and groups of whole bytes in every plane, with offsets of 16
/// bits.
#[inline(always)]
pub(super) fn admits(matrix: &Tensor<'_>) -> bool {
    let group = matrix.group;
    let whole = group.is_power_of_two() && group >= 8 && matrix.cols & (group - 1) == 0;
    whole && matrix.cols <= u16::MAX as usize
}

/// The terms of a vector if it is sparse and not zero. Shapes: `codes` is `[cols]`; [`admits`]
/// holds.
#[inline(always)]
pub(super) fn list<'a>(
    matrix: &Tensor<'_>,
    codes: &[i16],
    memory: &'a mut List,
) -> Option<&'a [Term]> {
    let (planes, group) = (matrix.precision.planes(), matrix.group);
    let group_bits = group.trailing_zeros();
    let mut terms = 0;
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
                memory.get_mut(head)?.write(Term { factor: 0, byte, flip, mask: 0 });
            }
            terms += planes.len();
            if terms > TERMS || terms > (SLACK + input / SPARSITY) * planes.len() {
                return None;
            }
            // Start of the plane in the row.
            let mut first = 0;
            for plane in planes {
                // Bytes of a group are a power of two, as inputs and bits are (1, 2 or 4, halved 0,
                // 1 or 2).
                let bytes_bits = group_bits + plane.bits / 2 - 3;
                let within = input & (group - 1);
                let lowest = plane.bits * (within >> bytes_bits) as u32;
                let byte = first + (g << bytes_bits) + (within & ((1 << bytes_bits) - 1));
                first += matrix.cols >> group_bits << bytes_bits;
                let offset = if plane.signed { 1 << (plane.bits - 1) } else { 0 };
                let factor = (code as i32) << (RAISED + plane.shift);
                memory.get_mut(count)?.write(Term {
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
    // SAFETY: the first `count` terms were written.
    let list = unsafe { initialized(memory.get_unchecked(..count)) };
    (!list.is_empty()).then_some(list)
}
