//! Shared by the hosts' kernels for a single vector. Generation uses every weight once, so that
//! rows are multiplied in place, a few at a time, without repacking.

use crate::blob::{Tensor, TensorLayout};

/// `N` rows of a matrix.
#[derive(Clone, Copy)]
pub(super) struct Block<'a, const N: usize> {
    /// The first row.
    pub(super) first: usize,
    /// Bytes of their codes.
    pub(super) codes: &'a [u8],
    /// Bytes of their scales.
    pub(super) scales: &'a [u8],
}

impl<'a, const N: usize> Block<'a, N> {
    /// The rows from `start` on, or the last `N` rows if fewer are left, whose outputs are then
    /// computed twice. The matrix has at least `N` rows and this layout.
    #[inline(always)]
    pub(super) fn new(matrix: &Tensor<'a>, layout: &TensorLayout, start: usize) -> Self {
        let first = start.min(matrix.rows - N);
        Self {
            first,
            codes: &matrix.codes[first * layout.row_codes..][..N * layout.row_codes],
            scales: &matrix.scales[first * layout.row_scales..][..N * layout.row_scales],
        }
    }
}
