//! Single vectors with AVX-512 VNNI, which adds four products of bytes to every lane of 32 bits.
//!
//! One factor has no sign, the other has one. Codes after a ReLU have none and weights keep theirs; with other
//! codes it is the weights that are offset, by 128 (INT8). INT4 is offset by 8 either way, as it is stored, for
//! its weights fit with a sign, too. What an offset adds too much is a multiple of sums of codes, which all
//! rows share.
//!
//! INT8 takes a load with a flip and a dot product for 64 products; for INT4 see
//! [`super::vnni_int4`].

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::finish::{finish_block, mantissas};
use super::tile::pieces;
use super::vnni_int4::{self, matmul as int4};
use super::{fits_bytes, not_negative};
use crate::blob::{Precision, Tensor};
use crate::kernels::Vectors;
use crate::kernels::batched::{ROWS, Rescale};
use crate::kernels::single::Block;
use crate::numeric::Scale;

/// Bytes of a register.
pub(super) const BYTES: usize = 64;
/// Registers of a vector that are on the stack; a longer vector takes the heap.
const FEW: usize = 8;

/// As [`crate::kernels::portable::matmul`], bit for bit, for one vector; says whether it was done.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let (codes, out) = (&x.codes[..matrix.cols], &mut out[..matrix.rows]);
    let rescale = &Rescale::new(matrix, Scale::unpack(x.scales[0]));
    let relu = matrix.max_code > 127;
    if !admits(matrix) || !(1..=62).contains(&rescale.shift) {
        return false;
    }
    match matrix.precision {
        Precision::Int8 if !relu => int8::<false>(matrix, codes, rescale, out),
        Precision::Int8 if not_negative(codes) => int8::<true>(matrix, codes, rescale, out),
        Precision::Int8 => return false,
        _ if !relu => int4::<false>(matrix, codes, x.scales[0], rescale, out),
        _ if not_negative(codes) => int4::<true>(matrix, codes, x.scales[0], rescale, out),
        _ => return false,
    }
    true
}

/// Whether [`matmul`] takes a matrix: INT8, or INT4 in groups of 32 that divide the row. What follows a ReLU must not
/// be negative either, and a few extreme scales of vectors are left to others.
pub(super) fn admits(matrix: &Tensor<'_>) -> bool {
    let int4 = fits_bytes(matrix) && vnni_int4::fits(matrix);
    let known = matrix.precision == Precision::Int8 || int4;
    known && matrix.rows >= ROWS && matrix.cols > 0
}

/// A matrix of INT8 of at least eight rows. The codes are within ±127, or from 0 to 255 if `RELU`.
///
/// No sum of products exceeds 2^14 · 255 · 128 < 2^29, so that all of them, in any order, are exact.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn int8<const RELU: bool>(matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]) {
    let (mut few, mut many) = ([[0; BYTES]; FEW], Vec::new());
    let x = pieces(codes.len().div_ceil(BYTES), [0; BYTES], &mut few, &mut many);
    for (byte, &code) in x.as_flattened_mut().iter_mut().zip(codes) {
        *byte = code as u8;
    }
    let sum: i32 = if RELU { 0 } else { codes.iter().map(|&code| code as i32).sum() };
    let excess = _mm256_set1_epi32(128 * sum);
    let layout = matrix.layout();
    for start in (0..matrix.rows).step_by(ROWS) {
        let block = Block::new(matrix, &layout, start);
        assert!(block.codes.len() == ROWS * codes.len());
        // SAFETY: by the assertion there are eight rows, as long as the codes of which `x` is made; a block has
        // the scales of eight rows, each with a mantissa.
        unsafe {
            let sums = join(int8_sums::<RELU>(block.codes.as_ptr(), codes.len(), x));
            let mantissas = mantissas(block.scales.as_ptr(), layout.row_scales);
            let sums = _mm256_sub_epi32(sums, excess);
            finish_block(matrix, block.first, sums, mantissas, rescale, out);
        }
    }
}

/// Sixteen lanes for each of eight rows of `row` bytes, whose sums are the rows' sums.
///
/// # Safety
///
/// There are eight rows, and `x` has a register for every 64 bytes of a row begun.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn int8_sums<const RELU: bool>(
    codes: *const u8,
    row: usize,
    x: &[[u8; BYTES]],
) -> [__m512i; ROWS] {
    let mut sums = [_mm512_setzero_si512(); ROWS];
    let (whole, rest) = x.split_at(row / BYTES);
    for (i, x) in whole.iter().enumerate() {
        let x = load(x);
        for (j, sum) in sums.iter_mut().enumerate() {
            // SAFETY: 64 bytes of one of eight rows, of which each has as many for this register of `x`.
            let stored = unsafe { _mm512_loadu_si512(codes.add(j * row + BYTES * i).cast()) };
            *sum = dot::<RELU>(*sum, offset::<RELU>(stored), x);
        }
    }
    for (x, i) in rest.iter().zip(whole.len()..) {
        let (x, some) = (load(x), first_bytes(row - BYTES * i));
        for (j, sum) in sums.iter_mut().enumerate() {
            // SAFETY: no more than what is left of the row is read. Elsewhere `x` is zero.
            let stored =
                unsafe { _mm512_maskz_loadu_epi8(some, codes.add(j * row + BYTES * i).cast()) };
            *sum = dot::<RELU>(*sum, offset::<RELU>(stored), x);
        }
    }
    sums
}

/// Weights of INT8, with their sign if `RELU`, else plus 128, from what is stored: plus 128 at even places.
#[inline]
#[target_feature(enable = "avx512f")]
fn offset<const RELU: bool>(stored: __m512i) -> __m512i {
    _mm512_xor_si512(stored, _mm512_set1_epi16(if RELU { 0x80 } else { i16::MIN }))
}

/// Adds products of weights and codes to the lanes; what has no sign comes first. They are not saturated.
#[inline]
#[target_feature(enable = "avx512vnni")]
pub(super) fn dot<const RELU: bool>(sums: __m512i, weights: __m512i, codes: __m512i) -> __m512i {
    if RELU {
        _mm512_dpbusd_epi32(sums, codes, weights)
    } else {
        _mm512_dpbusd_epi32(sums, weights, codes)
    }
}

/// Sums of the lanes of eight rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn join([a, b, c, d, e, f, g, h]: [__m512i; ROWS]) -> __m256i {
    let [low, high] = [[a, b, c, d], [e, f, g, h]].map(|[a, b, c, d]| {
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
    });
    // Each has a sum for every row in every quarter.
    let quarters = _mm512_add_epi32(
        _mm512_shuffle_i64x2::<0b10_00_10_00>(low, high),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high),
    );
    let even = _mm512_shuffle_i64x2::<0b10_00_10_00>(quarters, quarters);
    let odd = _mm512_shuffle_i64x2::<0b11_01_11_01>(quarters, quarters);
    _mm256_add_epi32(_mm512_castsi512_si256(even), _mm512_castsi512_si256(odd))
}

/// A mask of the first `count` bytes of a register, of all if there are more.
#[inline(always)]
pub(super) fn first_bytes(count: usize) -> __mmask64 {
    __mmask64::MAX >> (BYTES - count.clamp(1, BYTES))
}

/// A register of anything.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T: bytemuck::NoUninit, const N: usize>(values: &[T; N]) -> __m512i {
    const { assert!(size_of::<[T; N]>() == BYTES) };
    // SAFETY: the array has as many bytes as are read, and the load asks for no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}
