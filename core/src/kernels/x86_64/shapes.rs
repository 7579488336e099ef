//! The conditions of the kernels with AVX2 and AVX-512 VNNI, and what was measured to be faster.
//!
//! How many times as fast AVX-512 VNNI is as AVX2 (`resnet-bk-benchmarks kernels` prints it); more
//! shapes are in `docs/numerics.md`, section 12:
//!
//! | storage | vectors | inputs | Xeon, Emerald Rapids | EPYC, Zen 4 |
//! |---|---|---|---|---|
//! | INT4 | one | 128 | 1.3 | 0.6, of an earlier kernel |
//! | INT4 | one | 1024 | 1.7 | 1.3, of an earlier kernel |
//! | INT8 | one | 128 | 1.5 | 1.3 |
//! | INT8 | one | 1024 | 1.1 | 1.6 |
//! | INT4 | 128 | 128 | 1.6 | |
//! | INT8 | 128 | 128 | 2.1 | |
//!
//! Where they disagree, a processor without AVX512-FP16, which Zen 4 lacks, takes AVX2.

use super::{int4, vnni_int4};
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::{LONGEST, ROWS};
use crate::kernels::choice::Reason;

/// Inputs from which INT4 of one vector was measured to be faster with VNNI on Zen 4, too.
const LONG: usize = 1024;

/// For `vnni`, wherever it is faster with any units.
pub(in crate::kernels) fn vnni(matrix: &Tensor<'_>) -> Result<(), Reason> {
    by_vnni(matrix, matrix.precision == Precision::Int8 || matrix.cols >= LONG)
}

/// For `vnni`, where it is faster only with wide units.
pub(in crate::kernels) fn wide_vnni(matrix: &Tensor<'_>) -> Result<(), Reason> {
    by_vnni(matrix, matrix.precision != Precision::Int8 && matrix.cols < LONG)
}

/// INT8, or INT4 in groups of 32 that divide the row, of at least one block of rows; `faster` as
/// measured.
fn by_vnni(matrix: &Tensor<'_>, faster: bool) -> Result<(), Reason> {
    let int4 = fits_bytes(matrix) && vnni_int4::fits(matrix);
    if matrix.precision != Precision::Int8 && !int4 || !faster {
        return Err(Reason::Storage);
    }
    if matrix.rows >= ROWS && matrix.cols > 0 { Ok(()) } else { Err(Reason::Shape) }
}

/// For `single`.
pub(in crate::kernels) fn avx2(matrix: &Tensor<'_>) -> Result<(), Reason> {
    let int4 = matrix.precision == Precision::Int4 && int4::fits(matrix);
    let fits = !matrix.precision.is_grouped() || matrix.cols <= LONGEST;
    if int4 || matrix.rows >= ROWS && matrix.cols > 0 && fits { Ok(()) } else { Err(Reason::Shape) }
}

/// For `vnni_panels`: INT8 or INT4 in groups of 32 that divide the row.
pub(in crate::kernels) fn vnni_panels(matrix: &Tensor<'_>) -> Result<(), Reason> {
    let int8 = matrix.precision == Precision::Int8 && matrix.cols.is_multiple_of(32);
    if !int8 && !fits_bytes(matrix) {
        return Err(Reason::Storage);
    }
    if matrix.codes.is_empty() { Err(Reason::Shape) } else { Ok(()) }
}

/// Whether the kernels for products of bytes are for this matrix: INT4 in groups of 32 that divide
/// the row.
#[inline(always)]
pub(super) fn fits_bytes(matrix: &Tensor<'_>) -> bool {
    matrix.precision == Precision::Int4 && matrix.group == 32 && matrix.cols.is_multiple_of(32)
}

/// Whether there are so few vectors that one by one is faster: decoding rows once for all of them
/// takes the time of five (INT4) or nine (INT8).
#[inline(always)]
pub(super) fn few(matrix: &Tensor<'_>, vectors: usize) -> bool {
    match matrix.precision {
        _ if vectors <= 1 => vectors == 1,
        Precision::Int4 => vectors <= 4 && int4::fits(matrix),
        Precision::Int8 => vectors <= 8,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was measured on both kinds of processors, the choice on each.
    #[test]
    fn the_faster_kernel_is_chosen_where_it_was_measured() {
        use Precision::{Int4, Int8};
        for (precision, cols, zen_4) in [
            (Int4, 128, false),
            (Int4, 256, false),
            (Int4, 1024, true),
            (Int8, 128, true),
            (Int8, 1024, true),
        ] {
            let group = if precision == Int4 { 32 } else { 0 };
            let matrix = Tensor {
                precision,
                rows: 128,
                cols,
                group,
                exponent: 31,
                bias_exponent: 15,
                max_code: 127,
                codes: &[],
                scales: &[],
                biases: &[],
            };
            let case = format_args!("{precision:?} of {cols}");
            assert_eq!(vnni(&matrix).is_ok(), zen_4, "{case}");
            // Emerald Rapids has both.
            assert_eq!(wide_vnni(&matrix).is_ok(), !zen_4, "{case}");
        }
    }
}
