//! INT4 in groups of 32, and INT8, for several vectors with AVX-512 VNNI.
//!
//! Panels and vectors are those of AVX2's INT4 ([`super::int4_panels`]): four columns of sixteen
//! rows fill a register, which one dot product multiplies by four codes of a vector. Codes of INT4
//! are multiplied by their scales when a panel is decoded, not once per vector.

use core::arch::x86_64::*;

use super::int4_panels::{GROUP, OFFSET, Panel, STEPS, each_panel};
use super::registers::{load_bytes, set, transpose};
use super::tile::{Rows, Step, Sums, VECTORS, Words};
use super::vnni_registers::{load, set as store};
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::{PANEL, ROWS};
use crate::kernels::matrix::Matrix;
use crate::kernels::vectors::{Vectors, not_negative};

/// Groups of INT4 in a line of the cache.
const LINE: usize = 4;
/// Panels at a time: their eight sums hide the five cycles of a dot product, and a code is loaded
/// once for both.
const PANELS: usize = 2;

/// See [`crate::kernels::kernel::Kernel::run`]; takes several vectors, unless a code behind a ReLU
/// is negative.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let relu = matrix.max_code > 127;
    if x.scales.len() < 2 || relu && !not_negative(x.codes) {
        return false;
    }
    match (matrix.precision, relu) {
        (Precision::Int8, false) => by_int8::<false>(matrix, x, out),
        (Precision::Int8, true) => by_int8::<true>(matrix, x, out),
        (_, false) => by_int4::<false>(matrix, x, out),
        (_, true) => by_int4::<true>(matrix, x, out),
    }
    true
}

/// The codes are within ±127, or from 0 to 255 if `RELU`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn by_int4<const RELU: bool>(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    // Codes times scales are at most 8 · 15.
    let unpack = |rows: &Rows, panel: &mut Panel| unpack_int4::<RELU>(matrix, rows, panel);
    each_panel::<RELU, PANELS>(matrix, x, out, 120, unpack, |panels, words, out| {
        sums(panels, words, out)
    });
}

/// As [`by_int4`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn by_int8<const RELU: bool>(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let unpack = |rows: &Rows, panel: &mut Panel| unpack_int8::<RELU>(matrix, rows, panel);
    each_panel::<RELU, PANELS>(matrix, x, out, 128, unpack, |panels, words, out| {
        sums(panels, words, out)
    });
}

/// Sums of two panels with four vectors, none beyond 2^14 · 255 · 128 < 2^29.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn sums([first, second]: &[Panel; PANELS], words: &[Words], out: &mut [Sums; PANELS]) {
    let mut lanes = [[load(&first.starts.0); VECTORS], [load(&second.starts.0); VECTORS]];
    let mut odd = [[_mm512_setzero_si512(); VECTORS]; PANELS];
    let first = first.steps.as_chunks::<2>().0.iter();
    let steps = first.zip(second.steps.as_chunks::<2>().0);
    for ((first, second), words) in steps.zip(words.as_chunks::<2>().0) {
        add_step(&mut lanes, &first[0], &second[0], &words[0]);
        add_step(&mut odd, &first[1], &second[1], &words[1]);
    }
    for (lanes, odd) in lanes.as_flattened_mut().iter_mut().zip(odd.as_flattened()) {
        *lanes = _mm512_add_epi32(*lanes, *odd);
    }
    for (out, lanes) in out.as_flattened_mut().iter_mut().zip(lanes.as_flattened()) {
        store(&mut out.0, *lanes);
    }
}

/// Adds the products of a step of both panels.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_step(lanes: &mut [[__m512i; VECTORS]; PANELS], first: &Step, second: &Step, words: &Words) {
    let (first, second) = (load(&first.0), load(&second.0));
    for (v, &word) in words.iter().enumerate() {
        let codes = _mm512_set1_epi32(i32::from_le_bytes(word));
        lanes[0][v] = _mm512_dpbusd_epi32(lanes[0][v], codes, first);
        lanes[1][v] = _mm512_dpbusd_epi32(lanes[1][v], codes, second);
    }
}

