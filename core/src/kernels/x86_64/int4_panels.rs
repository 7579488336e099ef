//! INT4 in groups of 32 for several vectors with AVX2.
//!
//! Four columns of eight rows make a register of bytes, each a code + 8 and not negative, so that `maddubs`
//! multiplies 32 weights at a time by four codes of a vector. The products of a group are summed in two
//! lanes of 16 bits per row, starting from what the eights will add too much; `madd` multiplies both by
//! the group's scale and adds them in 32 bits.

use alloc::vec::Vec;
use core::arch::x86_64::*;

use super::finish::{finish, load_bytes, transpose};
use crate::blob::{Tensor, pair_u16};
use crate::kernels::Vectors;
use crate::kernels::batched::{BLOCK, PANEL, ROWS, Rescale, Scales};
use crate::kernels::portable::{bias, group_scale};
use crate::numeric::Scale;

/// Inputs of a group.
const GROUP: usize = 32;

/// Vectors that meet a panel together.
const VECTORS: usize = 4;

/// A group of a vector.
#[derive(Clone, Copy)]
struct Narrow {
    /// Codes as bytes, four at a time.
    codes: [[u8; 4]; GROUP / 4],
    /// −8 times the codes that each of a row's two lanes meets, at most 16 · 255 · 8, side by side.
    start: i32,
}

/// A group of sixteen rows.
#[derive(Clone, Copy)]
struct Weights {
    /// By four columns, of the first and of the last eight rows.
    codes: [[[u8; GROUP]; 2]; GROUP / 4],
    /// A row's scale twice, side by side.
    scales: [[i32; ROWS]; 2],
}

/// As [`crate::kernels::portable::matmul`], bit for bit, for groups of 32 that divide the row. The codes are
/// within ±127, or from 0 to 255 if `RELU`.
#[target_feature(enable = "avx2")]
pub(super) fn matmul<const RELU: bool>(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let layout = matrix.layout();
    let groups = matrix.cols / GROUP;
    let nothing = Weights { codes: [[[0; GROUP]; 2]; GROUP / 4], scales: [[0; ROWS]; 2] };
    let mut panel = alloc::vec![nothing; groups];
    let nothing = Narrow { codes: [[0; 4]; GROUP / 4], start: 0 };
    let mut narrow = alloc::vec![nothing; BLOCK.min(x.scales.len()) * groups];
    let mut rescales = Vec::with_capacity(BLOCK);
    let blocks = x.codes.chunks(BLOCK * matrix.cols).zip(x.scales.chunks(BLOCK));
    for ((codes, scales), out) in blocks.zip(out.chunks_mut(BLOCK * matrix.rows)) {
        let narrow = &mut narrow[..codes.len() / GROUP];
        for (narrow, group) in narrow.iter_mut().zip(codes.as_chunks::<GROUP>().0) {
            *narrow = narrow_group::<RELU>(group);
        }
        rescales.clear();
        for &scale in scales {
            rescales.push(Rescale::new(matrix, Scale::unpack(scale)));
        }
        for first in (0..matrix.rows).step_by(PANEL) {
            // The last row of the matrix takes empty places.
            let row = |j: usize| (first + j).min(matrix.rows - 1);
            let row_scales = |j: usize| &matrix.scales[row(j) * layout.row_scales..];
            let row_codes = |j: usize| &matrix.codes[row(j) * layout.row_codes..];
            let mut scales = [Scales::default(); 2];
            for j in 0..PANEL {
                let (half, odd, place) = (j / ROWS, j % 2, j % ROWS / 2);
                scales[half].mantissas[odd][place] = pair_u16(row_scales(j), 0) as i64;
                scales[half].biases[odd][place] = bias(matrix, row(j)) as i64;
            }
            for (g, weights) in panel.iter_mut().enumerate() {
                for half in 0..2 {
                    let mut rows = [_mm256_setzero_si256(); ROWS];
                    for (j, lanes) in rows.iter_mut().enumerate() {
                        let (codes, scales) =
                            (row_codes(half * ROWS + j), row_scales(half * ROWS + j));
                        *lanes = unpack(codes[GROUP / 2 * g..].first_chunk().unwrap_or(&[0; 16]));
                        weights.scales[half][j] = 0x1_0001 * group_scale(scales, g);
                    }
                    let columns = transpose(rows);
                    for (codes, lanes) in weights.codes.iter_mut().zip(columns) {
                        // SAFETY: the 32 bytes of the array are writable, and the store asks for no alignment.
                        unsafe { _mm256_storeu_si256(codes[half].as_mut_ptr().cast(), lanes) };
                    }
                }
            }
            let vectors = narrow.chunks(VECTORS * groups).zip(rescales.chunks(VECTORS));
            for ((x, rescales), out) in vectors.zip(out.chunks_mut(VECTORS * matrix.rows)) {
                let sums = sums::<RELU>(&panel, x);
                for ((sums, rescale), out) in
                    sums.iter().zip(rescales).zip(out.chunks_mut(matrix.rows))
                {
                    let mut values = [0; PANEL];
                    values[..ROWS].copy_from_slice(&finish(sums[0], &scales[0], rescale));
                    values[ROWS..].copy_from_slice(&finish(sums[1], &scales[1], rescale));
                    match out[first..].first_chunk_mut::<PANEL>() {
                        Some(place) => *place = values,
                        None => out[first..].copy_from_slice(&values[..matrix.rows - first]),
                    }
                }
            }
        }
    }
}

