//! INT8 for a single vector, as products of bytes.
//!
//! For codes within ±127 weights are signed; behind a ReLU they are offset by 128, as unsigned as
//! the codes, and 128 times the sum of codes is subtracted.

use core::arch::aarch64::*;

use super::codes::{padded, to_bytes};
use super::decode::SIXTEEN;
use super::products::Products;
use super::requantize::{FOUR, Four, join};
use crate::blob::{INT8_OFFSETS, Tensor};
use crate::kernels::batched::Rescale;

/// A matrix of at least four rows. The codes are within ±127, or from 0 to 255 if `RELU`.
pub(super) fn matmul<P: Products, const RELU: bool>(
    products: P,
    matrix: &Tensor<'_>,
    codes: &[i16],
    rescale: &Rescale,
    out: &mut [i32],
) {
    let (x, sum) = to_bytes(codes);
    let layout = matrix.layout();
    let (row, whole) = (matrix.cols, matrix.cols / SIXTEEN);
    for start in (0..matrix.rows).step_by(FOUR) {
        let four = Four::new(matrix, &layout, start);
        assert!(four.codes.len() == FOUR * row && x.len() >= whole);
        // SAFETY: NEON is part of the target; the assertion says that the rows have all the bytes
        // that are loaded.
        let sums = unsafe {
            let at = |r: usize| four.codes.as_ptr().add(r * row);
            let rows = [at(0), at(1), at(2), at(3)];
            let mut sums = [vdupq_n_s32(0); FOUR];
            for (i, x) in x[..whole].iter().enumerate() {
                let x = vld1q_u8(x.as_ptr());
                for (sum, row) in sums.iter_mut().zip(rows) {
                    let weights = weights::<RELU>(&*row.add(SIXTEEN * i).cast());
                    *sum = products.add::<RELU>(*sum, weights, x);
                }
            }
            if let Some(x) = x.get(whole) {
                let x = vld1q_u8(x.as_ptr());
                for (r, sum) in sums.iter_mut().enumerate() {
                    let rest = padded(&four.codes[r * row..][..row][SIXTEEN * whole..]);
                    *sum = products.add::<RELU>(*sum, weights::<RELU>(&rest), x);
                }
            }
            let offset = if RELU { 128 * sum } else { 0 };
            vsubq_s32(join(sums), vdupq_n_s32(offset))
        };
        four.put(matrix, sums, rescale, out);
    }
}

/// Sixteen weights of a row from an even place on: signed, or plus 128 if `RELU`.
#[inline(always)]
pub(super) fn weights<const RELU: bool>(bytes: &[u8; SIXTEEN]) -> uint8x16_t {
    let [even, odd] = INT8_OFFSETS.map(|offset| if RELU { offset ^ 128 } else { offset });
    // SAFETY: NEON is part of the target, and the whole array is loaded.
    unsafe {
        let flips = vreinterpretq_u8_u16(vdupq_n_u16(u16::from_le_bytes([even, odd])));
        veorq_u8(vld1q_u8(bytes.as_ptr()), flips)
    }
}
