//! INT8 for a single vector of codes within ±127 with AVX2.
//!
//! Two bytes are one signed 16-bit number, 256 times the upper weight b1 plus the lower weight,
//! offset to u0 = b0 + 128. It is multiplied without unpacking, and the lower byte once more:
//!
//! ```text
//! (256 b1 + u0) · a1 + u0 · (256 a0 − a1) = 256 · (b1 · a1 + u0 · a0)
//! ```
//!
//! with codes a0 and a1, as on cores with the DSP extension (`kernels/dsp`). Per 32 products that
//! is five vector operations: a mask, two multiplications that add pairs, two sums; nothing is
//! widened. The initial value of sums cancels the offset.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::registers::{self, join_eight, load_i16 as load, set};
use super::requantize::{mantissas, requantize_block};
use super::tile::buffer;
use crate::blob::Tensor;
use crate::kernels::batched::{ROWS, Rescale};
use crate::kernels::single::Block;

/// Inputs per register of bytes.
const CHUNK: usize = 32;
/// Longest row: a 32-bit lane sums an eighth of it, and 512 · 128 · 127 · 256 is below 2^31;
/// intermediate wrapping cancels.
const LONGEST: usize = 4096;
/// Chunks of a vector that fit the stack; longer ones take the heap.
const FEW: usize = 8;

/// Factors of a chunk of weights.
#[derive(Clone, Copy)]
struct Coefficients {
    /// Codes at odd places.
    whole: [[i16; 2]; ROWS],
    /// 256 times the codes at even places minus those at odd places.
    lower: [[i16; 2]; ROWS],
}

impl Coefficients {
    const ZEROS: Self = Self { whole: [[0; 2]; ROWS], lower: [[0; 2]; ROWS] };
}

/// Whether [`matmul`] takes a matrix of INT8: at least eight rows of whole chunks, not too long.
#[inline(always)]
pub(super) fn fits(matrix: &Tensor<'_>) -> bool {
    matrix.rows >= ROWS && matrix.cols.is_multiple_of(CHUNK) && (1..=LONGEST).contains(&matrix.cols)
}

/// A matrix that [`fits`] with codes within ±127. The shift is from 1 to 62.
#[target_feature(enable = "avx2")]
pub(super) fn matmul(matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]) {
    let chunks = codes.as_chunks::<CHUNK>().0;
    let (mut few, mut many) = ([Coefficients::ZEROS; FEW], Vec::new());
    let x = buffer(chunks.len(), Coefficients::ZEROS, &mut few, &mut many);
    let mut start = _mm256_setzero_si256();
    for (x, codes) in x.iter_mut().zip(chunks) {
        start = _mm256_add_epi32(start, prepare(codes, x));
    }
    let layout = matrix.layout();
    for first in (0..matrix.rows).step_by(ROWS) {
        let block = Block::<ROWS>::new(matrix, &layout, first);
        assert!(block.codes.len() == ROWS * CHUNK * x.len());
        // SAFETY: the assertion above is what `sums` asks for; a block has the scales of eight
        // rows, each with a mantissa.
        unsafe {
            let sums = join_eight(sums(block.codes.as_ptr(), x, start));
            let mantissas = mantissas(block.scales.as_ptr(), layout.row_scales);
            requantize_block(matrix, block.first, sums, mantissas, rescale, out);
        }
    }
}

/// Prepares a chunk's coefficients. Returns the negated contribution of the offsets to the lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn prepare(codes: &[i16; CHUNK], x: &mut Coefficients) -> __m256i {
    let [a, b] = codes.as_chunks().0 else { unreachable!("32 is twice 16") };
    let [a, b] = [load(a), load(b)];
    let odd = [a, b].map(|codes| _mm256_srai_epi32::<16>(codes));
    let even = [a, b].map(|codes| _mm256_srai_epi32::<16>(_mm256_slli_epi32::<16>(codes)));
    let lower = [0, 1].map(|j| _mm256_sub_epi32(_mm256_slli_epi32::<8>(even[j]), odd[j]));
    // Packing works within 128-bit lanes: the quarters are the first of a and b, then the second.
    let pack =
        |[a, b]: [__m256i; 2]| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(a, b));
    set(&mut x.whole, pack(odd));
    set(&mut x.lower, pack(lower));
    let sums = _mm256_madd_epi16(pack(even), _mm256_set1_epi16(1));
    _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32::<15>(sums))
}

/// Eight lanes per row, for eight rows; their sum is the row's.
///
/// # Safety
///
/// There are eight rows with 32 bytes for each element of `x`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums(codes: *const u8, x: &[Coefficients], start: __m256i) -> [__m256i; ROWS] {
    let row = CHUNK * x.len();
    let mask = _mm256_set1_epi16(0xff);
    let mut sums = [start; ROWS];
    for (i, x) in x.iter().enumerate() {
        let (whole, lower) = (registers::load(&x.whole), registers::load(&x.lower));
        for (j, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 32 bytes of one of eight rows, in a chunk that the row has; the load needs no
            // alignment.
            let pairs = unsafe { _mm256_loadu_si256(codes.add(j * row + CHUNK * i).cast()) };
            let both = _mm256_madd_epi16(pairs, whole);
            let low = _mm256_madd_epi16(_mm256_and_si256(pairs, mask), lower);
            *sum = _mm256_add_epi32(*sum, _mm256_add_epi32(both, low));
        }
    }
    sums.map(|sum| _mm256_srai_epi32::<8>(sum))
}
