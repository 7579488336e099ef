//! INT4 in groups of 32 for a single vector with AVX-512 VNNI, sixteen rows at a time.
//!
//! A register holds four groups of a row, a quarter each. Two dot products add eight products to
//! every lane; the initial value cancels the offset of the nibbles. For four rows, neighbouring
//! lanes are added, which leaves two sums of sixteen products per group and row: they fit 16 bits
//! and are packed, so that one `madd` multiplies four rows by the scales of their groups. Quarters
//! are added once per row, at its end.
//!
//! Per 512 products that is twenty vector operations (a shift, two that split the nibbles, and two
//! dot products for every row), and ten that four rows share: seven that join them, the broadcast
//! of the scales, their multiplication, the sum. Without joining, every row would have scales to
//! load, split and multiply by, and sixteen lanes to add: for rows of 128 columns, a single
//! register, that takes longer than the products. A second pass requantizes the sums of all rows.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::registers::four_words;
use super::requantize::{Requantizer, requantize_rows};
use super::tile::buffer;
use super::vnni_registers::{BYTES, dot, first_bytes, load, set};
use crate::blob::Tensor;
use crate::kernels::batched::Rescale;

/// Inputs per group.
const GROUP: usize = 32;
/// Groups per register.
const GROUPS: usize = 4;
/// Inputs per register.
const CHUNK: usize = GROUPS * GROUP;
/// Rows whose sums are joined.
const FOUR: usize = 4;
/// Rows whose sums fill a register.
const ROWS: usize = 4 * FOUR;
/// Registers of a row whose scales are four bytes.
const SCALED: usize = 2;
/// Registers of a vector that fit the stack; longer ones take the heap.
const FEW: usize = 4;
/// Bytes of codes from which rows are prefetched. A model has many such matrices, and a core's own
/// cache keeps none of them until the next token.
const LARGE: usize = 1 << 16;

/// Four groups of codes as bytes, and the initial values of their sums.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct ByteCodes {
    /// Codes 0 to 15 of each group, for the low nibbles.
    low: [u8; BYTES],
    /// Codes 16 to 31, for the high nibbles.
    high: [u8; BYTES],
    /// −8 times the sum of four neighbours in `low` and four in `high`.
    starts: [i32; BYTES / 4],
}

impl ByteCodes {
    const ZEROS: Self = Self { low: [0; BYTES], high: [0; BYTES], starts: [0; BYTES / 4] };
}

/// Whether [`matmul`] takes a matrix of groups of 32 that divide the row: at least sixteen rows of
/// at least three groups, so that a row's mantissa and scales are at least four bytes.
#[inline(always)]
pub(super) fn fits(matrix: &Tensor<'_>) -> bool {
    matrix.rows >= ROWS && matrix.cols >= 3 * GROUP
}

/// A matrix that [`fits`]. The codes are within ±127, or from 0 to 255 if `RELU`; the shift is from
/// 1 to 62.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn matmul<const RELU: bool>(
    matrix: &Tensor<'_>,
    codes: &[i16],
    scale: u32,
    rescale: &Rescale,
    out: &mut [i32],
) {
    let (mut few, mut many) = ([ByteCodes::ZEROS; FEW], Vec::new());
    let x = buffer(codes.len().div_ceil(CHUNK), ByteCodes::ZEROS, &mut few, &mut many);
    for (x, codes) in x.iter_mut().zip(codes.chunks(CHUNK)) {
        *x = to_bytes::<RELU>(codes);
    }
    match codes.len() {
        128 => rows::<RELU, 4, false>(matrix, x, out),
        256 => rows::<RELU, 8, false>(matrix, x, out),
        _ if matrix.codes.len() < LARGE => rows::<RELU, 0, false>(matrix, x, out),
        _ => rows::<RELU, 0, true>(matrix, x, out),
    }
    let row_scales = matrix.layout().row_scales;
    let requantizer =
        Requantizer::new(matrix, scale, matrix.cols as u64 * 120 * matrix.max_code as u64);
    requantize_rows(matrix, row_scales, &requantizer, rescale, out);
}

