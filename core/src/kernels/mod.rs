//! Matrix-vector products: the one seam between the layers and the processor.
//!
//! [`matmul`] is all that the layers call. [`portable`] is the specification; every other kernel
//! must return the same bits, which the tests of this module check on random and extreme inputs, and
//! `bench-firmware` on the emulated processors themselves.
//! Only modules below this one may contain `unsafe`.

#[cfg(armv6m)]
#[macro_use]
mod armv6m;

#[cfg(all(feature = "std", neon))]
mod aarch64;
#[cfg(feature = "std")]
mod batched;
mod choice;
#[cfg(arm_dsp)]
mod dsp;
#[cfg(arm_fpu)]
mod fpu;
#[cfg(any(arm_dsp, swar, test))]
mod initialized;
#[cfg(any(arm_dsp, swar, test))]
mod planes;
pub mod portable;
#[cfg(any(swar, test))]
mod rescale;
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
mod single;
#[cfg(any(arm_dsp, swar, test))]
mod sparse;
#[cfg(any(swar, test))]
mod swar;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
mod x86_64;

use half::f16;

pub use choice::{Choice, Core, Reason, choice, choice_on};
#[cfg(all(feature = "std", target_arch = "x86_64"))]
#[doc(hidden)]
pub use x86_64::HostKernels;

#[cfg(feature = "std")]
use crate::blob::Column;
use crate::blob::Tensor;
#[cfg(feature = "std")]
use crate::error::Error;
use crate::layers::bk::{self, ChainFormat, ChainParameters};

/// Activation vectors that are multiplied by the same matrix.
#[derive(Clone, Copy, Debug)]
pub struct Vectors<'a> {
    /// Codes, `[batch, cols]`, on either side of zero or, after a ReLU, not below it.
    pub codes: &'a [i16],
    /// One packed [`crate::numeric::Scale`] per vector: what its largest code is worth.
    pub scales: &'a [u32],
}

/// `out[b, r] = Σ_c weight[r, c] · x[b, c] + bias[r]` in Q15.16, saturating.
///
/// Shapes: `matrix` is `[rows, cols]`, `x` is `[batch, cols]`, `out` is `[batch, rows]`. No code of
/// `x` is beyond `matrix.max_code` in magnitude: the sums are proven for those.
///
/// # Panics
///
/// On other shapes, or it leaves outputs as they were: nothing beyond the slices is ever read or written. Where overflow
/// is checked, on larger codes.
// On devices the choice is there once, not as often as layers multiply.
#[cfg_attr(feature = "std", inline)]
#[cfg_attr(not(feature = "std"), inline(never))]
pub fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    if x86_64::matmul(matrix, x, out) {
        return;
    }
    #[cfg(any(arm_dsp, swar))]
    if sparse::matmul(matrix, x, out) {
        return;
    }
    #[cfg(arm_dsp)]
    if dsp::matmul(matrix, x, out) {
        return;
    }
    #[cfg(swar)]
    if swar::matmul(matrix, x, out) {
        return;
    }
    #[cfg(any(arm_dsp, swar))]
    if planes::matmul::<planes::Native>(matrix, x, out) {
        return;
    }
    #[cfg(arm_fpu)]
    if fpu::matmul(matrix, x, out) {
        return;
    }
    #[cfg(all(feature = "std", neon))]
    aarch64::matmul(matrix, x, out);
    #[cfg(all(feature = "std", not(neon)))]
    batched::matmul(batched::Plain, matrix, x, out);
    #[cfg(not(feature = "std"))]
    plain(matrix, x, out);
}

/// What [`Tensor::columns`] may hold for [`matmul`] to read only the weights that meet a code other than zero. Empty
/// for a matrix or a processor for which there is no such kernel, and for one whose copy would take more than `room`
/// bytes: it costs speed alone.
///
/// Shape: `matrix` is `[rows, cols]`, the result `[4 + cols, ⌈rows / 32⌉]`, 64 bytes each.
///
/// # Errors
///
/// [`Error::Memory`] where the heap has no room for it.
#[cfg(feature = "std")]
pub fn by_columns(matrix: &Tensor<'_>, room: usize) -> Result<alloc::vec::Vec<Column>, Error> {
    #[cfg(target_arch = "x86_64")]
    return x86_64::by_columns(matrix, room);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (matrix, room);
        Ok(alloc::vec![])
    }
}

/// [`portable::matmul`], not a part of its caller.
#[cfg(not(feature = "std"))]
#[inline(never)]
fn plain(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    portable::matmul(matrix, x, out);
}

/// Q15.16 to halves, to nearest even. Shapes: `[n]` both.
#[inline]
pub fn to_halves(values: &[i32], halves: &mut [f16]) {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    if x86_64::to_halves(values, halves) {
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
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    if x86_64::row(matrix, row, out) {
        return;
    }
    #[cfg(all(feature = "std", not(target_arch = "x86_64")))]
    if batched::row(batched::Plain, matrix, row, out) {
        return;
    }
    portable::row(matrix, row, out);
}

/// [`bk::half_step`] for a format that admits every potential's parameters.
#[inline(always)]
pub(crate) fn half_step(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    features: &mut [i32],
) {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    if x86_64::half_step(format, parameters, potentials, state, features) {
        return;
    }
    bk::half_step(format, parameters, potentials, state, features);
}

/// Runs loops over whole vectors compiled for the processor at hand, where this build can choose. The
/// functions that `loops` calls have to be inlined into it to profit; integers, and floats without fused
/// operations, give the same bits either way.
#[inline(always)]
pub(crate) fn wide<R>(loops: impl FnOnce() -> R) -> R {
    #[cfg(all(feature = "std", target_arch = "x86_64"))]
    return x86_64::wide(loops);
    #[cfg(not(all(feature = "std", target_arch = "x86_64")))]
    loops()
}

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod tests;
