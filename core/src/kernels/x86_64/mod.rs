//! The kernels for x86-64 hosts: with AVX2, and with AVX-512 VNNI where the processor has it,
//! chosen at run time.
//!
//! Integer sums are exact in any order. An FP16 weight (11 bits) times a code (8 bits) is exact in
//! f32, so a fused multiply-add rounds once where the contract rounds once, and register lane j is
//! the contract's lane j.
//!
//! Modules in the order of their imports: `detect`, `registers`, `vnni_registers`; `requantize`,
//! `tile`, `decode`; `int4`, `int8`, `vnni_int4`; `shapes`; the kernels of the table (`single`,
//! `fp16_panels`, `int4_panels`, `panels`, `vnni`, `vnni_panels`, `columns`) and `chain`.
#![allow(unsafe_code)]

mod chain;
pub(super) mod columns;
mod decode;
mod detect;
mod fp16_panels;
mod int4;
mod int4_panels;
mod int8;
pub(super) mod panels;
mod registers;
mod requantize;
pub(super) mod shapes;
pub(super) mod single;
mod tile;
pub(super) mod vnni;
mod vnni_int4;
pub(super) mod vnni_panels;
mod vnni_registers;

use alloc::vec::Vec;

use half::f16;

use detect::Avx2;
pub(super) use detect::Features;
pub use detect::HostKernels;

use super::matrix::Column;
use super::{batched, portable};
use crate::blob::{ChainFormat, ChainParameters, Tensor};
use crate::error::Error;

/// The weights of a matrix by columns, for [`columns`]; empty if the processor or the matrix has no
/// such kernel, or if the copy would exceed `room` bytes.
///
/// # Errors
///
/// [`Error::Memory`] if the heap has less.
pub(super) fn by_columns(matrix: &Tensor<'_>, room: usize) -> Result<Vec<Column>, Error> {
    if Avx2::detect().is_none() {
        return Ok(Vec::new());
    }
    // SAFETY: the only requirement is the instruction set, checked just above.
    unsafe { columns::copy(matrix, room) }
}

/// The kernel of [`columns`] for dense vectors, too; returns whether there are columns.
#[cfg(test)]
pub(super) fn matmul_by_columns(
    matrix: &super::matrix::Matrix<'_>,
    x: super::vectors::Vectors<'_>,
    out: &mut [i32],
) -> bool {
    if matrix.columns.is_empty() || Avx2::detect().is_none() {
        return false;
    }
    // SAFETY: the only requirement is the instruction set, checked just above.
    unsafe { columns::matmul(matrix, x, out) };
    true
}

/// [`super::dispatch::row`] where the processor has AVX2; returns whether it was done.
#[inline]
pub(super) fn row(matrix: &Tensor<'_>, row: usize, out: &mut [i32]) -> bool {
    let Some(avx2) = Avx2::detect() else { return false };
    with_simd(
        #[inline(always)]
        || {
            batched::row(avx2, matrix, row, out) || {
                portable::row(matrix, row, out);
                true
            }
        },
    )
}

/// [`super::dispatch::to_halves`] where the processor converts floats to halves; returns whether it
/// was done.
#[inline]
pub(super) fn to_halves(values: &[i32], halves: &mut [f16]) -> bool {
    if Avx2::detect().is_none() {
        return false;
    }
    // SAFETY: the only requirement is the instruction set, checked just above.
    unsafe { requantize::to_halves(values, halves) };
    true
}

/// See [`super::dispatch::with_simd`].
#[inline(always)]
pub(super) fn with_simd<R>(loops: impl FnOnce() -> R) -> R {
    if Avx2::detect().is_none() {
        return loops();
    }
    // SAFETY: the only requirement of `with_avx2` is the instruction set, checked just above.
    unsafe { with_avx2(loops) }
}

#[target_feature(enable = "avx2,lzcnt,bmi1,bmi2")]
fn with_avx2<R>(loops: impl FnOnce() -> R) -> R {
    loops()
}

/// See [`super::dispatch::half_step`]: where the processor has AVX2 and potentials come in fours.
#[inline]
pub(super) fn half_step(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    features: &mut [i32],
) -> bool {
    if Avx2::detect().is_none() || !potentials.len().is_multiple_of(4) {
        return false;
    }
    // SAFETY: the only requirement is the instruction set, checked just above.
    unsafe { chain::half_step(format, parameters, potentials, state, features) };
    true
}
