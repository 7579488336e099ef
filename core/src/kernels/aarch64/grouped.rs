//! Grouped codes of every width for a single vector, as products of bytes.
//!
//! A code is not negative once it is offset, so that it may be multiplied by signed or unsigned
//! bytes. Four rows share the loads of the vector. The lanes of a group's products are joined to
//! one per row, which its scale then multiplies.

use alloc::vec::Vec;
use core::arch::aarch64::*;

use super::codes::narrow;
use super::decode::{Planes, SIXTEEN, Storage, fits, with_storage};
use super::products::{MOST, Products};
use super::requantize::{FOUR, Four, WORD, join};
use crate::blob::Tensor;
use crate::kernels::batched::Rescale;

/// Whether [`matmul`] takes a matrix: at least four rows of whole groups.
pub(super) fn takes(matrix: &Tensor<'_>) -> bool {
    fits(matrix) && matrix.rows >= FOUR && matrix.cols > 0
}

/// A matrix that [`takes`] admits. The codes are within ±127, or from 0 to 255 if `RELU`.
pub(super) fn matmul<P: Products, const RELU: bool>(
    products: P,
    matrix: &Tensor<'_>,
    codes: &[i16],
    rescale: &Rescale,
    out: &mut [i32],
) {
    with_storage!(matrix, rows, P, RELU; products, matrix, codes, rescale, out)
}

#[inline(never)]
fn rows<S: Storage, const GROUP: usize, P: Products, const RELU: bool>(
    products: P,
    matrix: &Tensor<'_>,
    codes: &[i16],
    rescale: &Rescale,
    out: &mut [i32],
) {
    let x = Codes::<P>::new(codes, GROUP.min(P::PIECE), S::OFFSET);
    let layout = matrix.layout();
    let groups = matrix.cols / GROUP;
    for start in (0..matrix.rows).step_by(FOUR) {
        let four = Four::new(matrix, &layout, start);
        assert!(four.codes.len() * 8 == FOUR * groups * GROUP * S::PRECISION.bits() as usize);
        assert!(four.scales.len() >= FOUR * (2 + groups.div_ceil(2)));
        // SAFETY: the assertions above are what `sums` needs.
        let sums = unsafe { sums::<S, GROUP, P, RELU>(products, &four, groups, &x) };
        four.put(matrix, sums, rescale, out);
    }
}

/// Sums of four rows, one in each lane.
///
/// # Safety
///
/// There are four rows of `groups` groups of `GROUP` codes and as many scales.
#[inline(always)]
unsafe fn sums<S: Storage, const GROUP: usize, P: Products, const RELU: bool>(
    products: P,
    four: &Four<'_>,
    groups: usize,
    x: &Codes<P>,
) -> int32x4_t {
    let row = four.codes.len() / FOUR;
    let inputs = GROUP.min(P::PIECE);
    let count = inputs / SIXTEEN;
    // SAFETY: the four rows have the groups, as the caller says; a piece has the bytes that are
    // loaded.
    unsafe {
        let (codes, cols) = (four.codes.as_ptr(), GROUP * groups);
        let mut rows = [
            Planes::first::<S>(codes, cols),
            Planes::first::<S>(codes.add(row), cols),
            Planes::first::<S>(codes.add(2 * row), cols),
            Planes::first::<S>(codes.add(3 * row), cols),
        ];
        let zero = vdupq_n_u8(0);
        let mut total = vdupq_n_s32(0);
        let mut pieces = x.bytes.chunks_exact(inputs).zip(&x.starts);
        for first in (0..groups).step_by(WORD) {
            let mut scales = four.eight_scales(first);
            for _ in first..groups.min(first + WORD) {
                let scale = vreinterpretq_s32_u32(vandq_u32(scales, vdupq_n_u32(15)));
                scales = vshrq_n_u32::<4>(scales);
                for part in 0..GROUP / inputs {
                    let Some((bytes, &start)) = pieces.next() else { break };
                    let mut x = [zero; MOST];
                    for (t, x) in x.iter_mut().enumerate().take(count) {
                        *x = vld1q_u8(bytes.as_ptr().add(SIXTEEN * t));
                    }
                    let mut sums = [vdupq_n_s32(0); FOUR];
                    for (sums, row) in sums.iter_mut().zip(&rows) {
                        let mut codes = [zero; MOST];
                        for (t, codes) in codes.iter_mut().enumerate().take(count) {
                            *codes = row.sixteen::<S, GROUP>(part * count + t);
                        }
                        *sums = products.sums::<RELU>(count, codes, x, start);
                    }
                    total = vmlaq_s32(total, join(sums), scale);
                }
                for row in &mut rows {
                    *row = row.later::<S>(GROUP);
                }
            }
        }
        total
    }
}

/// A vector as bytes, in pieces.
struct Codes<P: Products> {
    bytes: Vec<u8>,
    /// For each piece.
    starts: Vec<P::Start>,
}

impl<P: Products> Codes<P> {
    /// Pieces of `inputs` codes, which are whole registers.
    fn new(codes: &[i16], inputs: usize, offset: u32) -> Self {
        let mut bytes = alloc::vec![0; codes.len()];
        let mut starts = Vec::with_capacity(codes.len() / inputs);
        let pieces = codes.chunks_exact(inputs).zip(bytes.chunks_exact_mut(inputs));
        for (codes, bytes) in pieces {
            let sixteens = codes.as_chunks().0.iter().zip(bytes.as_chunks_mut().0);
            // SAFETY: NEON is part of the target.
            let sums = sixteens.fold(unsafe { vdupq_n_s16(0) }, |sums, (codes, bytes)| {
                let both = narrow(codes, bytes);
                // SAFETY: as above.
                unsafe { vaddq_s16(sums, both) }
            });
            starts.push(P::start(sums, offset.trailing_zeros() as i16));
        }
        Self { bytes, starts }
    }
}
