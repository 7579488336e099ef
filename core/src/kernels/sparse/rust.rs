//! Sums of a few rows at a time, in Rust.

use core::ops::Range;

use super::list::Term;
use crate::blob::{Tensor, TensorLayout};

/// Rows that share the loads of the list: as many as registers allow.
pub(super) const ROWS: usize = if cfg!(target_arch = "riscv32") { 4 } else { 2 };

/// Sums of all rows, raised by [`super::list::RAISED`] bits. Shapes: `out` is `[rows]`.
///
/// # Safety
///
/// There are codes and scales, in this layout, of as many rows as outputs, a multiple of [`ROWS`];
/// the list is one that [`super::list::list`] returns for the matrix.
#[inline(always)]
pub(super) unsafe fn sums(
    matrix: &Tensor<'_>,
    layout: &TensorLayout,
    list: &[Term],
    out: &mut [i32],
) {
    let (mut codes, mut scales) = (matrix.codes.as_ptr(), matrix.scales.as_ptr());
    for block in out.as_chunks_mut::<ROWS>().0 {
        let rows: [(*const u8, *const u8); ROWS] = core::array::from_fn(|r| {
            (codes.wrapping_add(r * layout.row_codes), scales.wrapping_add(r * layout.row_scales))
        });
        // SAFETY: as the caller says.
        *block = unsafe { sum(list, rows) };
        codes = codes.wrapping_add(ROWS * layout.row_codes);
        scales = scales.wrapping_add(ROWS * layout.row_scales);
    }
}

/// Sums of a few rows, given the addresses of their codes and scales.
///
/// # Safety
///
/// The list must be one that [`super::list::list`] returns for the matrix whose rows these are.
#[inline(always)]
unsafe fn sum(list: &[Term], rows: [(*const u8, *const u8); ROWS]) -> [i32; ROWS] {
    let mut sums = [0; ROWS];
    let Range { start: mut at, end } = list.as_ptr_range();
    while at < end {
        // SAFETY: a header is followed by as many terms as it says, within the list; every byte is
        // one of the row's.
        unsafe {
            let head = *at;
            let mut parts = [head.factor; ROWS];
            let last = at.add(head.mask as usize);
            while at < last {
                at = at.add(1);
                let term = *at;
                for (part, (codes, _)) in parts.iter_mut().zip(rows) {
                    let bits = (*codes.add(term.byte as usize) ^ term.flip) & term.mask;
                    *part += bits as i32 * term.factor;
                }
            }
            at = at.add(1);
            for ((sum, part), (_, scales)) in sums.iter_mut().zip(parts).zip(rows) {
                *sum += part * (*scales.add(head.byte as usize) >> head.flip & 15) as i32;
            }
        }
    }
    sums
}
