//! Sparse vectors with NEON, by a matrix's columns.

use alloc::vec::Vec;
use core::arch::aarch64::*;

use super::codes::padded;
use super::decode::{SIXTEEN, decode};
use super::requantize::{FOUR, requantize, store};
use crate::blob::Tensor;
use crate::error::Error;
use crate::kernels::batched::{LONGEST, Rescale};
use crate::kernels::columns::{self, HEAD, LINE, Nonzero, Nonzeros, each_line};
use crate::kernels::matrix::{Column, Matrix};
use crate::kernels::vectors::Vectors;
use crate::numeric::Scale;

/// Registers of sums per line.
const FOURS: usize = LINE / FOUR;

/// See [`columns::copy`]: rows in order.
pub(super) fn copy(matrix: &Tensor<'_>, room: usize) -> Result<Vec<Column>, Error> {
    let decode = |scales: &[u8], codes: &[u8], weights: &mut [i16]| {
        decode(matrix, scales, codes, weights);
    };
    columns::copy(matrix, room, decode, |j| j)
}

/// See [`crate::kernels::kernel::Kernel::run`]; takes vectors that are sparse, if the matrix has
/// its columns.
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let sparse = pays(matrix, x);
    if sparse {
        matmul(matrix, x, out);
    }
    sparse
}

/// Whether the matrix has its columns and the vectors have enough zeros for them.
fn pays(matrix: &Matrix<'_>, x: Vectors<'_>) -> bool {
    if matrix.columns.is_empty() {
        return false;
    }
    let eights = x.codes.as_chunks::<8>().0;
    // SAFETY: NEON is part of the target, and whole arrays are loaded.
    let zeros = unsafe {
        let mut zeros = vdupq_n_s32(0);
        for eight in eights {
            // −1 for each zero.
            let is_zero = vreinterpretq_s16_u16(vceqzq_s16(vld1q_s16(eight.as_ptr())));
            zeros = vpadalq_s16(zeros, is_zero);
        }
        vaddvq_s32(zeros).unsigned_abs() as usize
    };
    columns::pays(matrix, zeros, 8 * eights.len(), x.scales.len())
}

/// As [`crate::kernels::portable::matmul`], bit for bit, for a matrix with its columns.
pub(super) fn matmul(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let Tensor { rows, cols, .. } = **matrix;
    let lines = rows.div_ceil(LINE);
    assert!(cols <= LONGEST && matrix.columns.len() == (HEAD + cols) * lines);
    let (codes, out) = (&x.codes[..x.scales.len() * cols], &mut out[..x.scales.len() * rows]);
    let mut nonzeros = Nonzeros::new();
    let vectors = codes.chunks_exact(cols).zip(x.scales);
    for ((codes, &scale), out) in vectors.zip(out.chunks_exact_mut(rows)) {
        collect(codes, lines, &mut nonzeros);
        let rescale = Rescale::new(matrix, Scale::unpack(scale));
        let product = Product { columns: matrix.columns, lines, nonzeros: &nonzeros, rescale };
        each_line(out, |first, out| product.put(first, out), |first, out| product.put(first, out));
    }
}

/// Collects the nonzero codes of a vector.
fn collect(codes: &[i16], lines: usize, nonzeros: &mut Nonzeros) {
    nonzeros.clear();
    let (chunks, rest) = codes.as_chunks();
    let mut at = HEAD * lines;
    for chunk in chunks {
        collect_chunk(chunk, at, lines, nonzeros);
        at += SIXTEEN * lines;
    }
    if !rest.is_empty() {
        collect_chunk(&padded(rest), at, lines, nonzeros);
    }
}

#[inline(always)]
fn collect_chunk(codes: &[i16; SIXTEEN], at: usize, lines: usize, nonzeros: &mut Nonzeros) {
    // SAFETY: NEON is part of the target, and the whole array is loaded.
    let mut bits = unsafe {
        let low = vld1q_s16(codes.as_ptr());
        let high = vld1q_s16(codes.as_ptr().add(8));
        // A byte of ones or zeros for each code, then four bits of it.
        let bytes = vmovn_high_u16(vmovn_u16(vtstq_s16(low, low)), vtstq_s16(high, high));
        let nibbles = vshrn_n_u16::<4>(vreinterpretq_u16_u8(bytes));
        vget_lane_u64::<0>(vreinterpret_u64_u8(nibbles)) & 0x1111_1111_1111_1111
    };
    while bits != 0 {
        let c = bits.trailing_zeros() as usize / 4;
        bits &= bits - 1;
        // There is room for all codes of the longest vector.
        let _ = nonzeros.push(Nonzero { code: codes[c], at: (at + c * lines) as u32 });
    }
}

/// A matrix and a vector.
struct Product<'a> {
    columns: &'a [Column],
    /// Lines per column.
    lines: usize,
    nonzeros: &'a Nonzeros,
    rescale: Rescale,
}

impl Product<'_> {
    /// Computes the outputs of `N` lines from `first` on.
    #[inline(always)]
    fn put<const N: usize>(&self, first: usize, out: &mut [[i32; LINE]; N]) {
        let columns = &self.columns[first..];
        let column = |at: usize| columns[at..].first_chunk::<N>().expect("a column has all lines");
        // SAFETY: NEON is part of the target, and what is loaded are registers of a line.
        unsafe {
            // Weights are below 2^9 and codes below 2^8 in magnitude, and at most 1024 columns are
            // summed: 2^27.
            let mut sums = [[vdupq_n_s32(0); FOURS]; N];
            for nonzero in self.nonzeros {
                for (sums, line) in sums.iter_mut().zip(column(nonzero.at as usize)) {
                    let weights = line.0.as_ptr().cast::<i16>();
                    for (eight, sums) in sums.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                        let weights = vld1q_s16(weights.add(8 * eight));
                        sums[0] = vmlal_n_s16(sums[0], vget_low_s16(weights), nonzero.code);
                        sums[1] = vmlal_high_n_s16(sums[1], weights, nonzero.code);
                    }
                }
            }
            for (l, (sums, out)) in sums.iter().zip(out).enumerate() {
                for (f, (&sums, out)) in sums.iter().zip(out.as_chunks_mut().0).enumerate() {
                    // Four words of a line of sixteen.
                    let word = |head: usize| {
                        let line = &column((2 * head + f / 4) * self.lines)[l];
                        vld1q_s32(line.0.as_ptr().cast::<i32>().add(f % 4 * FOUR))
                    };
                    *out = store(requantize(sums, word(0), word(1), &self.rescale));
                }
            }
        }
    }
}
