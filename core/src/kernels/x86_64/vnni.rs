//! Single vectors with AVX-512 VNNI, which adds four products of bytes to every lane of 32 bits.
//!
//! One factor has no sign, the other has one. Codes after a ReLU have none and weights keep theirs; with other
//! codes it is the weights that are offset, by 128 (INT8). INT4 is offset by 8 either way, as it is stored, for
//! its weights fit with a sign, too. What an offset adds too much is a multiple of sums of codes, which all
//! rows share.
//!
//! INT8 takes a load with a flip and a dot product for 64 products. INT4 takes nine instructions for 128, whose
//! four groups fill a quarter of a register each: the load, three that part the nibbles, a copy of what the
//! sums start from, two dot products, the scales put into their lanes, and their multiplication, which the
//! compiler joins with the sum.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::finish::{finish_block, mantissas};
use super::tile::pieces;
use super::{fits_bytes, not_negative};
use crate::blob::{Precision, Tensor};
use crate::kernels::Vectors;
use crate::kernels::batched::{ROWS, Rescale};
use crate::kernels::single::Block;
use crate::numeric::Scale;

/// Bytes of a register.
pub(super) const BYTES: usize = 64;
/// Bytes of a group of INT4, and codes of it that meet the lower nibbles.
const HALF: usize = 16;
/// Groups of INT4 in a register.
const GROUPS: usize = BYTES / HALF;
/// Bytes of scales in a register: 32 groups.
const SCALES: usize = 16;
/// Registers of a vector that are on the stack; a longer vector takes the heap.
const FEW: usize = 8;

/// As [`crate::kernels::portable::matmul`], bit for bit, for one vector; says whether it was done.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let (codes, out) = (&x.codes[..matrix.cols], &mut out[..matrix.rows]);
    let rescale = &Rescale::new(matrix, Scale::unpack(x.scales[0]));
    let relu = matrix.max_code > 127;
    if matrix.rows < ROWS || matrix.cols == 0 || !(1..=62).contains(&rescale.shift) {
        return false;
    }
    match matrix.precision {
        Precision::Int8 if !relu => int8::<false>(matrix, codes, rescale, out),
        Precision::Int8 if not_negative(codes) => int8::<true>(matrix, codes, rescale, out),
        _ if !fits_bytes(matrix) => return false,
        _ if super::vnni_int4::fits(matrix) => {
            if !relu { super::vnni_int4::matmul::<false>(matrix, codes, x.scales[0], rescale, out) }
            else if not_negative(codes) { super::vnni_int4::matmul::<true>(matrix, codes, x.scales[0], rescale, out) }
            else { return false }
        }
        _ if !relu => int4::<false>(matrix, codes, rescale, out),
        _ if not_negative(codes) => int4::<true>(matrix, codes, rescale, out),
        _ => return false,
    }
    true
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

/// Four groups of codes as bytes, and what sums with them start from.
#[derive(Clone, Copy)]
struct Narrow {
    /// Codes 0 to 15 of each group: those of the lower nibbles.
    low: [u8; BYTES],
    /// Codes 16 to 31.
    high: [u8; BYTES],
    /// −8 times the sum of four neighbours in `low` and four in `high`.
    starts: [i32; BYTES / 4],
}

impl Narrow {
    const ZEROS: Self = Self { low: [0; BYTES], high: [0; BYTES], starts: [0; BYTES / 4] };

    /// Sets a group.
    #[inline(always)]
    fn set(&mut self, group: usize, codes: &[i16; 2 * HALF]) {
        for j in 0..HALF {
            let (low, high) = (codes[j], codes[HALF + j]);
            self.low[HALF * group + j] = low as u8;
            self.high[HALF * group + j] = high as u8;
            self.starts[(HALF * group + j) / 4] -= 8 * (low + high) as i32;
        }
    }
}

/// A matrix of INT4 of at least eight rows, in groups of 32 that divide the row. The codes are within ±127, or
/// from 0 to 255 if `RELU`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn int4<const RELU: bool>(matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]) {
    let groups = codes.as_chunks().0;
    let (mut few, mut many) = ([Narrow::ZEROS; FEW], Vec::new());
    let x = pieces(groups.len().div_ceil(GROUPS), Narrow::ZEROS, &mut few, &mut many);
    for (g, group) in groups.iter().enumerate() {
        x[g / GROUPS].set(g % GROUPS, group);
    }
    let layout = matrix.layout();
    for start in (0..matrix.rows).step_by(ROWS) {
        let block = Block::new(matrix, &layout, start);
        assert!(block.codes.len() == ROWS * HALF * groups.len());
        assert!(block.scales.len() == ROWS * (2 + groups.len().div_ceil(2)));
        // SAFETY: by the assertions there are eight rows of as many groups as `x` is made of, with their scales
        // behind their mantissas.
        unsafe {
            let (codes, scales) = (block.codes.as_ptr(), block.scales.as_ptr());
            let sums = join(int4_sums::<RELU>(codes, scales, groups.len(), x));
            let mantissas = mantissas(scales, layout.row_scales);
            finish_block(matrix, block.first, sums, mantissas, rescale, out);
        }
    }
}