/// Decodes a panel; codes of INT4 times scales are bytes, 120 in magnitude at most.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn unpack_int4<const RELU: bool>(matrix: &Tensor<'_>, rows: &Rows, panel: &mut Panel) {
    let layout = matrix.layout();
    // Padded with the last row.
    let row = |j: usize| rows.first + j.min(rows.count - 1);
    let codes: [&[[u8; GROUP / 2]]; PANEL] = core::array::from_fn(|j| {
        matrix.codes[row(j) * layout.row_codes..][..layout.row_codes].as_chunks().0
    });
    let scales: [&[u8]; PANEL] = core::array::from_fn(|j| {
        &matrix.scales[row(j) * layout.row_scales..][2..layout.row_scales]
    });
    let groups = panel.steps.len() / STEPS;
    assert!(codes.iter().all(|row| row.len() == groups));
    assert!(scales.iter().all(|row| row.len() == groups.div_ceil(2)));
    let mut excess = _mm512_setzero_si512();
    for (g, steps) in panel.steps.as_chunks_mut::<STEPS>().0.iter_mut().enumerate() {
        if g % LINE == 0 {
            for row in &codes {
                let next = row[g].as_ptr().wrapping_add(PANELS * PANEL * layout.row_codes);
                _mm_prefetch::<_MM_HINT_T1>(next.cast());
            }
        }
        let mut nibbles = [0; PANEL];
        for (nibble, scales) in nibbles.iter_mut().zip(&scales) {
            *nibble = scales[g / 2] >> (g % 2 * 4) & 15;
        }
        // SAFETY: the 16 bytes of the array are readable, and the load needs no alignment.
        let once = _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(nibbles.as_ptr().cast()) });
        let scales = _mm512_or_si512(once, _mm512_slli_epi32::<16>(once));
        // 8 times a scale in every byte.
        let eights = _mm512_mullo_epi16(scales, _mm512_set1_epi16(0x808));
        // The high nibble of every other byte is stored without the 8.
        let flip = _mm512_set1_epi16(i16::MIN);
        for (s, four) in four_columns(&codes, g).into_iter().enumerate() {
            let four = _mm512_xor_si512(four, flip);
            for (nibbles, step) in [(four, s), (_mm512_srli_epi16::<4>(four), s + STEPS / 2)] {
                // Two products of nibbles at a time: neither exceeds 15 · 15, so none carries.
                let nibbles = _mm512_and_si512(nibbles, _mm512_set1_epi8(15));
                let products = _mm512_mullo_epi16(nibbles, scales);
                let weights = _mm512_sub_epi8(products, eights);
                store(&mut steps[step].0, weights);
                if !RELU {
                    let offset = _mm512_set1_epi8(OFFSET as i8);
                    excess = _mm512_dpbusd_epi32(excess, offset, weights);
                }
            }
        }
    }
    store(&mut panel.starts.0, _mm512_sub_epi32(_mm512_setzero_si512(), excess));
}

/// Sixteen bytes of each of sixteen rows, transposed to four bytes of all rows per register.
#[inline]
#[target_feature(enable = "avx512f")]
fn four_columns(codes: &[&[[u8; GROUP / 2]]; PANEL], g: usize) -> [__m512i; 4] {
    // Rows j, j + 4, j + 8 and j + 12 side by side.
    let mut sides = [_mm512_setzero_si512(); 4];
    for (j, side) in sides.iter_mut().enumerate() {
        // SAFETY: the arrays have the 16 bytes that are read, and the loads need no alignment.
        let (p, q, r, s) = unsafe {
            (
                _mm_loadu_si128(codes[j][g].as_ptr().cast()),
                _mm_loadu_si128(codes[j + 4][g].as_ptr().cast()),
                _mm_loadu_si128(codes[j + 8][g].as_ptr().cast()),
                _mm_loadu_si128(codes[j + 12][g].as_ptr().cast()),
            )
        };
        let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(p), q);
        let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(r), s);
        *side = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    }
    let [a, b, c, d] = sides;
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Decodes a panel.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn unpack_int8<const RELU: bool>(matrix: &Tensor<'_>, rows: &Rows, panel: &mut Panel) {
    // Stored plus 128 at even places.
    let flip = _mm256_set1_epi16(0x80);
    for half in 0..2 {
        // Padded with the last row.
        let row = |j: usize| rows.first + (ROWS * half + j).min(rows.count - 1);
        let rows: [&[[u8; GROUP]]; ROWS] = core::array::from_fn(|j| {
            matrix.codes[row(j) * matrix.cols..][..matrix.cols].as_chunks().0
        });
        for (g, steps) in panel.steps.as_chunks_mut::<STEPS>().0.iter_mut().enumerate() {
            let chunk = rows.map(|row| _mm256_xor_si256(load_bytes(&row[g]), flip));
            for (step, words) in steps.iter_mut().zip(transpose(chunk)) {
                set(&mut step.0[half], words);
            }
        }
    }
    let mut excess = _mm512_setzero_si512();
    if !RELU {
        for step in &panel.steps {
            let offset = _mm512_set1_epi8(OFFSET as i8);
            excess = _mm512_dpbusd_epi32(excess, offset, load(&step.0));
        }
    }
    store(&mut panel.starts.0, _mm512_sub_epi32(_mm512_setzero_si512(), excess));
}
