//! What an entry of the table says of a kernel.
#![allow(unsafe_code)]

#[cfg(all(feature = "std", neon))]
use super::aarch64;
use super::choice::Reason;
use super::matrix::Matrix;
use super::needs::Needs;
use super::vectors::Vectors;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use super::x86_64;
use crate::blob::Tensor;

/// A kernel: what it needs, which matrices and vectors it takes, and its function.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Name, as reports show it.
    pub name: &'static str,
    /// What the processor must have.
    pub(super) needs: Needs,
    /// Which vectors it takes.
    pub(super) takes: Takes,
    /// Storage, shape and alignment of the matrices it takes; a predicate on a tensor's description
    /// and address.
    pub(super) admits: fn(&Tensor<'_>) -> Result<(), Reason>,
    /// Its function, where this build has it.
    pub(super) run: Option<Run>,
}

/// Multiplies, as [`super::dispatch::matmul`] does, or returns false; then any outputs may have
/// changed.
///
/// # Safety
///
/// `admits` holds, the processor has what the kernel needs, and a [`Matrix`] has codes, scales and
/// (unless it has none) biases of exactly its rows. Nothing is promised of the vectors and the
/// outputs.
pub(super) type Run = unsafe fn(&Matrix<'_>, Vectors<'_>, &mut [i32]) -> bool;

/// The vectors a kernel takes.
#[allow(dead_code, reason = "no build has kernels for all")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Any, one or a few at a time; it may leave extreme scales to others.
    Any,
    /// Those whose codes are mostly zeros, behind a ReLU.
    Sparse,
    /// Several at a time.
    Batches,
}

impl Kernel {
    /// Multiplies by this kernel, chosen for the matrix or not. Returns whether it did; else any
    /// outputs may have changed. For tests and benchmarks.
    pub fn multiply(&self, matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
        let Some(run) = self.run else { return false };
        // SAFETY: the three conditions of `Run` are asked here.
        self.is_available()
            && is_complete(matrix)
            && (self.admits)(matrix).is_ok()
            && unsafe { run(matrix, x, out) }
    }

    /// Whether this build has the kernel and this processor can run it.
    pub fn is_available(&self) -> bool {
        #[cfg(all(feature = "std", target_arch = "x86_64"))]
        if let Needs::Avx2 | Needs::Vnni | Needs::WideVnni = self.needs {
            return self.run.is_some()
                && x86_64::Features::found() >= x86_64::Features::least(self.needs);
        }
        #[cfg(all(feature = "std", neon))]
        match self.needs {
            Needs::DotProducts => return aarch64::has_dot_products(),
            Needs::MatrixProducts => return aarch64::has_matrix_products(),
            _ => {}
        }
        self.run.is_some()
    }
}

/// Whether a tensor's parts are of exactly its rows, its biases of those or none.
#[inline(always)]
pub(super) fn is_complete(tensor: &Tensor<'_>) -> bool {
    let layout = tensor.layout();
    let biases = tensor.biases.len();
    tensor.codes.len() == tensor.rows * layout.row_codes
        && tensor.scales.len() == tensor.rows * layout.row_scales
        && (biases == 0 || biases == 2 * tensor.rows)
}