/// Sixteen lanes for each of eight rows, whose sums are the rows' sums.
///
/// # Safety
///
/// There are eight rows of 16 bytes of codes for each group, and the scales of as many; `x` has a register for
/// every four groups begun.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn int4_sums<const RELU: bool>(
    codes: *const u8,
    scales: *const u8,
    groups: usize,
    x: &[Narrow],
) -> [__m512i; ROWS] {
    let mut sums = [_mm512_setzero_si512(); ROWS];
    let (row, row_scales) = (HALF * groups, 2 + groups.div_ceil(2));
    for (c, x) in x.chunks(PATTERNS.len()).enumerate() {
        let at = 2 + SCALES * c;
        let some = first_bytes(row_scales - at) as __mmask16;
        let mut scales_of = [_mm512_setzero_si512(); ROWS];
        for (j, scales_of) in scales_of.iter_mut().enumerate() {
            // SAFETY: no more than what is left of a row's scales is read.
            *scales_of = unsafe { split_nibbles(scales.add(j * row_scales + at), some) };
        }
        for (i, (x, pattern)) in x.iter().zip(&PATTERNS).enumerate() {
            let at = BYTES * (PATTERNS.len() * c + i);
            let some = first_bytes(row - at);
            let (low, high, starts) = (load(&x.low), load(&x.high), load(&x.starts));
            let pattern = load(pattern);
            for (j, sum) in sums.iter_mut().enumerate() {
                // SAFETY: no more than what is left of the row is read. Elsewhere `x` is zero.
                let stored =
                    unsafe { _mm512_maskz_loadu_epi8(some, codes.add(j * row + at).cast()) };
                let products = int4_products::<RELU>(stored, low, high, starts);
                let scales = _mm512_shuffle_epi8(scales_of[j], pattern);
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(products, scales));
            }
        }
    }
    sums
}

/// Sums of eight products each, at most 8 · 8 · 255 in magnitude: their lower 16 bits are all there is to them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int4_products<const RELU: bool>(
    stored: __m512i,
    low: __m512i,
    high: __m512i,
    starts: __m512i,
) -> __m512i {
    let mask = _mm512_set1_epi8(15);
    // The upper nibble of every other byte is stored without the 8.
    let upper = _mm512_xor_si512(_mm512_srli_epi16::<4>(stored), _mm512_set1_epi16(0x800));
    let sums = dot::<RELU>(starts, _mm512_and_si512(stored, mask), low);
    dot::<RELU>(sums, _mm512_and_si512(upper, mask), high)
}

/// Scales of up to 32 groups as bytes: of even groups in the first and third quarter, of odd ones in the others.
///
/// # Safety
///
/// The bytes that `some` has are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn split_nibbles(scales: *const u8, some: __mmask16) -> __m512i {
    // SAFETY: as the caller says; the load asks for no alignment.
    let bytes = unsafe { _mm_maskz_loadu_epi8(some, scales.cast()) };
    let drop = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    let shifted = _mm512_srlv_epi64(_mm512_broadcast_i32x4(bytes), drop);
    _mm512_and_si512(shifted, _mm512_set1_epi8(15))
}

/// What shuffles the scales of four groups into the lanes of their quarters, as 16 bits beside zeros.
static PATTERNS: [[i32; BYTES / 4]; 2 * SCALES / GROUPS] = {
    let mut patterns = [[0; BYTES / 4]; 2 * SCALES / GROUPS];
    let mut i = 0;
    while i < patterns.len() * (BYTES / 4) {
        let (pattern, lane) = (i / (BYTES / 4), i % (BYTES / 4));
        // Groups 4 · pattern and the next are in this byte, the two that follow in the next.
        let byte = 2 * pattern + lane / 8;
        patterns[pattern][lane] = (0x8080_8000 | byte as u32) as i32;
        i += 1;
    }
    patterns
};

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
