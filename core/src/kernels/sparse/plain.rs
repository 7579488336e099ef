//! Sums of two rows at a time.

use core::ops::Range;

use super::Tap;
use crate::blob::Tensor;

/// Sums of all rows, with their [`super::PLACES`], if rows come in pairs; says whether they do. Shapes: `out` is
/// `[rows]`.
#[inline(always)]
pub(super) fn sums(matrix: &Tensor<'_>, list: &[Tap], out: &mut [i32]) -> bool {
    let layout = matrix.layout();
    let (twos, rest) = out.as_chunks_mut::<2>();
    let complete = matrix.codes.len() >= 2 * twos.len() * layout.row_codes
        && matrix.scales.len() >= 2 * twos.len() * layout.row_scales;
    if !complete || !rest.is_empty() {
        return false;
    }
    let (mut codes, mut scales) = (matrix.codes.as_ptr(), matrix.scales.as_ptr());
    for two in twos {
        // SAFETY: by the check there are codes and scales of as many rows as outputs, and the list was made for such
        // rows.
        unsafe {
            let next = (codes.add(layout.row_codes), scales.add(layout.row_scales));
            *two = sum_two(list, [codes, next.0], [scales, next.1]);
        }
        codes = codes.wrapping_add(2 * layout.row_codes);
        scales = scales.wrapping_add(2 * layout.row_scales);
    }
    true
}

/// Sums of two rows.
///
/// # Safety
///
/// The list must be one that [`super::list`] returns for the matrix whose rows these are.
#[inline(always)]
unsafe fn sum_two(list: &[Tap], codes: [*const u8; 2], scales: [*const u8; 2]) -> [i32; 2] {
    let [mut a, mut b] = [0; 2];
    let Range { start: mut at, end } = list.as_ptr_range();
    while at < end {
        // SAFETY: a group's tap is followed by as many as it says, within the list; every byte is one of the row's.
        unsafe {
            let head = *at;
            let [mut part_a, mut part_b] = [head.factor; 2];
            let last = at.add(head.mask as usize);
            while at < last {
                at = at.add(1);
                let tap = *at;
                let bits = |codes: *const u8| {
                    ((*codes.add(tap.byte as usize) ^ tap.flip) & tap.mask) as i32
                };
                part_a += bits(codes[0]) * tap.factor;
                part_b += bits(codes[1]) * tap.factor;
            }
            at = at.add(1);
            let scale =
                |scales: *const u8| (*scales.add(head.byte as usize) >> head.flip & 15) as i32;
            a += part_a * scale(scales[0]);
            b += part_b * scale(scales[1]);
        }
    }
    [a, b]
}
