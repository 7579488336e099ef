//! Sums of four rows at a time on Cortex-M cores, in assembly.

use super::list::Term;
#[cfg(thumb1)]
use super::thumb1::run;
#[cfg(thumb2)]
use super::thumb2::run;
use crate::blob::{Tensor, TensorLayout};

/// Rows that share the loads of the list.
pub(super) const ROWS: usize = 4;

/// Sums of all rows, raised by [`super::list::RAISED`] bits. Shapes: `out` is `[rows]`.
///
/// # Safety
///
/// There are codes and scales, in this layout, of as many rows as outputs, a nonzero multiple of
/// [`ROWS`]; the list is not empty and one that [`super::list::list`] returns for the matrix.
#[inline(always)]
pub(super) unsafe fn sums(
    matrix: &Tensor<'_>,
    layout: &TensorLayout,
    list: &[Term],
    out: &mut [i32],
) {
    let terms = list.as_ptr_range();
    let range = out.as_mut_ptr_range();
    let block = Block {
        scales: matrix.scales.as_ptr(),
        row_scales: layout.row_scales,
        list: terms.start,
        list_end: terms.end,
        out_end: range.end,
        out: range.start,
        codes: matrix.codes.as_ptr(),
        row_codes: layout.row_codes,
    };
    // SAFETY: as the caller says.
    unsafe { run((&raw const block).cast()) };
}

/// Arguments of the assembly, which depends on the order of the fields.
#[repr(C)]
struct Block {
    scales: *const u8,
    row_scales: usize,
    list: *const Term,
    list_end: *const Term,
    out_end: *mut i32,
    out: *mut i32,
    codes: *const u8,
    row_codes: usize,
}
