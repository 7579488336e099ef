//! Sparse vectors: behind a ReLU nineteen codes of twenty are zeros, and of a matrix stored by
//! columns only the columns of the others are read.
//!
//! `madd` multiplies by two codes, so two such columns are interleaved in registers. Storing
//! neighbouring columns interleaved would save that, but read an unused column most of the time:
//! measured to be slower for single vectors, and slightly faster for many.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::decode::decode;
use super::registers::{self, load_i16 as load, padded, set, store};
use super::requantize::Requantizer;
use crate::blob::{Precision, Tensor, pair_u16};
use crate::error::Error;
use crate::kernels::batched::{LONGEST, Portable, Rescale};
use crate::kernels::choice::Reason;
use crate::kernels::matrix::{Column, Matrix};
use crate::kernels::portable::{bias, int8_code};
use crate::kernels::vectors::Vectors;
use crate::memory::reserve;
use crate::numeric::Scale;

/// Lines before the weights: mantissas and biases, two lines of sixteen words each.
const HEAD: usize = 4;
/// Rows per cache line.
const LINE: usize = 32;
/// Lines whose sums stay in registers.
const LINES: usize = 2;
/// Up to so many vectors, decoding rows for all of them does not pay.
const FEW: usize = 16;
/// Codes scanned at a time.
const CHUNK: usize = 64;

/// A nonzero code.
struct Nonzero {
    code: i16,
    /// Index of its column's first line.
    at: u32,
}

/// The nonzero codes of a vector, padded with a zero to an even number.
type Nonzeros = heapless::Vec<Nonzero, LONGEST>;

/// The weights by columns, `[4 + cols, ⌈rows / 32⌉]` lines, for a matrix that [`admits`] takes;
/// empty for others and if they exceed `room` bytes.
///
/// The first four lines of 32 rows are words of 32 bits: mantissas of the first sixteen rows, of
/// the others, their biases in Q15.16. The columns follow: weights times their groups' scales, of
/// sixteen rows in the order 0 to 3, 8 to 11, 4 to 7, 12 to 15.
#[target_feature(enable = "avx2")]
pub(super) fn copy(matrix: &Tensor<'_>, room: usize) -> Result<Vec<Column>, Error> {
    let Tensor { precision, rows, cols, .. } = *matrix;
    if admits(matrix).is_err() {
        return Ok(Vec::new());
    }
    let lines = rows.div_ceil(LINE);
    let count = (HEAD + cols) * lines;
    if count > room / size_of::<Column>() {
        return Ok(Vec::new());
    }
    let mut columns = Vec::new();
    reserve(&mut columns, count)?;
    columns.resize(count, Column([[0; 16]; 2]));
    let layout = matrix.layout();
    let mut weights = [0; LONGEST];
    for r in 0..rows {
        let codes = &matrix.codes[r * layout.row_codes..][..layout.row_codes];
        let scales = &matrix.scales[r * layout.row_scales..][..layout.row_scales];
        if precision == Precision::Int8 {
            for (c, (weight, &code)) in weights.iter_mut().zip(codes).enumerate() {
                *weight = int8_code(code, c) as i16;
            }
        } else {
            decode(matrix, scales, codes, &mut weights[..cols]);
        }
        let (line, half, j) = (r / LINE, r % LINE / 16, r % 16);
        for (head, word) in [pair_u16(scales, 0) as i32, bias(matrix, r)].into_iter().enumerate() {
            let Column(words) = &mut columns[(2 * head + half) * lines + line];
            words.as_flattened_mut().as_chunks_mut().0[j] = [word as i16, (word >> 16) as i16];
        }
        // Interleaving takes the first four of each half of a register; the result is eight rows in
        // order.
        let place = j % 8 / 4 * 8 + j / 8 * 4 + j % 4;
        let columns = columns[HEAD * lines..].chunks_exact_mut(lines);
        for (column, &weight) in columns.zip(&weights) {
            column[line].0[half][place] = weight;
        }
    }
    Ok(columns)
}

/// Whether the matrix has its columns and the vectors have enough zeros for this kernel to be
/// faster, as measured: two thirds for a single vector, five sixths for many, which share the
/// decoding otherwise.
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
    let all = 16 * chunks.len();
    if x.scales.len() < FEW { 3 * zeros >= 2 * all } else { 6 * zeros >= 5 * all }
}

/// A matrix of integers that is not empty and whose rows are not too long.
pub(in crate::kernels) fn admits(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if matrix.precision == Precision::Fp16 {
        return Err(Reason::Storage);
    }
    if matrix.codes.is_empty() || matrix.cols > LONGEST { Err(Reason::Shape) } else { Ok(()) }
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
        let (whole, rest) = out.as_chunks_mut::<LINE>();
        let (several, single) = whole.as_chunks_mut::<LINES>();
        let mut first = 0;
        for out in several {
            product.put(first, out);
            first += LINES;
        }
        for out in single.as_chunks_mut::<1>().0 {
            product.put(first, out);
            first += 1;
        }
        if !rest.is_empty() {
            let mut last = [[0; LINE]];
            product.put(first, &mut last);
            rest.copy_from_slice(&last[0][..rest.len()]);
        }
    }
}

/// Collects the nonzero codes of a vector.
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
