//! INT4 in groups of 32 for a single vector with AVX2.
//!
//! A nibble is stored as the code + 8, except the highest of every two bytes, which is the code
//! itself and becomes code + 8 by flipping its top bit. Products of bytes have one unsigned factor.
//! Behind a ReLU that is the vector, and the highest nibbles stay signed; for other vectors they
//! are flipped. `maddubs` adds pairs of products. For four rows, the sums over 16 columns of a
//! group are then joined in 16 bits, which hold them once the eights are subtracted, and `madd`
//! multiplies by the group's scale and accumulates in 32 bits.
//!
//! Per 64 products that is six vector operations, seven with the flip (shift, two masks, two
//! multiplications, their sum), and a quarter of thirteen that four rows share: nine to join them,
//! the eights, the broadcast of the scales, their multiplication, the sum. With four vector ports,
//! at most 28 products per cycle without a flip and 25 with it. A second pass requantizes the sums
//! of all rows.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::registers::{four_words, load_bytes, load_i16 as load, put_four};
use super::requantize::{Requantizer, requantize_rows};
use super::tile::buffer;
use crate::blob::Tensor;
use crate::kernels::batched::Rescale;

/// Inputs per register of 32 bytes: two groups.
const CHUNK: usize = 64;
/// Chunks whose scales are four bytes.
const SCALED: usize = 4;
/// Chunks of a vector that fit the stack; longer ones take the heap.
const FEW: usize = 4;
/// Rows whose sums fill half a register.
const FOUR: usize = 4;

/// Two groups of 32 codes as bytes, and the contribution of the offset of weights.
#[derive(Clone, Copy)]
struct ByteCodes {
    /// Codes 0 to 15 of both groups, for the low nibbles.
    low: [u8; 32],
    /// Codes 16 to 31 of both groups, for the high nibbles.
    high: [u8; 32],
    /// Per group, for both lanes of a row, eight times the sum of codes whose weights are offset:
    /// at most 2^15; sums of 16 bits may wrap before it is subtracted.
    eights: [i16; 16],
}

impl ByteCodes {
    const ZEROS: Self = Self { low: [0; 32], high: [0; 32], eights: [0; 16] };
}

/// Whether [`int4`] takes a matrix: at least four rows of at least two whole chunks, so that a
/// row's mantissa and scales are at least four bytes.
#[inline(always)]
pub(super) fn fits(matrix: &Tensor<'_>) -> bool {
    let whole = matrix.cols.is_multiple_of(CHUNK) && matrix.cols >= 2 * CHUNK;
    matrix.group == 32 && whole && matrix.rows >= FOUR
}

/// A matrix that [`fits`]. The codes are within ±127, or from 0 to 255 if `RELU`.
#[target_feature(enable = "avx2")]
pub(super) fn int4<const RELU: bool>(
    matrix: &Tensor<'_>,
    codes: &[i16],
    scale: u32,
    rescale: &Rescale,
    out: &mut [i32],
) {
    let (mut few, mut many) = ([ByteCodes::ZEROS; FEW], Vec::new());
    let chunks = codes.as_chunks::<CHUNK>().0;
    let x = buffer(chunks.len(), ByteCodes::ZEROS, &mut few, &mut many);
    for (x, codes) in x.iter_mut().zip(chunks) {
        *x = to_bytes::<RELU>(codes);
    }
    match x.len() {
        2 => rows::<RELU, 2>(matrix, x, out),
        4 => rows::<RELU, 4>(matrix, x, out),
        _ => rows::<RELU, 0>(matrix, x, out),
    }
    let requantizer =
        Requantizer::new(matrix, scale, matrix.cols as u64 * 120 * matrix.max_code as u64);
    requantize_rows(matrix, x.len() + 2, &requantizer, rescale, out);
}

