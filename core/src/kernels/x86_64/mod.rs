//! The kernels with AVX2, and with AVX-512 VNNI where the processor has it, too, chosen at run time.
//!
//! Integer sums are exact in any order. An FP16 weight (11 bits) times a code (8 bits) is exact in
//! f32, so a fused multiply-add rounds once where the contract rounds once, and register lane j is
//! the contract's lane j.
#![allow(unsafe_code)]

mod chain;
mod choice;
mod columns;
mod decode;
mod detect;
mod finish;
mod fp16_panels;
mod int4;
mod int4_panels;
mod int8;
mod panels;
mod single;
mod tile;
mod vnni;
mod vnni_int4;
mod vnni_panels;

use alloc::vec::Vec;

use half::f16;

use detect::Avx2;
#[doc(hidden)]
pub use detect::HostKernels;
pub(super) use detect::Vnni;

use super::{Reason, Vectors, batched, portable};
use crate::blob::{Column, Precision, Tensor};
use crate::error::Error;
use crate::layers::bk::{ChainFormat, ChainParameters};

/// Multiplies where the processor has AVX2; says whether it did.
#[inline]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    matmul_with(choice::vnni(matrix, x.scales.len()), matrix, x, out)
}

/// As [`matmul`], with AVX2 alone or, wherever there is such a kernel, with what `vnni` proves to
/// be there.
#[inline]
pub(super) fn matmul_with(
    vnni: Option<Vnni>,
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) -> bool {
    let Some(avx2) = Avx2::detect() else { return false };
    // SAFETY: an `Avx2` and a `Vnni` exist only where the processor has the instructions.
    unsafe {
        if columns::pays(matrix, x) {
            columns::matmul(matrix, x, out);
        } else if let [_] = x.scales {
            one(vnni, matrix, x, out);
        } else if choice::one_by_one(matrix, x.scales.len()) {
            let (count, &Tensor { rows, cols, .. }) = (x.scales.len(), matrix);
            let (codes, out) = (&x.codes[..count * cols], &mut out[..count * rows]);
            let vectors = codes.chunks_exact(cols).zip(x.scales.chunks_exact(1));
            for ((codes, scales), out) in vectors.zip(out.chunks_exact_mut(rows)) {
                one(vnni, matrix, Vectors { codes, scales }, out);
            }
        } else {
            several(avx2, vnni, matrix, x, out);
        }
    }
    true
}

/// A single vector, rows where they lie.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn one(vnni: Option<Vnni>, matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    // SAFETY: a `Vnni` exists only where the processor has the instructions.
    if vnni.is_none() || !unsafe { vnni::matmul(matrix, x, out) } {
        single::matmul(matrix, x, out);
    }
}

/// Any number of vectors, rows decoded once for all.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn several(avx2: Avx2, vnni: Option<Vnni>, matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    if matrix.codes.is_empty() {
        // No rows, or nothing but biases, which the plain way knows.
        return panels(avx2, matrix, x, out);
    }
    if matrix.precision == Precision::Fp16 {
        return fp16_panels::matmul(matrix, x, out);
    }
    // SAFETY: a `Vnni` exists only where the processor has the instructions.
    if vnni.is_some() && unsafe { vnni_panels::matmul(matrix, x, out) } {
        return;
    }
    if !fits_bytes(matrix) {
        panels(avx2, matrix, x, out);
    } else if matrix.max_code <= 127 {
        int4_panels::matmul::<false>(matrix, x, out);
    } else if not_negative(x.codes) {
        int4_panels::matmul::<true>(matrix, x, out);
    } else {
        panels(avx2, matrix, x, out);
    }
}

/// The kernels with AVX-512 VNNI alone; says whether there is one for these shapes.
#[cfg(test)]
pub(super) fn matmul_by_vnni(
    _: Vnni,
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) -> bool {
    // SAFETY: a `Vnni` exists only where the processor has the instructions.
    unsafe {
        if let [_] = x.scales {
            vnni::matmul(matrix, x, out)
        } else {
            vnni_panels::matmul(matrix, x, out)
        }
    }
}

/// The kernels for several vectors, for any number of them; says whether the processor has AVX2.
#[cfg(test)]
pub(super) fn matmul_by_panels(
    vnni: Option<Vnni>,
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) -> bool {
    let Some(avx2) = Avx2::detect() else { return false };
    // SAFETY: an `Avx2` and a `Vnni` exist only where the processor has the instructions.
    unsafe { several(avx2, vnni, matrix, x, out) };
    true
}

/// For [`fn@super::choice`]: the kernel for a vector on its own, and whether it takes the matrix.
pub(super) fn candidate(matrix: &Tensor<'_>) -> (&'static str, Result<(), Reason>) {
    if Avx2::detect().is_none() {
        return ("AVX2", Err(Reason::Storage));
    }
    match choice::vnni(matrix, 1) {
        Some(_) if vnni::admits(matrix) => ("AVX-512 VNNI", Ok(())),
        _ => ("AVX2", single::admits(matrix)),
    }
}

/// See [`super::by_columns`].
pub(super) fn by_columns(matrix: &Tensor<'_>, room: usize) -> Result<Vec<Column>, Error> {
    if Avx2::detect().is_none() {
        return Ok(Vec::new());
    }
    // SAFETY: the only requirement is the instruction set, checked just above.
    unsafe { columns::copy(matrix, room) }
}

/// [`super::matmul`] by columns, whether it pays or not; says whether the processor has AVX2 and there are any.
#[cfg(test)]
pub(super) fn matmul_by_columns(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    if matrix.columns.is_empty() || Avx2::detect().is_none() {
        return false;
    }
    // SAFETY: the only requirement is the instruction set, checked just above.
    unsafe { columns::matmul(matrix, x, out) };
    true
}

/// [`super::row`] where the processor has AVX2; says whether it was done.
#[inline]
pub(super) fn row(matrix: &Tensor<'_>, row: usize, out: &mut [i32]) -> bool {
    let Some(avx2) = Avx2::detect() else { return false };
    wide(
        #[inline(always)]
        || {
            batched::row(avx2, matrix, row, out) || {
                portable::row(matrix, row, out);
                true
            }
        },
    )
}

/// [`super::to_halves`] where the processor converts floats to halves; says whether it was done.
#[inline]
pub(super) fn to_halves(values: &[i32], halves: &mut [f16]) -> bool {
    if Avx2::detect().is_none() {
        return false;
    }
    // SAFETY: the only requirement is the instruction set, checked just above.
    unsafe { finish::to_halves(values, halves) };
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

/// [`crate::layers::bk::half_step`] where the processor has AVX2 and potentials come in fours; says whether
/// it was done.
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

/// Whether the kernels for products of bytes are for this matrix: INT4 in groups of 32 that divide the row.
#[inline(always)]
fn fits_bytes(matrix: &Tensor<'_>) -> bool {
    matrix.precision == Precision::Int4 && matrix.group == 32 && matrix.cols.is_multiple_of(32)
}

/// Whether codes fit bytes without a sign. A max code of 255 promises no more than that none is beyond it.
#[inline(always)]
fn not_negative(codes: &[i16]) -> bool {
    codes.iter().fold(0, |all, code| all | code) >= 0
}

/// Compiled as a whole for the instruction set, so that decoding profits too.
#[target_feature(enable = "avx2,fma")]
fn panels(avx2: Avx2, matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    batched::matmul(avx2, matrix, x, out);
}