/// Bytes of up to four groups of codes, whole ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn to_bytes<const RELU: bool>(codes: &[i16]) -> ByteCodes {
    let mut groups = [_mm256_setzero_si256(); GROUPS];
    for (bytes, group) in groups.iter_mut().zip(codes.as_chunks::<GROUP>().0) {
        // The codes fit bytes: truncation is exact.
        *bytes = _mm512_cvtepi16_epi8(load(group));
    }
    let [a, b, c, d] = groups.map(|group| _mm512_castsi256_si512(group));
    let ab = _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b);
    let cd = _mm512_shuffle_i64x2::<0b01_00_01_00>(c, d);
    let low = _mm512_shuffle_i64x2::<0b10_00_10_00>(ab, cd);
    let high = _mm512_shuffle_i64x2::<0b11_01_11_01>(ab, cd);
    let eight = _mm512_set1_epi8(8);
    let eights = dot::<RELU>(dot::<RELU>(_mm512_setzero_si512(), eight, low), eight, high);
    let mut x = ByteCodes::ZEROS;
    set(&mut x.low, low);
    set(&mut x.high, high);
    set(&mut x.starts, _mm512_sub_epi32(_mm512_setzero_si512(), eights));
    x
}

/// Sums of all rows, compiled for rows of `N` groups, or of any number if that is 0. `AHEAD`
/// prefetches the next rows: hardware does not prefetch sixteen streams at a time.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn rows<const RELU: bool, const N: usize, const AHEAD: bool>(
    matrix: &Tensor<'_>,
    x: &[ByteCodes],
    out: &mut [i32],
) {
    let groups = if N > 0 { N } else { matrix.cols / GROUP };
    let (row, row_scales) = (GROUP / 2 * groups, 2 + groups.div_ceil(2));
    let (codes, scales) = (matrix.codes, matrix.scales);
    let (x, out) = (&x[..groups.div_ceil(GROUPS)], &mut out[..matrix.rows]);
    assert!(matrix.rows >= ROWS && row_scales >= 4);
    assert!(codes.len() == matrix.rows * row && scales.len() == matrix.rows * row_scales);
    for start in (0..matrix.rows).step_by(ROWS) {
        // The last rows may overlap those before, whose outputs are then computed twice.
        let first = start.min(matrix.rows - ROWS);
        // SAFETY: by the assertions sixteen rows of `row` bytes and as many of `row_scales` are
        // there, and `x` has a register for every four groups begun.
        let sums = unsafe {
            let codes = codes.as_ptr().add(first * row);
            let scales = scales.as_ptr().add(first * row_scales);
            sums::<RELU, N, AHEAD>(codes, scales, groups, x)
        };
        let out: &mut [i32; ROWS] = out[first..].first_chunk_mut().expect("sixteen rows are left");
        set(out, sums);
    }
}

/// Sums of sixteen rows.
///
/// # Safety
///
/// There are sixteen rows with 16 bytes of codes per group and ⌈groups / 2⌉ + 2 bytes of scales, at
/// least four. `x` has ⌈groups / 4⌉ registers. `groups` is `N` unless that is 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn sums<const RELU: bool, const N: usize, const AHEAD: bool>(
    codes: *const u8,
    scales: *const u8,
    groups: usize,
    x: &[ByteCodes],
) -> __m512i {
    let (row, row_scales) = (GROUP / 2 * groups, 2 + groups.div_ceil(2));
    let mut sums = [_mm512_setzero_si512(); ROWS / FOUR];
    for (c, x) in x.chunks(SCALED).enumerate() {
        // Four bytes within the row: they may start with scales already used, or with the mantissa.
        let wanted = 2 + GROUPS / 2 * SCALED * c;
        let place = wanted.min(row_scales - 4);
        // SAFETY: the four bytes are of the row.
        let scales: [__m512i; ROWS / FOUR] = core::array::from_fn(|q| unsafe {
            split_nibbles::<N>(scales.add(FOUR * q * row_scales + place), row_scales)
        });
        for (i, x) in x.iter().enumerate() {
            let at = BYTES * (SCALED * c + i);
            let pattern = load(&BROADCASTS[wanted - place + GROUPS / 2 * i]);
            for (q, (sum, scales)) in sums.iter_mut().zip(&scales).enumerate() {
                // SAFETY: the bytes that the row has there, of four rows. A prefetch reads nothing,
                // wherever it points.
                let products = unsafe {
                    let codes = codes.add(FOUR * q * row + at);
                    if AHEAD {
                        for j in 0..FOUR {
                            let next = codes.wrapping_add((ROWS + j) * row);
                            _mm_prefetch::<_MM_HINT_T0>(next.cast());
                        }
                    }
                    if N > 0 || at + BYTES <= row {
                        four_rows::<RELU, true>(codes, row, BYTES, x)
                    } else {
                        four_rows::<RELU, false>(codes, row, row - at, x)
                    }
                };
                let scales = _mm512_shuffle_epi8(*scales, pattern);
                *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(products, scales));
            }
        }
    }
    join_quarters(sums)
}

