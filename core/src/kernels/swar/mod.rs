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

use super::portable::batch;
use super::{Vectors, rescale};
use crate::blob::{Precision, Tensor};

/// Longest row whose prepared vector is kept on the stack. Sums of rows up to it stay below 2^24:
/// 512 · 2^7 · 255, and 512 · 15 · 2^3 · 255, are.
const LONGEST: usize = 512;
/// Inputs of a group of INT4, and those that loops take at a time.
const BLOCK: usize = 32;

/// Multiplies where there is a kernel for the matrix; says whether there was. Not a part of its
/// caller, whose stack would have room for every kernel's vector at once.
#[inline(never)]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let fits = matrix.cols <= LONGEST && matrix.cols.is_multiple_of(BLOCK) && matrix.cols > 0;
    // Loads of words ask for words that are aligned as such.
    let Ok(codes) = bytemuck::try_cast_slice::<u8, u32>(matrix.codes) else { return false };
    if !fits || codes.is_empty() || matrix.biases.is_empty() || matrix.max_code > 255 {
        return false;
    }
    let sums: fn(&Tensor<'_>, &[u32], &[i16], &mut [i32]) = match matrix.precision {
        Precision::Int8 => int8::sums,
        Precision::Int4 if matrix.group == BLOCK && matrix.cols.is_multiple_of(2 * BLOCK) => {
            if matrix.max_code <= 127 {
                int4::sums::<4>
            } else {
                int4::sums::<2>
            }
        }
        _ => return false,
    };
    for (b, vector, scale) in batch(x, matrix.cols) {
        let out = &mut out[b * matrix.rows..][..matrix.rows];
        sums(matrix, codes, vector, out);
        rescale::finish(matrix, scale, out);
    }
    true
}
