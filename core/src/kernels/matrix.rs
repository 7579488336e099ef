//! The left-hand side of a product: a tensor with the kernels that were chosen for it.

use core::ops::Deref;

#[cfg(feature = "std")]
use super::parallel::Parallel;
use crate::blob::Tensor;

/// Kernels as bits: bit k is entry k of the table of this build.
pub(super) type Mask = u16;

/// A tensor and the kernels that admit it.
///
/// Built only by [`Matrix::new`] and its like in `dispatch`, which ask the conditions of
/// the table's entries; the tensor cannot be changed afterwards, so that no kernel has to ask
/// again.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    pub(super) tensor: Tensor<'a>,
    /// Entries of the table that admit the tensor. None unless its parts hold all of its rows.
    pub(super) kernels: Mask,
    /// The same weights by columns (`columns`), where memory allows.
    #[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
    pub(super) columns: &'a [Column],
    /// Threads to share its rows among.
    #[cfg(feature = "std")]
    pub(super) parallel: Option<&'a dyn Parallel>,
}

impl<'a> Deref for Matrix<'a> {
    type Target = Tensor<'a>;

    #[inline(always)]
    fn deref(&self) -> &Tensor<'a> {
        &self.tensor
    }
}

/// Thirty-two rows of a column, one line of the cache; aligned, since a load across two lines costs
/// two.
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Column(pub(super) [[i16; 16]; 2]);