/// Sums of sixteen rows with up to as many vectors as registers take, which lie behind each other.
#[inline]
#[target_feature(enable = "avx2")]
fn sums<const RELU: bool>(panel: &[Weights], x: &[Narrow]) -> [[__m256i; 2]; VECTORS] {
    let count = x.len() / panel.len();
    let mut vectors = [x; VECTORS];
    for (b, vector) in vectors.iter_mut().enumerate() {
        // The last vector of a batch takes empty places.
        *vector = &x[b.min(count - 1) * panel.len()..][..panel.len()];
    }
    let mut sums = [[_mm256_setzero_si256(); 2]; VECTORS];
    for (g, weights) in panel.iter().enumerate() {
        let mut lanes = [[_mm256_setzero_si256(); 2]; VECTORS];
        for (lanes, x) in lanes.iter_mut().zip(vectors) {
            *lanes = [_mm256_set1_epi32(x[g].start); 2];
        }
        for (s, codes) in weights.codes.iter().enumerate() {
            let codes = [load_bytes(&codes[0]), load_bytes(&codes[1])];
            for (lanes, x) in lanes.iter_mut().zip(vectors) {
                let x = _mm256_set1_epi32(i32::from_le_bytes(x[g].codes[s]));
                for half in 0..2 {
                    let products = if RELU {
                        _mm256_maddubs_epi16(x, codes[half])
                    } else {
                        _mm256_maddubs_epi16(codes[half], x)
                    };
                    lanes[half] = _mm256_add_epi16(lanes[half], products);
                }
            }
        }
        for half in 0..2 {
            // SAFETY: the 32 bytes of the array are readable, and the load asks for no alignment.
            let scales = unsafe { _mm256_loadu_si256(weights.scales[half].as_ptr().cast()) };
            for (sums, lanes) in sums.iter_mut().zip(lanes) {
                sums[half] = _mm256_add_epi32(sums[half], _mm256_madd_epi16(lanes[half], scales));
            }
        }
    }
    sums
}

/// Codes of a row's group, each plus 8.
#[inline]
#[target_feature(enable = "avx2")]
fn unpack(codes: &[u8; GROUP / 2]) -> __m256i {
    // SAFETY: the 16 bytes of the array are readable, and the load asks for no alignment.
    let packed = unsafe { _mm_loadu_si128(codes.as_ptr().cast()) };
    let flipped = _mm_xor_si128(packed, _mm_set1_epi16(i16::MIN));
    let both = _mm256_set_m128i(_mm_srli_epi16::<4>(flipped), flipped);
    _mm256_and_si256(both, _mm256_set1_epi8(15))
}

#[inline]
#[target_feature(enable = "avx2")]
fn narrow_group<const RELU: bool>(codes: &[i16; GROUP]) -> Narrow {
    // SAFETY: the two halves of the array are readable, and the loads ask for no alignment.
    let (a, b) = unsafe {
        let at = codes.as_ptr();
        (_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(16).cast()))
    };
    let packed = if RELU { _mm256_packus_epi16(a, b) } else { _mm256_packs_epi16(a, b) };
    let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
    let eight = _mm256_set1_epi8(8);
    let pairs =
        if RELU { _mm256_maddubs_epi16(bytes, eight) } else { _mm256_maddubs_epi16(eight, bytes) };
    let four = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256::<1>(pairs));
    let two = _mm_add_epi16(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    let one = _mm_add_epi16(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
    let start = _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), one));
    let mut narrow = Narrow { codes: [[0; 4]; GROUP / 4], start };
    // SAFETY: the 32 bytes of the array are writable, and the store asks for no alignment.
    unsafe { _mm256_storeu_si256(narrow.codes.as_mut_ptr().cast(), bytes) };
    narrow
}
