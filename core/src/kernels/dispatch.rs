//! What the layers call: every function here has the same results on every processor.
#![allow(unsafe_code)]

use half::f16;

#[cfg(all(feature = "std", not(any(target_arch = "x86_64", neon))))]
use super::batched;
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
use super::columns;
#[cfg(arm_fpu)]
use super::fpu;
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
use super::host;
use super::matrix::Matrix;
#[cfg(feature = "std")]
use super::parallel::{self, Parallel};
use super::portable;
use super::table;
use super::vectors::Vectors;
use crate::blob::{ChainFormat, ChainParameters, Tensor};
#[cfg(feature = "std")]
use crate::error::Error;

impl<'a> Matrix<'a> {
    /// A tensor with the kernels that admit it.
    #[inline(never)]
    pub fn new(tensor: Tensor<'a>) -> Self {
        Self {
            kernels: table::admitting(&tensor),
            tensor,
            #[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
            columns: &[],
            #[cfg(feature = "std")]
            parallel: None,
        }
    }

    /// The same matrix, its rows shared among threads where that pays.
    #[cfg(feature = "std")]
    #[inline(always)]
    pub(crate) fn on_threads(self, parallel: Option<&'a dyn Parallel>) -> Self {
        Self { parallel: parallel.filter(|_| parallel::pays(&self.tensor)), ..self }
    }

    /// Whether the weights are there once more by columns, for sparse vectors.
    pub fn has_columns(&self) -> bool {
        #[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
        return !self.columns.is_empty();
        #[cfg(not(all(feature = "std", any(target_arch = "x86_64", neon))))]
        false
    }

    /// `count` rows from `first` on, as a matrix of their own.
    ///
    /// # Panics
    ///
    /// If they do not lie within the matrix.
    #[inline(always)]
    pub fn rows(&self, first: usize, count: usize) -> Self {
        Self::new(self.tensor.rows(first, count))
    }
}

/// A matrix with what a host prepares of it when a model is loaded.
#[cfg(feature = "std")]
#[derive(Debug)]
pub struct Prepared<'a> {
    matrix: Matrix<'a>,
    /// The weights once more by columns, if that pays.
    #[cfg(any(target_arch = "x86_64", neon))]
    columns: alloc::vec::Vec<super::matrix::Column>,
}

#[cfg(feature = "std")]
impl<'a> Prepared<'a> {
    /// Prepares a tensor, in at most `room` bytes besides the tensor itself: more room gives more
    /// speed.
    ///
    /// # Errors
    ///
    /// [`Error::Memory`] if the heap has less.
    pub fn new(tensor: Tensor<'a>, room: usize) -> Result<Self, Error> {
        #[cfg(not(any(target_arch = "x86_64", neon)))]
        let _ = room;
        Ok(Self {
            matrix: Matrix::new(tensor),
            #[cfg(any(target_arch = "x86_64", neon))]
            columns: host::by_columns(&tensor, room)?,
        })
    }

    /// Whether room besides the tensor makes products of it faster in a model.
    pub(crate) fn pays(tensor: &Tensor<'_>) -> bool {
        #[cfg(any(target_arch = "x86_64", neon))]
        return columns::helps(tensor);
        #[cfg(not(any(target_arch = "x86_64", neon)))]
        {
            let _ = tensor;
            false
        }
    }

    /// The matrix.
    #[inline(always)]
    pub fn matrix(&self) -> Matrix<'_> {
        Matrix {
            #[cfg(any(target_arch = "x86_64", neon))]
            columns: &self.columns,
            ..self.matrix
        }
    }

    /// Bytes of what was prepared.
    pub fn bytes(&self) -> usize {
        #[cfg(any(target_arch = "x86_64", neon))]
        return size_of_val(&self.columns[..]);
        #[cfg(not(any(target_arch = "x86_64", neon)))]
        0
    }
}

