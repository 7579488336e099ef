//! Single vectors with AVX-512 VNNI, which adds four products of bytes to every 32-bit lane.
//!
//! One factor is unsigned, the other signed. Behind a ReLU codes are the unsigned factor; with
//! other codes the weights are, offset by 128 (INT8). INT4 is offset by 8 either way, as it is
//! stored. The contribution of an offset is a multiple of the sum of codes, which all rows share.
//!
//! INT8 takes a load, a flip and a dot product per 64 products; for INT4 see
//! [`super::vnni_int4`].

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::requantize::{mantissas, requantize_block};
use super::shapes::few;
use super::tile::buffer;
use super::vnni_int4::matmul as int4;
use super::vnni_registers::{BYTES, dot, first_bytes, load};
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::{ROWS, Rescale};
use crate::kernels::matrix::Matrix;
use crate::kernels::single::Block;
use crate::kernels::vectors::{Vectors, not_negative};
use crate::numeric::Scale;

/// Registers of a vector that fit the stack; longer ones take the heap.
const FEW: usize = 8;

/// See [`crate::kernels::kernel::Kernel::run`]; takes one vector, or a few one by one, unless a
/// code behind a ReLU is negative or a scale is extreme.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    few(matrix, x.scales.len())
        && x.one_by_one(matrix, out, |codes, scale, out| matmul(matrix, codes, scale, out))
}

/// One vector; returns whether it was taken.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn matmul(matrix: &Tensor<'_>, codes: &[i16], scale: u32, out: &mut [i32]) -> bool {
    let rescale = &Rescale::new(matrix, Scale::unpack(scale));
    let relu = matrix.max_code > 127;
    if !(1..=62).contains(&rescale.shift) || relu && !not_negative(codes) {
        return false;
    }
    match (matrix.precision, relu) {
        (Precision::Int8, false) => int8::<false>(matrix, codes, rescale, out),
        (Precision::Int8, true) => int8::<true>(matrix, codes, rescale, out),
        (_, false) => int4::<false>(matrix, codes, scale, rescale, out),
        (_, true) => int4::<true>(matrix, codes, scale, rescale, out),
    }
    true
}

/// A matrix of INT8 of at least eight rows. The codes are within ±127, or from 0 to 255 if `RELU`.
///
/// No sum of products exceeds 2^14 · 255 · 128 < 2^29, so that all of them, in any order, are
/// exact.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn int8<const RELU: bool>(matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]) {
    let (mut few, mut many) = ([[0; BYTES]; FEW], Vec::new());
    let x = buffer(codes.len().div_ceil(BYTES), [0; BYTES], &mut few, &mut many);
    for (byte, &code) in x.as_flattened_mut().iter_mut().zip(codes) {
        *byte = code as u8;
    }
    let sum: i32 = if RELU { 0 } else { codes.iter().map(|&code| code as i32).sum() };
    let excess = _mm256_set1_epi32(128 * sum);
    let layout = matrix.layout();
    for start in (0..matrix.rows).step_by(ROWS) {
        let block = Block::<ROWS>::new(matrix, &layout, start);
        assert!(block.codes.len() == ROWS * codes.len());
        // SAFETY: by the assertion there are eight rows, as long as the codes of which `x` is made;
        // a block has the scales of eight rows, each with a mantissa.
        unsafe {
            let sums = join(int8_sums::<RELU>(block.codes.as_ptr(), codes.len(), x));
            let mantissas = mantissas(block.scales.as_ptr(), layout.row_scales);
            let sums = _mm256_sub_epi32(sums, excess);
            requantize_block(matrix, block.first, sums, mantissas, rescale, out);
        }
    }
}

/// Sixteen lanes for each of eight rows of `row` bytes; their sum is the row's.
///
/// # Safety
///
/// There are eight rows, and `x` has ⌈row / 64⌉ registers.
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
            // SAFETY: 64 bytes of one of eight rows, of which each has as many for this register of
            // `x`.
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

/// Stored weights of INT8 (plus 128 at even places), signed if `RELU`, else plus 128 everywhere.
#[inline]
#[target_feature(enable = "avx512f")]
fn offset<const RELU: bool>(stored: __m512i) -> __m512i {
    _mm512_xor_si512(stored, _mm512_set1_epi16(if RELU { 0x80 } else { i16::MIN }))
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
    // Each quarter has a sum for every row.
    let quarters = _mm512_add_epi32(
        _mm512_shuffle_i64x2::<0b10_00_10_00>(low, high),
        _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high),
    );
    let even = _mm512_shuffle_i64x2::<0b10_00_10_00>(quarters, quarters);
    let odd = _mm512_shuffle_i64x2::<0b11_01_11_01>(quarters, quarters);
    _mm256_add_epi32(_mm512_castsi512_si256(even), _mm512_castsi512_si256(odd))
}
