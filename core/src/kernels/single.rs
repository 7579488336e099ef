//! Shared by the hosts' kernels for a single vector. Generation uses every weight once, so that
//! rows are multiplied in place, eight at a time, without repacking.

use super::batched::ROWS;
use crate::blob::{Tensor, TensorLayout};

/// Eight rows of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// The first row.
    pub(super) first: usize,
    /// Bytes of their codes.
    pub(super) codes: &'a [u8],
    /// Bytes of their scales.
    pub(super) scales: &'a [u8],
}

impl<'a> Block<'a> {
    /// The rows from `start` on, or the last eight rows if fewer are left, whose outputs are then
    /// computed twice. The matrix has at least eight rows and this layout.
    #[inline(always)]
    pub(super) fn new(matrix: &Tensor<'a>, layout: &TensorLayout, start: usize) -> Self {
        let first = start.min(matrix.rows - ROWS);
        Self {
            first,
            codes: &matrix.codes[first * layout.row_codes..][..ROWS * layout.row_codes],
            scales: &matrix.scales[first * layout.row_scales..][..ROWS * layout.row_scales],
        }
    }
}
