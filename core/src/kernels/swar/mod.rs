//! Kernels for cores with a 32-bit multiplier and no DSP extension (Cortex-M0 and M3, RV32IMC):
//! SIMD within a register.
//!
//! A vector is prepared once, then all rows are summed, then all sums are requantized: three loops,
//! so that none competes for the registers of another.
//!
//! INT4: two nibbles in the halves of one register times two codes in the halves of another leave
//! their dot product in the high half ([`int4`]). INT8: four rows at a time where loads extend
//! signs, else the four weights of a word by shifts alone ([`int8`]).

mod int4;
mod int8;
mod layout;
#[cfg(all(swar, target_arch = "riscv32"))]
mod riscv32;
#[cfg(thumb1)]
mod thumb1;
#[cfg(all(swar, thumb2))]
mod thumb2;

use super::matrix::Matrix;
use super::portable::batch;
use super::requantize::requantize;
use super::shapes::LONGEST;
use super::vectors::Vectors;
use crate::blob::{Precision, Tensor};

// Sums of the longest rows are below 2^24.
const _: () = assert!(LONGEST * 255 * (1 << 7) < 1 << 24 && LONGEST * 255 * (15 << 3) < 1 << 24);

/// See [`super::kernel::Kernel::run`]; takes every vector. Outlined: inlined, the caller's frame
/// would hold the vectors of all kernels at once. Safe code and checks of its own: no promise of
/// the table is needed here.
#[inline(never)]
pub(super) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let Ok(codes) = bytemuck::try_cast_slice::<u8, u32>(matrix.codes) else { return false };
    let sums: fn(&Tensor<'_>, &[u32], &[i16], &mut [i32]) = match matrix.precision {
        Precision::Int8 => int8::sums,
        _ if matrix.max_code <= 127 => int4::sums::<4>,
        _ => int4::sums::<2>,
    };
    for (b, vector, scale) in batch(x, matrix.cols) {
        let out = &mut out[b * matrix.rows..][..matrix.rows];
        sums(matrix, codes, vector, out);
        requantize(matrix, scale, out);
    }
    true
}