/// `out[b, r] = Σ_c weight[r, c] · x[b, c] + bias[r]` in Q15.16, saturating.
///
/// Shapes: `matrix` is `[rows, cols]`, `x` is `[batch, cols]`, `out` is `[batch, rows]`. No code of
/// `x` exceeds `matrix.max_code` in magnitude: the sums are proven for those.
///
/// # Panics
///
/// On other shapes it panics or leaves outputs unchanged: it never reads or writes beyond the
/// slices. With overflow checks, also on larger codes.
// Outlined on devices to keep one copy of the dispatch.
#[cfg_attr(feature = "std", inline)]
#[cfg_attr(not(feature = "std"), inline(never))]
pub fn matmul(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) {
    #[cfg(feature = "std")]
    if let (Some(parallel), 1) = (matrix.parallel, x.scales.len()) {
        return matmul_on_threads(parallel, matrix, x, out);
    }
    // SAFETY: the mask has the kernels that admit this tensor, which is complete (`Matrix::new`),
    // and that the processor can run (`available`).
    let done = unsafe { table::run(matrix.kernels & table::available(), matrix, x, out) };
    if !done {
        portable_matmul(matrix, x, out);
    }
}

/// [`matmul`] of one vector, the rows shared among threads unless a sparse kernel takes it.
#[cfg(feature = "std")]
fn matmul_on_threads(
    parallel: &dyn Parallel,
    matrix: &Matrix<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) {
    let sparse = matrix.kernels & table::SPARSE_VECTORS & table::available();
    // SAFETY: as in `matmul`, of which these are some of the kernels.
    if unsafe { table::run(sparse, matrix, x, out) } {
        return;
    }
    parallel::by_rows(parallel, &mut out[..matrix.rows], |first, out| {
        matmul(&matrix.rows(first, out.len()), x, out);
    });
}

/// [`portable::matmul`], outlined on devices, for its own stack frame.
#[cfg_attr(not(feature = "std"), inline(never))]
fn portable_matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    portable::matmul(matrix, x, out);
}

/// Q15.16 to halves, to nearest even. Shapes: `[n]` both.
#[inline]
pub fn to_halves(values: &[i32], halves: &mut [f16]) {
    #[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
    if host::to_halves(values, halves) {
        return;
    }
    #[cfg(arm_fpu)]
    fpu::to_halves(values, halves);
    #[cfg(not(arm_fpu))]
    portable::to_halves(values, halves);
}

/// One row of an embedding in Q15.16, rounded to nearest, saturating: [`portable::row`].
///
/// Shapes: `matrix` is `[rows, cols]`, `out` is `[cols]`.
///
/// # Panics
///
/// If `row` is not below `rows`.
#[inline]
pub fn row(matrix: &Tensor<'_>, row: usize, out: &mut [i32]) {
    #[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
    if host::row(matrix, row, out) {
        return;
    }
    #[cfg(all(feature = "std", not(any(target_arch = "x86_64", neon))))]
    if batched::row(batched::Portable, matrix, row, out) {
        return;
    }
    portable::row(matrix, row, out);
}

/// One position of a half chain, for all potentials, if this processor has a kernel for it; returns
/// whether it has. The format admits every potential's parameters. Shapes as in
/// `layers::bk::half_step`.
#[inline(always)]
pub(crate) fn half_step(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    features: &mut [i32],
) -> bool {
    #[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
    return host::half_step(format, parameters, potentials, state, features);
    #[cfg(not(all(feature = "std", any(target_arch = "x86_64", neon))))]
    {
        let _ = (format, parameters, potentials, state, features);
        false
    }
}

/// Runs loops over whole vectors with the SIMD instructions of this processor, where the build can
/// choose at run time. Functions that `loops` calls must be inlined into it to profit. Integers,
/// and floats without fused operations, give the same bits either way.
#[inline(always)]
pub(crate) fn with_simd<R>(loops: impl FnOnce() -> R) -> R {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    return host::with_simd(loops);
    #[cfg(not(all(feature = "std", target_arch = "x86_64")))]
    loops()
}
