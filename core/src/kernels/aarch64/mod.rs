//! The kernels with NEON, which every 64-bit Arm host has, and with the dot products of Armv8.2 where the
//! processor has them, chosen at run time. For little-endian targets: bytes are looked at as wider lanes.
#![allow(unsafe_code)]

mod dot;
mod finish;
mod panels;
mod single;

use super::{Reason, Vectors, batched};
use crate::blob::Tensor;

/// Multiplies, with dot products where the processor has them.
#[inline]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    matmul_with(Dot::detect(), matrix, x, out);
}

/// Multiplies with NEON alone, or with what `dot` proves to be there.
#[inline]
pub(super) fn matmul_with(dot: Option<Dot>, matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    match (x.scales, dot) {
        // SAFETY: a `Dot` exists only where the processor has the instructions.
        ([_], Some(_)) => unsafe { single::matmul_dot(matrix, x, out) },
        ([_], None) => single::matmul(matrix, x, out),
        _ => batched::matmul(panels::Neon, matrix, x, out),
    }
}

/// For [`fn@super::choice`]: the kernel for a vector on its own, and whether it takes the matrix.
pub(super) fn candidate(matrix: &Tensor<'_>) -> (&'static str, Result<(), Reason>) {
    let name = if Dot::detect().is_some() { "NEON with dot products" } else { "NEON" };
    (name, single::admits(matrix))
}

/// Proof that this processor has SDOT and UDOT.
#[derive(Clone, Copy)]
pub(super) struct Dot(());

impl Dot {
    #[inline(always)]
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("dotprod").then_some(Self(()))
    }
}