/// Dot products of four rows, with two 16-bit lanes per row in every group's quarter.
///
/// # Safety
///
/// `some` bytes are readable at each of four multiples of `row`: a register if `WHOLE`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn four_rows<const RELU: bool, const WHOLE: bool>(
    codes: *const u8,
    row: usize,
    some: usize,
    x: &ByteCodes,
) -> __m512i {
    let (low, high, starts) = (load(&x.low), load(&x.high), load(&x.starts));
    let products = |j: usize| {
        // SAFETY: as the caller says; the loads need no alignment. Beyond a row the vector's codes
        // are zeros.
        let stored = unsafe {
            let codes = codes.add(j * row);
            if WHOLE {
                _mm512_loadu_si512(codes.cast())
            } else {
                _mm512_maskz_loadu_epi8(first_bytes(some), codes.cast())
            }
        };
        let mask = _mm512_set1_epi8(15);
        // The high nibble of every other byte is stored without the 8.
        let upper = _mm512_xor_si512(_mm512_srli_epi16::<4>(stored), _mm512_set1_epi16(0x800));
        // At most 8 · 8 · 255 in magnitude.
        let sums = dot::<RELU>(starts, _mm512_and_si512(stored, mask), low);
        dot::<RELU>(sums, _mm512_and_si512(upper, mask), high)
    };
    let two = |j: usize| {
        let (a, b) = (products(j), products(j + 1));
        _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    };
    // At most 16 · 8 · 255 < 2^15 in magnitude.
    _mm512_packs_epi32(two(0), two(2))
}

/// The scales of eight groups of four rows as bytes, four of a row adjacent: even groups in the
/// first and third quarter, odd groups in the others.
///
/// # Safety
///
/// Four bytes are readable at each of four multiples of `row_scales`, which is 4 if `N` is 4.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn split_nibbles<const N: usize>(scales: *const u8, row_scales: usize) -> __m512i {
    // SAFETY: as the caller says; the load needs no alignment.
    let words = unsafe {
        match N {
            4 => _mm_loadu_si128(scales.cast()),
            _ => four_words(scales, row_scales),
        }
    };
    let drop = _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0);
    let shifted = _mm512_srlv_epi64(_mm512_broadcast_i32x4(words), drop);
    _mm512_and_si512(shifted, _mm512_set1_epi8(15))
}

/// Shuffle patterns: of every row's four bytes, byte i to both of its 16-bit lanes in the quarters
/// of the first two groups, the next byte in the others; high bytes are zero.
static BROADCASTS: [[i16; BYTES / 2]; 4] = {
    let mut patterns = [[0; BYTES / 2]; 4];
    let mut i = 0;
    while i < patterns.len() {
        let mut lane = 0;
        while lane < BYTES / 2 {
            let (quarter, row) = (lane / 8, lane % 8 / 2);
            // Groups beyond the last byte do not exist.
            let byte = (4 * row + i + quarter / 2) % 16;
            patterns[i][lane] = i16::MIN | byte as i16;
            lane += 1;
        }
        i += 1;
    }
    patterns
};

/// Sums of the quarters of each register, next to each other.
#[inline]
#[target_feature(enable = "avx512f")]
fn join_quarters([a, b, c, d]: [__m512i; 4]) -> __m512i {
    let two = |a, b| {
        let first = _mm512_shuffle_i64x2::<0b01_00_01_00>(a, b);
        _mm512_add_epi32(first, _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b))
    };
    let (ab, cd) = (two(a, b), two(c, d));
    let even = _mm512_shuffle_i64x2::<0b10_00_10_00>(ab, cd);
    _mm512_add_epi32(even, _mm512_shuffle_i64x2::<0b11_01_11_01>(ab, cd))
}
