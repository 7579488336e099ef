//! INT4 in groups of 32 for a single vector with AVX2.
//!
//! A nibble is stored as the code + 8, but for the uppermost of every two bytes, which is so after its top
//! bit is flipped. That is not negative, so `maddubs` multiplies it by codes of 8 bits and adds pairs; eight
//! times the codes themselves are subtracted. What is left is multiplied by the group's scale and summed in 32 bits by `madd`.
//!
//! That is eleven operations on registers for 64 products: flip, shift, two masks, two multiplications, their
//! sum, the eights, the scale put into its lanes, its multiplication, the sum. With four pipes for them, 23
//! products a cycle are the most; what a row costs beyond that (scales, joining lanes, rounding) is shared by
//! more columns in larger matrices.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::finish::{finish_block, join, load, load_bytes, mantissas};
use crate::blob::Tensor;
use crate::kernels::batched::{ROWS, Rescale};

/// Inputs of two groups, which share a register of 32 bytes.
pub(super) const STRETCH: usize = 64;
/// Groups whose scales a register holds.
const GROUPS: usize = 32;
/// Stretches that are narrowed on the stack; a longer vector takes the heap.
const STRETCHES: usize = 4;
/// Bytes of the last scales of a matrix that are copied to the stack; more take the heap.
const LAST: usize = 128;

/// Two groups of 32 codes as bytes, and eight times the sums that `maddubs` makes of them.
#[derive(Clone, Copy)]
struct Narrow {
    /// Codes 0 to 15 of both groups: those of the lower nibbles.
    low: [u8; 32],
    /// Codes 16 to 31 of both groups.
    high: [u8; 32],
    /// Eight times the sum of two neighbours in `low` and two in `high`: below 2^13.
    eights: [i16; 16],
}

impl Narrow {
    const ZEROS: Self = Self { low: [0; 32], high: [0; 32], eights: [0; 16] };
}

/// A matrix of at least eight rows, groups of 32, and whole stretches in a row. The codes are within ±127,
/// or from 0 to 255 if `RELU`.
#[target_feature(enable = "avx2")]
pub(super) fn int4<const RELU: bool>(
    matrix: &Tensor<'_>,
    codes: &[i16],
    rescale: &Rescale,
    out: &mut [i32],
) {
    let mut short = [Narrow::ZEROS; STRETCHES];
    let mut long = Vec::new();
    let stretches = codes.as_chunks::<STRETCH>().0;
    let x = if stretches.len() <= STRETCHES {
        &mut short[..stretches.len()]
    } else {
        long.resize(stretches.len(), Narrow::ZEROS);
        &mut long[..]
    };
    for (x, codes) in x.iter_mut().zip(stretches) {
        *x = narrow::<RELU>(codes);
    }
    let row_scales = matrix.layout().row_scales;
    // A register takes 16 bytes of a row's scales, more than the last row of a matrix may have.
    let read = (ROWS - 1) * row_scales + 2 + 16 * x.len().div_ceil(GROUPS / 2);
    let (mut few, mut many) = ([0; LAST], Vec::new());
    assert!(matrix.codes.len() == matrix.rows * 32 * x.len() && matrix.rows >= ROWS);
    for start in (0..matrix.rows).step_by(ROWS) {
        // The last eight rows may begin among those before: the same outputs come out again.
        let first = start.min(matrix.rows - ROWS);
        let mut scales = &matrix.scales[first * row_scales..];
        if scales.len() < read {
            let padded = if read <= LAST {
                &mut few[..]
            } else {
                many.resize(read, 0);
                &mut many[..]
            };
            padded[..scales.len()].copy_from_slice(scales);
            scales = padded;
        }
        // SAFETY: by the assertion and the lines above, eight rows of codes and as many scales as are read
        // begin here; the mantissas are among them.
        unsafe {
            let codes = matrix.codes.as_ptr().add(first * 32 * x.len());
            let sums = sums::<RELU>(codes, scales.as_ptr(), row_scales, x);
            let mantissas = mantissas(scales.as_ptr(), row_scales);
            finish_block(matrix, first, sums, mantissas, rescale, out);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn narrow<const RELU: bool>(codes: &[i16; STRETCH]) -> Narrow {
    let [a, b, c, d] = codes.as_chunks::<16>().0 else { unreachable!("64 is four times 16") };
    let [low, high] = [pack::<RELU>(load(a), load(c)), pack::<RELU>(load(b), load(d))];
    let eight = _mm256_set1_epi8(8);
    let eights = if RELU {
        [_mm256_maddubs_epi16(low, eight), _mm256_maddubs_epi16(high, eight)]
    } else {
        [_mm256_maddubs_epi16(eight, low), _mm256_maddubs_epi16(eight, high)]
    };
    Narrow {
        low: bytes_of(low),
        high: bytes_of(high),
        eights: shorts_of(_mm256_add_epi16(eights[0], eights[1])),
    }
}

/// Bytes of 32 codes.
#[inline]
#[target_feature(enable = "avx2")]
fn pack<const RELU: bool>(a: __m256i, b: __m256i) -> __m256i {
    let bytes = if RELU { _mm256_packus_epi16(a, b) } else { _mm256_packs_epi16(a, b) };
    // Packing keeps to lanes of 128 bits: the quarters are the first of a and b, then the second.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes)
}

/// Sums of eight rows.
///
/// # Safety
///
/// There are 8 · 32 bytes of codes for each stretch of `x`, and 16 bytes of scales for each 16 stretches
/// begun, from 2 bytes on behind each of the multiples of `row_scales` from none to seven.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums<const RELU: bool>(
    codes: *const u8,
    scales: *const u8,
    row_scales: usize,
    x: &[Narrow],
) -> __m256i {
    let row = 32 * x.len();
    // SAFETY: the first four rows, then the others.
    unsafe {
        let low = four_sums::<RELU>(codes, row, scales.add(2), row_scales, x);
        let (codes, scales) = (codes.add(4 * row), scales.add(4 * row_scales + 2));
        let high = four_sums::<RELU>(codes, row, scales, row_scales, x);
        join(low, high)
    }
}

/// Eight lanes for each of four rows, whose sums are the rows' sums. Four rows share what is loaded of the
/// vector and leave registers for their scales.
///
/// # Safety
///
/// There are four rows of `row` bytes, 32 for each stretch of `x`, and 16 bytes of scales for each 16
/// stretches begun behind each of the multiples of `row_scales` from none to three.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn four_sums<const RELU: bool>(
    mut codes: *const u8,
    row: usize,
    mut scales: *const u8,
    row_scales: usize,
    x: &[Narrow],
) -> [__m256i; 4] {
    let [mut s0, mut s1, mut s2, mut s3] = [_mm256_setzero_si256(); 4];
    for x in x.chunks(GROUPS / 2) {
        // SAFETY: each chunk's codes and scales begin 512 and 16 bytes behind those of the one before.
        unsafe {
            let g0 = split_nibbles(scales);
            let g1 = split_nibbles(scales.add(row_scales));
            let g2 = split_nibbles(scales.add(2 * row_scales));
            let g3 = split_nibbles(scales.add(3 * row_scales));
            for (x, pattern) in x.iter().zip(&BROADCASTS) {
                let pattern = load(pattern);
                s0 = add::<RELU>(s0, codes, x, _mm256_shuffle_epi8(g0, pattern));
                s1 = add::<RELU>(s1, codes.add(row), x, _mm256_shuffle_epi8(g1, pattern));
                s2 = add::<RELU>(s2, codes.add(2 * row), x, _mm256_shuffle_epi8(g2, pattern));
                s3 = add::<RELU>(s3, codes.add(3 * row), x, _mm256_shuffle_epi8(g3, pattern));
                codes = codes.add(32);
            }
            scales = scales.wrapping_add(16);
        }
    }
    [s0, s1, s2, s3]
}

/// Adds two groups of a row, their scales in the lanes.
///
/// # Safety
///
/// 32 bytes of codes are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn add<const RELU: bool>(
    sum: __m256i,
    codes: *const u8,
    x: &Narrow,
    scales: __m256i,
) -> __m256i {
    // SAFETY: as the caller says; the load asks for no alignment.
    let codes = unsafe { _mm256_loadu_si256(codes.cast()) };
    _mm256_add_epi32(sum, _mm256_madd_epi16(products::<RELU>(codes, x), scales))
}

