//! Shared by the kernels for several vectors: tiles of sixteen rows by four vectors, eight rows per
//! register, so that loads of either are used several times and all sums stay in registers.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::registers::{fours, load, store};
use super::requantize::Requantizer;
use crate::blob::{Precision, Tensor, pair_u16};
use crate::kernels::batched::{PANEL, Portable, ROWS, Rescale};
use crate::kernels::portable::bias;
use crate::numeric::Scale;

/// Vectors per tile.
pub(super) const VECTORS: usize = 4;
/// Bytes per row and step.
pub(super) const WORD: usize = 4;

/// One register each for the first and the last eight rows of a panel; aligned, since a load across
/// two cache lines costs two.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Both<T>(pub(super) [[T; ROWS]; 2]);

/// A step of a tile: a word of every row.
pub(super) type Step = Both<[u8; WORD]>;

/// A word of each of four vectors.
pub(super) type Words = [[u8; WORD]; VECTORS];

/// Sums of a panel's rows with each of four vectors.
pub(super) type Sums = [Both<i32>; VECTORS];

/// The rows of a panel: what they have besides weights.
pub(super) struct Rows {
    /// The first row.
    pub(super) first: usize,
    /// How many there are.
    pub(super) count: usize,
    mantissas: Both<i32>,
    biases: Both<i32>,
}

impl Rows {
    /// The rows from `first` on, padded with the last row.
    #[inline(always)]
    pub(super) fn new(matrix: &Tensor<'_>, first: usize) -> Self {
        let count = PANEL.min(matrix.rows - first);
        let (mut mantissas, mut biases) = ([0; PANEL], [0; PANEL]);
        let row_scales = matrix.layout().row_scales;
        for (j, (mantissa, out)) in mantissas.iter_mut().zip(&mut biases).enumerate() {
            let row = first + j.min(count - 1);
            if matrix.precision != Precision::Fp16 {
                *mantissa = pair_u16(&matrix.scales[row * row_scales..], 0) as i32;
            }
            *out = bias(matrix, row);
        }
        let halves = |rows: [i32; PANEL]| {
            Both([0, 1].map(|half| core::array::from_fn(|j| rows[half * ROWS + j])))
        };
        Self { first, count, mantissas: halves(mantissas), biases: halves(biases) }
    }

    /// The panel's biases.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn biases(&self) -> [__m256i; 2] {
        let [low, high] = &self.biases.0;
        [load(low), load(high)]
    }

    /// Stores a panel's outputs among a vector's outputs of all rows.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn put(&self, values: [__m256i; 2], out: &mut [i32]) {
        let out = &mut out[self.first..];
        if self.count == PANEL {
            let out = &mut out[..PANEL];
            // SAFETY: the slice is as long as both registers, and the stores need no alignment.
            unsafe {
                _mm256_storeu_si256(out.as_mut_ptr().cast(), values[0]);
                _mm256_storeu_si256(out.as_mut_ptr().add(ROWS).cast(), values[1]);
            }
        } else {
            let values = values.map(|half| store(half));
            out[..self.count].copy_from_slice(&values.as_flattened()[..self.count]);
        }
    }

    /// Requantizes and stores the integer sums of up to four vectors. `out` has all rows of each.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn requantize_four(
        &self,
        matrix: &Tensor<'_>,
        sums: &Sums,
        requantizers: &[Requantizer],
        out: &mut [i32],
    ) {
        let ([m0, m1], [b0, b1]) = (&self.mantissas.0, self.biases());
        let vectors = sums.iter().zip(requantizers).zip(out.chunks_exact_mut(matrix.rows));
        for ((Both([low, high]), requantizer), out) in vectors {
            if requantizer.fits() {
                let low = requantizer.requantize(load(low), load(m0), b0);
                let high = requantizer.requantize(load(high), load(m1), b1);
                self.put([low, high], out);
            } else {
                self.requantize_four_portably(
                    matrix,
                    [load(low), load(high)],
                    requantizer.scale,
                    out,
                );
            }
        }
    }

    #[cold]
    #[inline(never)]
    #[target_feature(enable = "avx2")]
    fn requantize_four_portably(
        &self,
        matrix: &Tensor<'_>,
        sums: [__m256i; 2],
        scale: u32,
        out: &mut [i32],
    ) {
        let rescale = Rescale::new(matrix, Scale::unpack(scale));
        let sums = sums.map(|half| store(half));
        let sums = sums.as_flattened().iter().zip(self.mantissas.0.as_flattened());
        let rows = sums.zip(self.biases.0.as_flattened());
        for (out, ((&sum, &mantissa), &bias)) in
            out[self.first..][..self.count].iter_mut().zip(rows)
        {
            *out = Portable::requantize(sum, mantissa as i64, bias, &rescale);
        }
    }
}

/// A word of a vector in every lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn broadcast(word: [u8; WORD]) -> __m256i {
    _mm256_set1_epi32(i32::from_le_bytes(word))
}

/// Interleaves eight words of each of four vectors.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn side_by_side(vectors: [__m256i; VECTORS], words: &mut [Words; ROWS]) {
    for (s, four) in fours(vectors).into_iter().enumerate() {
        // SAFETY: an element is as long as each half of the register, and the stores need no
        // alignment.
        unsafe {
            _mm_storeu_si128(words[s].as_mut_ptr().cast(), _mm256_castsi256_si128(four));
            let high = _mm256_extracti128_si256::<1>(four);
            _mm_storeu_si128(words[s + 4].as_mut_ptr().cast(), high);
        }
    }
}

/// A buffer of `count` elements: on the stack up to `FEW`, else on the heap.
#[inline(always)]
pub(super) fn buffer<'a, T: Copy, const FEW: usize>(
    count: usize,
    zeros: T,
    few: &'a mut [T; FEW],
    many: &'a mut Vec<T>,
) -> &'a mut [T] {
    if count <= FEW {
        return &mut few[..count];
    }
    many.resize(count, zeros);
    many
}
