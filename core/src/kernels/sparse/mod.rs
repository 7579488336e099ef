//! Sparse vectors, which is what a ReLU leaves: rows are summed over the nonzero codes alone.
//!
//! A vector becomes a list of [`list::Term`]s. For every nonzero code and every plane, a term says
//! which byte of a row has the weight, which of its bits are the weight, and their factor; the
//! header of a group says where a row has the group's scale. Several rows share the loads of the
//! list.
//!
//! Bits are multiplied in place in their byte, so that sums are raised by [`RAISED`] bits; and
//! unsigned, the offset being subtracted in the initial value of a group's sum.
#![allow(unsafe_code)]

mod list;
#[cfg(not(any(thumb1, thumb2)))]
mod rust;
#[cfg(any(thumb1, thumb2))]
mod thumb;
#[cfg(thumb1)]
mod thumb1;
#[cfg(thumb2)]
mod thumb2;

use core::mem::MaybeUninit;

use super::choice::Reason;
use super::matrix::Matrix;
use super::vectors::Vectors;
use crate::blob::Tensor;
use crate::numeric::Scale;
use list::{List, RAISED, TERMS, list};
#[cfg(not(any(thumb1, thumb2)))]
use rust::{ROWS, sums};
#[cfg(any(thumb1, thumb2))]
use thumb::{ROWS, sums};

/// Grouped codes behind a ReLU, with biases; rows that come in blocks and suit [`list::admits`].
/// The codes may lie anywhere.
#[inline(always)]
pub(super) fn admits(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if matrix.max_code <= 127 || !matrix.precision.is_grouped() || matrix.biases.is_empty() {
        return Err(Reason::Storage);
    }
    let fits = matrix.rows > 0 && matrix.rows.is_multiple_of(ROWS) && list::admits(matrix);
    if fits { Ok(()) } else { Err(Reason::Shape) }
}

/// See [`super::kernel::Kernel::run`]; takes single vectors that are sparse and not zero.
///
/// # Safety
///
/// [`admits`] holds.
#[inline(never)]
pub(super) unsafe fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let &[scale] = x.scales else { return false };
    let (Some(codes), Some(out)) = (x.codes.get(..matrix.cols), out.get_mut(..matrix.rows)) else {
        return false;
    };
    let mut memory: List = [const { MaybeUninit::uninit() }; 2 * TERMS];
    let Some(list) = list(matrix, codes, &mut memory) else { return false };
    // SAFETY: a matrix holds codes, scales and biases of all its rows, as many as outputs and by
    // the caller's promise a nonzero multiple of `ROWS`; the list was made for such rows.
    unsafe {
        sums(matrix, &matrix.layout(), list, out);
        requantize(matrix, Scale::unpack(scale), out);
    }
    true
}

/// Requantizes sums that are raised by [`RAISED`] bits.
///
/// # Safety
///
/// There are scales and biases of as many rows as outputs, at least one.
#[cfg(arm_dsp)]
#[inline(always)]
unsafe fn requantize(matrix: &Tensor<'_>, scale: Scale, out: &mut [i32]) {
    let bound = (TERMS as u32 * 15 * 255) << (matrix.precision.bits() as u32 - 1 + RAISED);
    // SAFETY: as the caller says.
    unsafe { super::dsp::sums::requantize_sums(matrix, scale, (RAISED, bound), out) }
}

/// The same; safe without assembly.
#[cfg(not(arm_dsp))]
#[inline(always)]
unsafe fn requantize(matrix: &Tensor<'_>, scale: Scale, out: &mut [i32]) {
    out.iter_mut().for_each(|sum| *sum >>= RAISED);
    super::requantize::requantize(matrix, scale, out);
}
