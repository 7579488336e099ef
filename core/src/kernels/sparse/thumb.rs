//! Sums of four rows at a time, in assembly, on Cortex-M cores.

#[cfg(armv6m)]
#[path = "thumb1.rs"]
mod run;
#[cfg(not(armv6m))]
#[path = "thumb2.rs"]
mod run;

use super::Tap;
use crate::blob::Tensor;

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

/// Sums of all rows, with their [`super::PLACES`], if rows come in fours; says whether they do. Shapes: `out` is
/// `[rows]`.
#[inline(always)]
pub(super) fn sums(matrix: &Tensor<'_>, list: &[Tap], out: &mut [i32]) -> bool {
    let layout = matrix.layout();
    let rows = out.len();
    let fours = rows > 0 && rows.is_multiple_of(4) && !list.is_empty();
    let complete = matrix.codes.len() >= rows * layout.row_codes
        && matrix.scales.len() >= rows * layout.row_scales;
    if !fours || !complete {
        return false;
    }
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
    // SAFETY: by the checks there are codes and scales of as many rows as outputs, a multiple of four, and the list,
    // which is not empty, was made for such rows.
    unsafe { run::run(&block) };
    true
}