/// Sums of four products each, below 2^13 in magnitude. `maddubs` itself comes to at most
/// 2 · 15 · 255 and the sum of two of them to 15,300: nothing saturates.
#[inline]
#[target_feature(enable = "avx2")]
fn products<const RELU: bool>(codes: __m256i, x: &Narrow) -> __m256i {
    let mask = _mm256_set1_epi8(15);
    let flipped = _mm256_xor_si256(codes, _mm256_set1_epi16(i16::MIN));
    let low = _mm256_and_si256(flipped, mask);
    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(flipped), mask);
    let (x_low, x_high) = (load_bytes(&x.low), load_bytes(&x.high));
    let [low, high] = if RELU {
        [_mm256_maddubs_epi16(x_low, low), _mm256_maddubs_epi16(x_high, high)]
    } else {
        [_mm256_maddubs_epi16(low, x_low), _mm256_maddubs_epi16(high, x_high)]
    };
    _mm256_sub_epi16(_mm256_add_epi16(low, high), load(&x.eights))
}

/// Scales of 32 groups as bytes: of even groups in the lower half, of odd ones in the upper.
///
/// # Safety
///
/// 16 bytes are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn split_nibbles(scales: *const u8) -> __m256i {
    // SAFETY: as the caller says; the load asks for no alignment.
    let bytes = unsafe { _mm_loadu_si128(scales.cast()) };
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

/// What shuffles byte i of each half into all of its lanes of 16 bits.
static BROADCASTS: [[i16; 16]; GROUPS / 2] = {
    let mut patterns = [[0; 16]; GROUPS / 2];
    let mut i = 0;
    while i < patterns.len() {
        patterns[i] = [i16::MIN | i as i16; 16];
        i += 1;
    }
    patterns
};

#[inline]
#[target_feature(enable = "avx2")]
fn bytes_of(lanes: __m256i) -> [u8; 32] {
    let mut bytes = [0; 32];
    // SAFETY: the 32 bytes of the array are writable, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), lanes) };
    bytes
}

#[inline]
#[target_feature(enable = "avx2")]
fn shorts_of(lanes: __m256i) -> [i16; 16] {
    let mut shorts = [0; 16];
    // SAFETY: the 32 bytes of the array are writable, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(shorts.as_mut_ptr().cast(), lanes) };
    shorts
}