/// Sums of all rows, compiled for `N` chunks, or for any number if that is 0.
#[target_feature(enable = "avx2")]
fn rows<const RELU: bool, const N: usize>(matrix: &Tensor<'_>, x: &[ByteCodes], out: &mut [i32]) {
    let chunks = if N > 0 { N } else { x.len() };
    let (x, out) = (&x[..chunks], &mut out[..matrix.rows]);
    let (row, row_scales) = (32 * chunks, chunks + 2);
    let (codes, scales) = (matrix.codes, matrix.scales);
    assert!(matrix.rows >= FOUR && chunks >= 2);
    assert!(codes.len() == matrix.rows * row && scales.len() == matrix.rows * row_scales);
    for start in (0..matrix.rows).step_by(2 * FOUR) {
        // The last four rows may overlap those before, and be both: their outputs are computed
        // twice.
        let last = matrix.rows - FOUR;
        let (a, b) = (start.min(last), (start + FOUR).min(last));
        // SAFETY: by the assertions, four rows of `row` bytes and as many of `row_scales` begin at
        // each.
        let sums = unsafe {
            let codes = (codes.as_ptr().add(a * row), codes.as_ptr().add(b * row));
            let scales = (scales.as_ptr().add(a * row_scales), scales.as_ptr().add(b * row_scales));
            sums::<RELU, N>(codes, scales, x)
        };
        put_four(sums, a, b, out);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn to_bytes<const RELU: bool>(codes: &[i16; CHUNK]) -> ByteCodes {
    let [a, b, c, d] = codes.as_chunks::<16>().0 else { unreachable!("64 is four times 16") };
    let [low, high] = [pack::<RELU>(load(a), load(c)), pack::<RELU>(load(b), load(d))];
    let eight = _mm256_set1_epi8(8);
    let eights = if RELU {
        let even = _mm256_set1_epi16(8);
        _mm256_add_epi16(_mm256_maddubs_epi16(low, eight), _mm256_maddubs_epi16(high, even))
    } else {
        _mm256_add_epi16(_mm256_maddubs_epi16(eight, low), _mm256_maddubs_epi16(eight, high))
    };
    ByteCodes {
        low: bytes_of(low),
        high: bytes_of(high),
        eights: shorts_of(join_pairs(eights, eights, eights, eights)),
    }
}

/// Bytes of 32 codes.
#[inline]
#[target_feature(enable = "avx2")]
fn pack<const RELU: bool>(a: __m256i, b: __m256i) -> __m256i {
    let bytes = if RELU { _mm256_packus_epi16(a, b) } else { _mm256_packs_epi16(a, b) };
    // Packing works within 128-bit lanes: the quarters are the first of a and b, then the second.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(bytes)
}

/// Sums of eight rows: four from each of two addresses on.
///
/// # Safety
///
/// At each address there are four rows with 32 bytes of codes per chunk of `x`, and four with 2
/// bytes of scales and one per chunk. There are at least two chunks, and `N` of them unless that is
/// 0.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn sums<const RELU: bool, const N: usize>(
    codes: (*const u8, *const u8),
    scales: (*const u8, *const u8),
    x: &[ByteCodes],
) -> __m256i {
    let chunks = if N > 0 { N } else { x.len() };
    let (row, row_scales) = (32 * chunks, chunks + 2);
    let (mut low, mut high) = (_mm256_setzero_si256(), _mm256_setzero_si256());
    for first in (0..chunks).step_by(SCALED) {
        // Four bytes within the row: they may start with scales already used, or with the mantissa.
        let place = (first + 2).min(row_scales - SCALED);
        // SAFETY: the four bytes are of the row.
        let (s, t) = unsafe {
            let (s, t) = (scales.0.add(place), scales.1.add(place));
            (split_nibbles::<N>(s, row_scales), split_nibbles::<N>(t, row_scales))
        };
        for i in first..chunks.min(first + SCALED) {
            let pattern = load(&BROADCASTS[i + 2 - place]);
            // SAFETY: the chunk's bytes of four rows.
            let (a, b) = unsafe {
                let (a, b) = (codes.0.add(32 * i), codes.1.add(32 * i));
                (four_rows::<RELU>(a, row, &x[i]), four_rows::<RELU>(b, row, &x[i]))
            };
            low = _mm256_add_epi32(low, _mm256_madd_epi16(a, _mm256_shuffle_epi8(s, pattern)));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(b, _mm256_shuffle_epi8(t, pattern)));
        }
    }
    // For each four rows the first group's sums are in the low half, the second's in the high half.
    let first = _mm256_permute2x128_si256::<0x20>(low, high);
    _mm256_add_epi32(first, _mm256_permute2x128_si256::<0x31>(low, high))
}

