//! Kernels for cores that multiply 32 bits and have no DSP extension (Cortex-M0 and M3, RV32IMC).
//!
//! A vector is prepared once, then all rows are summed in integers, then all sums become outputs: three
//! loops, so that none needs the registers of another.
//!
//! INT4: two nibbles in the halves of one register times two codes in the halves of another leave, in the
//! upper half of the product, both products' sum ([`int4`]). INT8: four weights of a word by shifts alone on
//! cores that load words best ([`int8`]).

#[cfg(armv6m)]
pub(super) mod armv6m;
#[cfg(armv7m)]
mod armv7m;
mod int4;
mod int8;
#[cfg(all(swar, target_arch = "riscv32"))]
mod riscv32;

use super::choice::{self, BLOCK, LONGEST};
use super::portable::batch;
use super::{Vectors, rescale};
use crate::blob::{Precision, Tensor};

// Sums of the longest rows stay below 2^24.
const _: () = assert!(LONGEST * 255 * (1 << 7) < 1 << 24 && LONGEST * 255 * (15 << 3) < 1 << 24);

/// Multiplies where there is a kernel for the matrix; says whether there was. Not a part of its
/// caller, whose stack would have room for every kernel's vector at once.
#[inline(never)]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    if choice::swar(matrix).is_err() {
        return false;
    }
    let Ok(codes) = bytemuck::try_cast_slice::<u8, u32>(matrix.codes) else { return false };
    let sums: fn(&Tensor<'_>, &[u32], &[i16], &mut [i32]) = match matrix.precision {
        Precision::Int8 => int8::sums,
        _ if matrix.max_code <= 127 => int4::sums::<4>,
        _ => int4::sums::<2>,
    };
    for (b, vector, scale) in batch(x, matrix.cols) {
        let out = &mut out[b * matrix.rows..][..matrix.rows];
        sums(matrix, codes, vector, out);
        rescale::finish(matrix, scale, out);
    }
    true
}
