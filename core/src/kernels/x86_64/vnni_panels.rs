//! INT4 in groups of 32, and INT8, for several vectors with AVX-512 VNNI.
//!
//! Panels and vectors are those of AVX2's INT4 ([`super::int4_panels`]): four columns of sixteen
//! rows fill a register, which one dot product multiplies by four codes of a vector. Even and odd
//! steps have sums of their own, to keep eight dot products of five cycles each in flight.

use core::arch::x86_64::*;

use super::int4_panels::{GROUP, OFFSET, Panel, STEPS, each_panel, unpack};
use super::registers::{load_bytes, set, transpose};
use super::tile::{Both, Rows, Step, Sums, VECTORS, Words};
use super::vnni_registers::load;
use crate::blob::{Precision, Tensor};
use crate::kernels::batched::ROWS;
use crate::kernels::matrix::Matrix;
use crate::kernels::vectors::{Vectors, not_negative};

/// Two steps, each with its own sums for four vectors.
type Lanes = [[__m512i; VECTORS]; 2];

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
    let unpack = |rows: &Rows, panel: &mut Panel| unpack::<RELU>(matrix, rows, panel);
    each_panel::<RELU>(matrix, x, out, 120, unpack, |panel, words, out| {
        int4_sums(panel, words, out)
    });
}

/// As [`by_int4`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn by_int8<const RELU: bool>(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    let unpack = |rows: &Rows, panel: &mut Panel| unpack_int8::<RELU>(matrix, rows, panel);
    each_panel::<RELU>(matrix, x, out, 128, unpack, |panel, words, out| {
        int8_sums(panel, words, out)
    });
}

/// Sums of sixteen rows with four vectors. A group's sum is below 2^17: its product with the scale
/// fits 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int4_sums(panel: &Panel, words: &[Words], out: &mut Sums) {
    let mut sums = [load(&panel.starts.0); VECTORS];
    let groups = panel.steps.as_chunks::<STEPS>().0.iter().zip(words.as_chunks::<STEPS>().0);
    for ((steps, words), scales) in groups.zip(&panel.scales) {
        let mut lanes = [[_mm512_setzero_si512(); VECTORS]; 2];
        add_steps(&mut lanes, steps, words);
        // A scale is in both halves of its lane.
        let scales = _mm512_and_si512(load(&scales.0), _mm512_set1_epi32(15));
        for (v, sum) in sums.iter_mut().enumerate() {
            let products = _mm512_add_epi32(lanes[0][v], lanes[1][v]);
            *sum = _mm512_add_epi32(*sum, _mm512_mullo_epi32(products, scales));
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        put(sums, out);
    }
}

/// Sums of sixteen rows with four vectors, none beyond 2^14 · 255 · 128 < 2^29.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
fn int8_sums(panel: &Panel, words: &[Words], out: &mut Sums) {
    let mut lanes = [[load(&panel.starts.0); VECTORS], [_mm512_setzero_si512(); VECTORS]];
    add_steps(&mut lanes, &panel.steps, words);
    for (v, out) in out.iter_mut().enumerate() {
        put(_mm512_add_epi32(lanes[0][v], lanes[1][v]), out);
    }
}

/// Adds products of an even number of steps.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn add_steps(lanes: &mut Lanes, steps: &[Step], words: &[Words]) {
    let pairs = steps.as_chunks::<2>().0.iter().zip(words.as_chunks::<2>().0);
    for (steps, words) in pairs {
        for ((lanes, step), words) in lanes.iter_mut().zip(steps).zip(words) {
            let weights = load(&step.0);
            for (lane, &word) in lanes.iter_mut().zip(words) {
                let codes = _mm512_set1_epi32(i32::from_le_bytes(word));
                *lane = _mm512_dpbusd_epi32(*lane, codes, weights);
            }
        }
    }
}

/// A lane for each of sixteen rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn put(lanes: __m512i, out: &mut Both<i32>) {
    // SAFETY: it has the 64 bytes that are written, and the store needs no alignment.
    unsafe { _mm512_storeu_si512(out.0.as_mut_ptr().cast(), lanes) };
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
    put(_mm512_sub_epi32(_mm512_setzero_si512(), excess), &mut panel.starts);
}
