//! Sparse vectors with AVX2, by a matrix's columns.
//!
//! `madd` multiplies by two codes, so two such columns are interleaved in registers. Storing
//! neighbouring columns interleaved would save that, but read an unused column most of the time:
//! measured to be slower for single vectors, and slightly faster for many.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::decode::decode;
use super::registers::{self, load_i16 as load, padded, set, store};
use super::requantize::Requantizer;
use crate::blob::{Precision, Tensor};
use crate::error::Error;
use crate::kernels::batched::{LONGEST, Portable, Rescale};
use crate::kernels::columns::{self, HEAD, LINE, Nonzero, Nonzeros, each_line};
use crate::kernels::matrix::{Column, Matrix};
use crate::kernels::vectors::Vectors;
use crate::numeric::Scale;

/// Codes scanned at a time.
const CHUNK: usize = 64;

/// See [`columns::copy`].
#[target_feature(enable = "avx2")]
pub(super) fn copy(matrix: &Tensor<'_>, room: usize) -> Result<Vec<Column>, Error> {
    // Interleaving takes the first four of each half of a register; the result is eight rows in
    // order: rows 0 to 3, 8 to 11, 4 to 7, 12 to 15.
    let place = |j: usize| j % 8 / 4 * 8 + j / 8 * 4 + j % 4;
    columns::copy(
        matrix,
        room,
        |scales, codes, weights| decode(matrix, scales, codes, weights),
        place,
    )
}

/// Whether the matrix has its columns and the vectors have enough zeros for them.
#[inline]
#[target_feature(enable = "avx2")]
fn pays(matrix: &Matrix<'_>, x: Vectors<'_>) -> bool {
    if matrix.columns.is_empty() {
        return false;
    }
    let chunks = x.codes.as_chunks::<16>().0;
    let mut zeros = _mm256_setzero_si256();
    for chunk in chunks {
        // −1 for each zero; its square counts it.
        let is_zero = _mm256_cmpeq_epi16(load(chunk), _mm256_setzero_si256());
        zeros = _mm256_add_epi32(zeros, _mm256_madd_epi16(is_zero, is_zero));
    }
    let zeros = store(zeros).iter().sum::<i32>() as usize;
    columns::pays(matrix, zeros, 16 * chunks.len(), x.scales.len())
}

/// See [`crate::kernels::kernel::Kernel::run`]; takes vectors that are sparse, if the matrix has
/// its columns.
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let sparse = pays(matrix, x);
    if sparse {
        matmul(matrix, x, out);
    }
    sparse
}

/// As [`crate::kernels::portable::matmul`], bit for bit, for a matrix with its columns.
#[target_feature(enable = "avx2")]
pub(in crate::kernels) fn matmul(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let Tensor { rows, cols, .. } = **matrix;
    let lines = rows.div_ceil(LINE);
    assert!(cols <= LONGEST && matrix.columns.len() == (HEAD + cols) * lines);
    let (codes, out) = (&x.codes[..x.scales.len() * cols], &mut out[..x.scales.len() * rows]);
    let weight = match matrix.precision {
        Precision::Int8 => 128,
        grouped => 15 << (grouped.bits() - 1),
    };
    let mut nonzeros = Nonzeros::new();
    let vectors = codes.chunks_exact(cols).zip(x.scales);
    for ((codes, &scale), out) in vectors.zip(out.chunks_exact_mut(rows)) {
        collect(codes, lines, &mut nonzeros);
        let requantizer = Requantizer::new(
            matrix,
            scale,
            nonzeros.len() as u64 * weight * matrix.max_code as u64,
        );
        let product = Product { matrix, lines, nonzeros: &nonzeros, scale, requantizer };
        each_line(out, |first, out| product.put(first, out), |first, out| product.put(first, out));
    }
}