/// Dot products of four rows, with two 16-bit lanes per row and group.
///
/// # Safety
///
/// 32 bytes are readable at each of four multiples of `row`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn four_rows<const RELU: bool>(codes: *const u8, row: usize, x: &ByteCodes) -> __m256i {
    // SAFETY: as the caller says.
    unsafe {
        let a = products::<RELU>(codes, x);
        let b = products::<RELU>(codes.add(row), x);
        let c = products::<RELU>(codes.add(2 * row), x);
        let d = products::<RELU>(codes.add(3 * row), x);
        _mm256_sub_epi16(join_pairs(a, b, c, d), load(&x.eights))
    }
}

/// Sums of neighbouring pairs of 16-bit lanes, of four registers next to each other in each half.
/// (A horizontal add takes twice as long as these three instructions on Zen 3.)
#[inline]
#[target_feature(enable = "avx2")]
fn join_pairs(a: __m256i, b: __m256i, c: __m256i, d: __m256i) -> __m256i {
    let ab = _mm256_add_epi16(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let cd = _mm256_add_epi16(_mm256_unpacklo_epi64(c, d), _mm256_unpackhi_epi64(c, d));
    let (ab, cd) = (_mm256_castsi256_ps(ab), _mm256_castsi256_ps(cd));
    let even = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(ab, cd));
    _mm256_add_epi16(even, _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(ab, cd)))
}

/// Sums of four products each, offsets included. `maddubs` is at most 2 · 15 · 255, the sum of two
/// of them 15,300: nothing saturates.
///
/// # Safety
///
/// 32 bytes are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn products<const RELU: bool>(codes: *const u8, x: &ByteCodes) -> __m256i {
    // SAFETY: as the caller says; the load needs no alignment.
    let codes = unsafe { _mm256_loadu_si256(codes.cast()) };
    let (x_low, x_high) = (load_bytes(&x.low), load_bytes(&x.high));
    let mask = _mm256_set1_epi8(15);
    let low = _mm256_and_si256(codes, mask);
    if RELU {
        let high = _mm256_and_si256(_mm256_srai_epi16::<4>(codes), _mm256_set1_epi16(!0xf0));
        let low = _mm256_maddubs_epi16(x_low, low);
        _mm256_add_epi16(low, _mm256_maddubs_epi16(x_high, high))
    } else {
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask);
        let high = _mm256_xor_si256(high, _mm256_set1_epi16(0x800));
        let low = _mm256_maddubs_epi16(low, x_low);
        _mm256_add_epi16(low, _mm256_maddubs_epi16(high, x_high))
    }
}

/// The scales of four chunks of four rows as bytes, four of a row adjacent: even groups in the low
/// half, odd groups in the high half.
///
/// # Safety
///
/// Four bytes are readable at each of four multiples of `row_scales`, which is 4 if `N` is 2.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn split_nibbles<const N: usize>(scales: *const u8, row_scales: usize) -> __m256i {
    // SAFETY: as the caller says.
    let words = unsafe {
        match N {
            2 => _mm_loadu_si128(scales.cast()),
            _ => four_words(scales, row_scales),
        }
    };
    let bytes = _mm256_broadcastsi128_si256(words);
    let shifted = _mm256_srlv_epi32(bytes, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
    _mm256_and_si256(shifted, _mm256_set1_epi8(15))
}

/// Shuffle patterns: byte i of every 32-bit lane to both of its halves.
static BROADCASTS: [[i16; 16]; SCALED] = {
    let mut patterns = [[0; 16]; SCALED];
    let mut i = 0;
    while i < SCALED {
        let mut lane = 0;
        while lane < 16 {
            patterns[i][lane] = i16::MIN | (lane as i16 / 2 % 4 * 4 + i as i16);
            lane += 1;
        }
        i += 1;
    }
    patterns
};

#[inline]
#[target_feature(enable = "avx2")]
fn bytes_of(lanes: __m256i) -> [u8; 32] {
    let mut bytes = [0; 32];
    // SAFETY: the 32 bytes of the array are writable, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), lanes) };
    bytes
}

#[inline]
#[target_feature(enable = "avx2")]
fn shorts_of(lanes: __m256i) -> [i16; 16] {
    let mut shorts = [0; 16];
    // SAFETY: the 32 bytes of the array are writable, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(shorts.as_mut_ptr().cast(), lanes) };
    shorts
}
