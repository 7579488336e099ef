//! The kernels with AVX2, chosen at run time.
//!
//! Integer sums are exact in any order. An FP16 weight (11 bits) times a code (8 bits) is exact in
//! f32, so a fused multiply-add rounds once where the contract rounds once, and register lane j is
//! the contract's lane j.
#![allow(unsafe_code)]

mod decode;
mod finish;
mod int4;
mod panels;
mod single;

use super::{Vectors, batched};
use crate::blob::Tensor;

/// Multiplies where the processor has AVX2; says whether it did.
#[inline]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let Some(avx2) = Avx2::detect() else { return false };
    // SAFETY: an `Avx2` exists only where the processor has the instructions.
    unsafe {
        match x.scales {
            [_] => single::matmul(matrix, x, out),
            _ => panels(avx2, matrix, x, out),
        }
    }
    true
}

/// See [`super::wide`].
#[inline(always)]
pub(super) fn wide<R>(loops: impl FnOnce() -> R) -> R {
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

/// Compiled as a whole for the instruction set, so that decoding profits too.
#[target_feature(enable = "avx2,fma")]
fn panels(avx2: Avx2, matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    batched::matmul(avx2, matrix, x, out);
}

/// Proof that this processor has AVX2 and what came with it: FMA, F16C, LZCNT, BMI.
#[derive(Clone, Copy)]
struct Avx2(());

impl Avx2 {
    #[inline(always)]
    fn detect() -> Option<Self> {
        let found = std::arch::is_x86_feature_detected!("avx2")
            && std::arch::is_x86_feature_detected!("fma")
            && std::arch::is_x86_feature_detected!("f16c")
            && std::arch::is_x86_feature_detected!("lzcnt")
            && std::arch::is_x86_feature_detected!("bmi1")
            && std::arch::is_x86_feature_detected!("bmi2");
        found.then_some(Self(()))
    }
}
