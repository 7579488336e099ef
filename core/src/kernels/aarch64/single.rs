//! Single vectors with NEON.

use super::dot::DotProducts;
use super::products::{Products, Widening};
use super::requantize::{FOUR, Four, load};
use super::{fp16, grouped, int8};
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::{self, LONGEST, Rescale};
use crate::kernels::choice::Reason;
use crate::kernels::matrix::Matrix;
use crate::kernels::portable::fp16_unit;
use crate::kernels::vectors::{Vectors, not_negative};
use crate::numeric::Scale;

/// See [`crate::kernels::kernel::Kernel::run`]; takes one vector, unless a code behind a ReLU is
/// negative.
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    x.scales.len() == 1 && each(Widening, matrix, x, out)
}

/// As [`run`], with dot products.
///
/// # Safety
///
/// The processor has the dot products of Armv8.2.
pub(in crate::kernels) unsafe fn run_with_dot_products(
    matrix: &Matrix<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) -> bool {
    // SAFETY: as the caller says.
    x.scales.len() == 1 && each(unsafe { DotProducts::promised() }, matrix, x, out)
}

/// Any number of vectors, without dot products.
pub(super) fn one_by_one(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    each(Widening, matrix, x, out)
}

fn each(products: impl Products, matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    x.one_by_one(matrix, out, |codes, scale, out| matmul(products, matrix, codes, scale, out))
}

/// One vector; returns whether it was taken.
fn matmul<P: Products>(
    products: P,
    matrix: &Tensor<'_>,
    codes: &[i16],
    scale: u32,
    out: &mut [i32],
) -> bool {
    let scale = Scale::unpack(scale);
    if matrix.precision == Precision::Fp16 {
        fp16::matmul(matrix, codes, fp16_unit(matrix, scale), out);
        return true;
    }
    let relu = matrix.max_code > 127;
    if relu && !not_negative(codes) {
        return false;
    }
    let rescale = &Rescale::new(matrix, scale);
    let by_groups = grouped::takes(matrix);
    match (matrix.precision, relu) {
        (Precision::Int8, false) => {
            int8::matmul::<P, false>(products, matrix, codes, rescale, out);
        }
        (Precision::Int8, true) => int8::matmul::<P, true>(products, matrix, codes, rescale, out),
        (_, false) if by_groups => {
            grouped::matmul::<P, false>(products, matrix, codes, rescale, out);
        }
        (_, true) if by_groups => {
            grouped::matmul::<P, true>(products, matrix, codes, rescale, out);
        }
        _ => decoded(matrix, codes, rescale, out),
    }
    true
}

/// All matrices of at least four rows; those in groups other than of 16, 32 or 64 that divide the
/// row up to a length.
pub(in crate::kernels) fn admits(matrix: &Tensor<'_>) -> Result<(), Reason> {
    let any = !matrix.precision.is_grouped() || grouped::takes(matrix);
    let fits = matrix.rows >= FOUR && matrix.cols > 0 && (any || matrix.cols <= LONGEST);
    if fits { Ok(()) } else { Err(Reason::Shape) }
}

/// Any planes and any group size: a decoded weight is below 2^9 in magnitude.
fn decoded(matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]) {
    let mut weights = [0i16; LONGEST];
    let weights = &mut weights[..codes.len()];
    let layout = matrix.layout();
    for start in (0..matrix.rows).step_by(FOUR) {
        let four = Four::new(matrix, &layout, start);
        let sums = core::array::from_fn(|r| {
            let row = &four.codes[r * layout.row_codes..][..layout.row_codes];
            let scales = &four.scales[r * layout.row_scales..][..layout.row_scales];
            batched::decode(matrix, scales, row, weights);
            weights.iter().zip(codes).map(|(&w, &x)| w as i32 * x as i32).sum()
        });
        four.put(matrix, load(&sums), rescale, out);
    }
}
