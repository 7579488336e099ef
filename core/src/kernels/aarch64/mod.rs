//! The kernels for 64-bit Arm hosts: with NEON, which all of them have, and with the dot products
//! of Armv8.2 and the products of matrices of Armv8.6 where the processor has them, chosen at run
//! time. For little-endian targets: bytes are used as wider lanes.
//!
//! Integer sums are exact in any order.
//!
//! Modules in the order of their imports: `dot`, `halves`, `transpose`; `decode`, `products`;
//! `codes`, `requantize`; `tile`, `matrix_products`; `grouped`, `int8`, `fp16`; `fp16_panels`; the
//! kernels of the table (`single`, `panels`, `byte_panels`, `columns`) and `chain`.
#![allow(unsafe_code)]

pub(super) mod byte_panels;
mod chain;
mod codes;
pub(super) mod columns;
mod decode;
mod dot;
mod fp16;
mod fp16_panels;
mod grouped;
mod halves;
mod int8;
mod matrix_products;
pub(super) mod panels;
mod products;
mod requantize;
pub(super) mod single;
mod tile;
mod transpose;

use alloc::vec::Vec;

use half::f16;

use super::batched;
use super::matrix::Column;
use crate::blob::{ChainFormat, ChainParameters, Tensor};
use crate::error::Error;

/// Whether this processor has SDOT and UDOT.
#[inline(always)]
pub(super) fn has_dot_products() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// Whether this processor has SMMLA and UMMLA.
#[inline(always)]
pub(super) fn has_matrix_products() -> bool {
    std::arch::is_aarch64_feature_detected!("i8mm")
}

/// The weights of a matrix by columns, for [`columns`]; empty if the matrix has no such kernel, or
/// if the copy would exceed `room` bytes.
///
/// # Errors
///
/// [`Error::Memory`] if the heap has less.
pub(super) fn by_columns(matrix: &Tensor<'_>, room: usize) -> Result<Vec<Column>, Error> {
    columns::copy(matrix, room)
}

/// The kernel of [`columns`] for dense vectors, too; returns whether there are columns.
#[cfg(test)]
pub(super) fn matmul_by_columns(
    matrix: &super::matrix::Matrix<'_>,
    x: super::vectors::Vectors<'_>,
    out: &mut [i32],
) -> bool {
    let any = !matrix.columns.is_empty();
    if any {
        columns::matmul(matrix, x, out);
    }
    any
}

/// [`super::dispatch::row`] for rows of groups that are not too long; returns whether it was done.
#[inline]
pub(super) fn row(matrix: &Tensor<'_>, row: usize, out: &mut [i32]) -> bool {
    batched::row(panels::Neon, matrix, row, out)
}

/// [`super::dispatch::to_halves`]; returns true.
#[inline]
pub(super) fn to_halves(values: &[i32], halves: &mut [f16]) -> bool {
    halves::to_halves(values, halves);
    true
}

/// See [`super::dispatch::half_step`]: where potentials come in fours.
#[inline]
pub(super) fn half_step(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    features: &mut [i32],
) -> bool {
    let fours = potentials.len().is_multiple_of(4);
    if fours {
        chain::half_step(format, parameters, potentials, state, features);
    }
    fours
}
