//! The kernels for 64-bit Arm hosts: with NEON, which all of them have, and with the dot products
//! of Armv8.2 where the processor has them, chosen at run time. For little-endian targets: bytes
//! are used as wider lanes.
//!
//! Integer sums are exact in any order.
//!
//! Modules in the order of their imports: `dot`, `halves`; `decode`, `products`; `codes`,
//! `transpose`, `requantize`; `grouped`, `int8`, `fp16`; `fp16_panels`; the kernels of the table
//! (`single`, `panels`, `dot_panels`).
#![allow(unsafe_code)]

mod codes;
mod decode;
mod dot;
pub(super) mod dot_panels;
mod fp16;
mod fp16_panels;
mod grouped;
mod halves;
mod int8;
pub(super) mod panels;
mod products;
mod requantize;
pub(super) mod single;
mod transpose;

pub(super) use halves::to_halves;

use super::batched;
use crate::blob::Tensor;

/// Whether this processor has SDOT and UDOT.
#[inline(always)]
pub(super) fn has_dot_products() -> bool {
    std::arch::is_aarch64_feature_detected!("dotprod")
}

/// [`super::dispatch::row`] for rows of groups that are not too long; returns whether it was done.
pub(super) fn row(matrix: &Tensor<'_>, row: usize, out: &mut [i32]) -> bool {
    batched::row(panels::Neon, matrix, row, out)
}