/// Collects the nonzero codes of a vector, padded with a zero to an even number.
#[inline]
#[target_feature(enable = "avx2")]
fn collect(codes: &[i16], lines: usize, nonzeros: &mut Nonzeros) {
    nonzeros.clear();
    let (chunks, rest) = codes.as_chunks::<CHUNK>();
    let mut at = HEAD * lines;
    for chunk in chunks {
        collect_chunk(chunk, at, lines, nonzeros);
        at += CHUNK * lines;
    }
    if !rest.is_empty() {
        collect_chunk(&padded(rest), at, lines, nonzeros);
    }
    if nonzeros.len() % 2 == 1 {
        // There is room: the longest vector is even.
        let _ = nonzeros.push(Nonzero { code: 0, at: 0 });
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn collect_chunk(codes: &[i16; CHUNK], at: usize, lines: usize, nonzeros: &mut Nonzeros) {
    let [low, high] = codes.as_chunks().0 else { unreachable!("64 is twice 32") };
    let mut bits = u64::from(nonzero_bits(low)) | u64::from(nonzero_bits(high)) << 32;
    while bits != 0 {
        let c = bits.trailing_zeros() as usize;
        bits &= bits - 1;
        // There is room for all codes of the longest vector.
        let _ = nonzeros.push(Nonzero { code: codes[c], at: (at + c * lines) as u32 });
    }
}

/// A bit for each nonzero code.
#[inline]
#[target_feature(enable = "avx2")]
fn nonzero_bits(codes: &[i16; 32]) -> u32 {
    let [a, b] = codes.as_chunks().0 else { unreachable!("32 is twice 16") };
    let [a, b] = [a, b].map(|codes| _mm256_cmpeq_epi16(load(codes), _mm256_setzero_si256()));
    // Packing works within 128-bit lanes: the quarters are the first of a and b, then the second.
    let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(a, b));
    !_mm256_movemask_epi8(packed) as u32
}

/// A matrix and a vector.
struct Product<'a> {
    matrix: &'a Matrix<'a>,
    /// Lines per column.
    lines: usize,
    nonzeros: &'a Nonzeros,
    /// Scale of the vector, packed.
    scale: u32,
    requantizer: Requantizer,
}

impl Product<'_> {
    /// Computes the outputs of `N` lines from `first` on.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn put<const N: usize>(&self, first: usize, out: &mut [[i32; LINE]; N]) {
        let columns = &self.matrix.columns[first..];
        let column = |at: usize| columns[at..].first_chunk::<N>().expect("a column has all lines");
        // Weights are below 2^9 and codes below 2^8 in magnitude, and at most 1024 columns are
        // summed: 2^27.
        let mut sums = [[[_mm256_setzero_si256(); 2]; 2]; N];
        for [a, b] in self.nonzeros.as_chunks().0 {
            let codes = a.code as u16 as u32 | (b.code as u16 as u32) << 16;
            let codes = _mm256_set1_epi32(codes as i32);
            let lines = column(a.at as usize).iter().zip(column(b.at as usize));
            for (sums, (Column(a), Column(b))) in sums.iter_mut().zip(lines) {
                for (sums, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                    let (a, b) = (load(a), load(b));
                    let both = [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)];
                    for (sum, both) in sums.iter_mut().zip(both) {
                        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(both, codes));
                    }
                }
            }
        }
        // For each line the first and the last sixteen rows.
        let [m0, m1, b0, b1] = [0, 1, 2, 3].map(|head| column(head * self.lines));
        let heads = m0.iter().zip(m1).zip(b0.iter().zip(b1));
        let lines = sums.into_iter().zip(heads).zip(out);
        for ((sums, ((Column(m0), Column(m1)), (Column(b0), Column(b1)))), out) in lines {
            let heads = m0.iter().chain(m1).zip(b0.iter().chain(b1));
            let eights = sums.as_flattened().iter().zip(heads);
            for ((&sums, (mantissas, biases)), out) in eights.zip(out.as_chunks_mut().0) {
                let (mantissas, biases) = (load(mantissas), load(biases));
                let values = if self.requantizer.fits() {
                    self.requantizer.requantize(sums, mantissas, biases)
                } else {
                    self.requantize_portably(sums, mantissas, biases)
                };
                set(out, values);
            }
        }
    }

    #[cold]
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    fn requantize_portably(&self, sums: __m256i, mantissas: __m256i, biases: __m256i) -> __m256i {
        let rescale = Rescale::new(self.matrix, Scale::unpack(self.scale));
        let [mut values, mantissas, biases] = [sums, mantissas, biases].map(|lanes| store(lanes));
        for (value, (mantissa, bias)) in values.iter_mut().zip(mantissas.into_iter().zip(biases)) {
            *value = Portable::requantize(*value, mantissa as i64, bias, &rescale);
        }
        registers::load(&values)
    }
}
