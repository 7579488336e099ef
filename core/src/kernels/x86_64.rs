//! The batched kernels compiled for AVX2, chosen at run time.
//!
//! Integer sums are exact in any order and the FP16 kernel names its lanes, so what the compiler
//! makes of the wider registers cannot change a bit.
#![allow(unsafe_code)]

use super::{Vectors, batched};
use crate::blob::Tensor;

/// Multiplies where the processor has AVX2; says whether it did.
#[inline]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    if !std::arch::is_x86_feature_detected!("avx2") {
        return false;
    }
    // SAFETY: the only requirement of `matmul_avx2` is the instruction set, checked just above.
    unsafe { matmul_avx2(matrix, x, out) };
    true
}

#[target_feature(enable = "avx2")]
fn matmul_avx2(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    batched::matmul(matrix, x, out);
}
