//! Sums of four rows at a time, in assembly, on Cortex-M cores.

#[cfg(armv6m)]
#[path = "thumb1.rs"]
mod run;
#[cfg(not(armv6m))]
#[path = "thumb2.rs"]
mod run;

use super::Tap;
use crate::blob::{Tensor, TensorLayout};

/// What the assembly needs, in the order in which it counts on it.
#[repr(C)]
struct Block {
    scales: *const u8,
    row_scales: usize,
    list: *const Tap,
    list_end: *const Tap,
    out_end: *mut i32,
    out: *mut i32,
    codes: *const u8,
    row_codes: usize,
}

/// Rows that share what is loaded of the list.
pub(super) const ROWS: usize = 4;

/// Sums of all rows, with their [`super::PLACES`]. Shapes: `out` is `[rows]`.
///
/// # Safety
///
/// There are codes and scales, in this layout, of as many rows as outputs, more than none and a multiple of [`ROWS`];
/// the list is not empty and one that [`super::list`] returns for the matrix.
#[inline(always)]
pub(super) unsafe fn sums(
    matrix: &Tensor<'_>,
    layout: &TensorLayout,
    list: &[Tap],
    out: &mut [i32],
) {
    let taps = list.as_ptr_range();
    let range = out.as_mut_ptr_range();
    let block = Block {
        scales: matrix.scales.as_ptr(),
        row_scales: layout.row_scales,
        list: taps.start,
        list_end: taps.end,
        out_end: range.end,
        out: range.start,
        codes: matrix.codes.as_ptr(),
        row_codes: layout.row_codes,
    };
    // SAFETY: as the caller says.
    unsafe { run::run(&block) };
}
