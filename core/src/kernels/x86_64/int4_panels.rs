//! INT4 in groups of 32 for several vectors with AVX2.
//!
//! Four columns of eight rows make a register of bytes, each a code + 8 and not negative, so that `maddubs`
//! multiplies 32 weights at a time by four codes of a vector. The products of a group are summed in two
//! lanes of 16 bits per row, starting from what the eights will add too much; `madd` multiplies both by
//! the group's scale and adds them in 32 bits.
//!
//! That is two operations on registers for 32 products, and a quarter more for what a group adds. With two
//! pipes that multiply among four, 57 products a cycle are the most. The sums do not always find the pipes that
//! multiply nothing: eight products and their sums take a Zen 3 4.9 cycles instead of 4.

use alloc::vec::Vec;
#[cfg(not(miri))]
use core::arch::asm;
use core::arch::x86_64::*;

use super::tile::{
    Both, Finish, Rows, Step, Sums, VECTORS, WORD, Words, fours, load, set, side_by_side,
};
use crate::blob::Tensor;
use crate::kernels::Vectors;
use crate::kernels::batched::{BLOCK, PANEL, ROWS};

/// Inputs of a group.
pub(super) const GROUP: usize = 32;
/// Steps of a group.
pub(super) const STEPS: usize = GROUP / WORD;

/// Four vectors.
#[derive(Clone, Copy)]
pub(super) struct Narrow<'a> {
    /// Codes as bytes.
    pub(super) words: &'a [Words],
    /// Of every group −8 times the codes that each of a row's two lanes meets, at most 16 · 255 · 8, side by
    /// side.
    pub(super) starts: &'a [[i32; VECTORS]],
}

/// Sixteen rows.
pub(super) struct Panel {
    pub(super) steps: Vec<Step>,
    /// Of every group a row's scale twice, side by side.
    pub(super) scales: Vec<Both<i32>>,
}

/// As [`crate::kernels::portable::matmul`], bit for bit, for groups of 32 that divide the row. The codes are
/// within ±127, or from 0 to 255 if `RELU`.
#[target_feature(enable = "avx2")]
pub(super) fn matmul<const RELU: bool>(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    // Codes times scales are at most 8 · 15.
    let unpack = |matrix: &Tensor<'_>, rows: &Rows, panel: &mut Panel| unpack(matrix, rows, panel);
    each_panel::<RELU>(matrix, x, out, 120, unpack, |panel, x| sums::<RELU>(panel, x));
}

/// Puts the outputs of all rows and vectors. `unpack` decodes a panel, whose sums with four vectors `sums`
/// returns; a weight counts at most `weight` in them.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn each_panel<const RELU: bool>(
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
    weight: u64,
    unpack: impl Fn(&Tensor<'_>, &Rows, &mut Panel),
    sums: impl Fn(&Panel, Narrow<'_>) -> Sums,
) {
    let groups = matrix.cols / GROUP;
    let mut panel = Panel {
        steps: alloc::vec![Both([[[0; WORD]; ROWS]; 2]); groups * STEPS],
        scales: alloc::vec![Both([[0; ROWS]; 2]); groups],
    };
    let fours = BLOCK.min(x.scales.len()).div_ceil(VECTORS);
    let mut words = alloc::vec![[[0; WORD]; VECTORS]; fours * groups * STEPS];
    let mut starts = alloc::vec![[0; VECTORS]; fours * groups];
    let mut finishes = alloc::vec![Finish::default(); BLOCK.min(x.scales.len())];
    let bound = matrix.cols as u64 * weight * matrix.max_code as u64;
    let blocks = x.codes.chunks(BLOCK * matrix.cols).zip(x.scales.chunks(BLOCK));
    for ((codes, scales), out) in blocks.zip(out.chunks_mut(BLOCK * matrix.rows)) {
        let vectors = codes.chunks(VECTORS * matrix.cols);
        let narrow = words.chunks_exact_mut(groups * STEPS).zip(starts.chunks_exact_mut(groups));
        for ((words, starts), codes) in narrow.zip(vectors) {
            narrow_vectors::<RELU>(codes, words, starts);
        }
        let finishes = &mut finishes[..scales.len()];
        for (finish, &scale) in finishes.iter_mut().zip(scales) {
            *finish = Finish::new(matrix, scale, bound);
        }
        for first in (0..matrix.rows).step_by(PANEL) {
            let rows = Rows::new(matrix, first);
            unpack(matrix, &rows, &mut panel);
            let narrow = words.chunks_exact(groups * STEPS).zip(starts.chunks_exact(groups));
            let vectors = narrow.zip(finishes.chunks(VECTORS));
            for (((words, starts), finishes), out) in
                vectors.zip(out.chunks_mut(VECTORS * matrix.rows))
            {
                let sums = sums(&panel, Narrow { words, starts });
                let vectors = sums.into_iter().zip(finishes).zip(out.chunks_exact_mut(matrix.rows));
                for ((sums, finish), out) in vectors {
                    rows.finish(matrix, sums, finish, out);
                }
            }
        }
    }
}

/// Sums of sixteen rows with four vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn sums<const RELU: bool>(panel: &Panel, x: Narrow<'_>) -> Sums {
    let mut sums = [[_mm256_setzero_si256(); 2]; VECTORS];
    let groups = panel.steps.as_chunks::<STEPS>().0.iter().zip(x.words.as_chunks::<STEPS>().0);
    for (((codes, words), scales), starts) in groups.zip(&panel.scales).zip(x.starts) {
        let mut lanes = starts.map(|start| [_mm256_set1_epi32(start); 2]);
        for (step, words) in codes.iter().zip(words) {
            add_step::<RELU>(&mut lanes, step, words);
        }
        let [low, high] = &scales.0;
        let scales = [load(low), load(high)];
        for (sums, lanes) in sums.iter_mut().zip(lanes) {
            for half in 0..2 {
                let products = _mm256_madd_epi16(lanes[half], scales[half]);
                sums[half] = _mm256_add_epi32(sums[half], products);
            }
        }
    }
    sums
}

/// Adds the products of four columns of sixteen rows with four vectors.
///
/// Written out because the order matters: two vectors' products and then their sums fill the pipes better than
/// each product with its sum, and all sixteen registers are taken, so that moving any load ahead would put a
/// sum into memory.
#[cfg(not(miri))]
#[inline]
#[target_feature(enable = "avx2")]
fn add_step<const RELU: bool>(lanes: &mut [[__m256i; 2]; VECTORS], step: &Step, words: &Words) {
    macro_rules! add {
        ($($product:literal)*) => {{
            let [[a0, a1], [b0, b1], [c0, c1], [d0, d1]] = lanes;
            // SAFETY: read are the 64 bytes of the step, which are aligned, and the 16 of the words; written
            // are only registers that are named here.
            unsafe {
                asm!(
                    "vmovdqa {w0}, [{step}]",
                    "vmovdqa {w1}, [{step} + 32]",
                    "vpbroadcastd {x0}, [{words}]",
                    "vpbroadcastd {x1}, [{words} + 4]",
                    $($product,)*
                    "vpaddw {a0}, {a0}, {p0}",
                    "vpaddw {a1}, {a1}, {p1}",
                    "vpaddw {b0}, {b0}, {p2}",
                    "vpaddw {b1}, {b1}, {p3}",
                    "vpbroadcastd {x0}, [{words} + 8]",
                    "vpbroadcastd {x1}, [{words} + 12]",
                    $($product,)*
                    "vpaddw {c0}, {c0}, {p0}",
                    "vpaddw {c1}, {c1}, {p1}",
                    "vpaddw {d0}, {d0}, {p2}",
                    "vpaddw {d1}, {d1}, {p3}",
                    step = in(reg) step,
                    words = in(reg) words,
                    a0 = inout(ymm_reg) *a0,
                    a1 = inout(ymm_reg) *a1,
                    b0 = inout(ymm_reg) *b0,
                    b1 = inout(ymm_reg) *b1,
                    c0 = inout(ymm_reg) *c0,
                    c1 = inout(ymm_reg) *c1,
                    d0 = inout(ymm_reg) *d0,
                    d1 = inout(ymm_reg) *d1,
                    w0 = out(ymm_reg) _,
                    w1 = out(ymm_reg) _,
                    x0 = out(ymm_reg) _,
                    x1 = out(ymm_reg) _,
                    p0 = out(ymm_reg) _,
                    p1 = out(ymm_reg) _,
                    p2 = out(ymm_reg) _,
                    p3 = out(ymm_reg) _,
                    options(readonly, nostack, preserves_flags),
                )
            }
        }};
    }
    // What has no sign comes first (in this syntax).
    if RELU {
        add!("vpmaddubsw {p0}, {x0}, {w0}" "vpmaddubsw {p1}, {x0}, {w1}" "vpmaddubsw {p2}, {x1}, {w0}" "vpmaddubsw {p3}, {x1}, {w1}");
    } else {
        add!("vpmaddubsw {p0}, {w0}, {x0}" "vpmaddubsw {p1}, {w1}, {x0}" "vpmaddubsw {p2}, {w0}, {x1}" "vpmaddubsw {p3}, {w1}, {x1}");
    }
}

/// The same for Miri, which knows intrinsics and no assembly.
#[cfg(miri)]
#[target_feature(enable = "avx2")]
fn add_step<const RELU: bool>(lanes: &mut [[__m256i; 2]; VECTORS], step: &Step, words: &Words) {
    for (lanes, &word) in lanes.iter_mut().zip(words) {
        for (lane, weights) in lanes.iter_mut().zip(&step.0) {
            let (weights, word) = (load(weights), super::tile::broadcast(word));
            let (a, b) = if RELU { (word, weights) } else { (weights, word) };
            *lane = _mm256_add_epi16(*lane, _mm256_maddubs_epi16(a, b));
        }
    }
}

/// Decodes a panel.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn unpack(matrix: &Tensor<'_>, rows: &Rows, panel: &mut Panel) {
    let layout = matrix.layout();
    let mut codes: [&[[u8; GROUP / 2]]; PANEL] = [&[]; PANEL];
    let mut scales: [&[u8]; PANEL] = [&[]; PANEL];
    for (j, (codes, scales)) in codes.iter_mut().zip(&mut scales).enumerate() {
        // The last row takes empty places.
        let row = rows.first + j.min(rows.count - 1);
        *codes = matrix.codes[row * layout.row_codes..][..layout.row_codes].as_chunks().0;
        *scales = &matrix.scales[row * layout.row_scales..][2..layout.row_scales];
    }
    let pairs = panel.steps.chunks_mut(2 * STEPS).zip(panel.scales.chunks_mut(2));
    for (two, (steps, scales_of)) in pairs.enumerate() {
        let mut pairs = [0; PANEL];
        for (pair, scales) in pairs.iter_mut().zip(scales) {
            *pair = scales[two];
        }
        // SAFETY: the 16 bytes of the array are readable, and the load asks for no alignment.
        let pairs = unsafe { _mm_loadu_si128(pairs.as_ptr().cast()) };
        let upper = _mm_srli_epi16::<4>(pairs);
        let groups = steps.as_chunks_mut::<STEPS>().0.iter_mut().zip(scales_of);
        for (odd, (steps, scales)) in groups.enumerate() {
            let nibbles = _mm_and_si128(if odd == 0 { pairs } else { upper }, _mm_set1_epi8(15));
            let nibbles = [nibbles, _mm_unpackhi_epi64(nibbles, nibbles)];
            for (scales, nibbles) in scales.0.iter_mut().zip(nibbles) {
                let once = _mm256_cvtepu8_epi32(nibbles);
                set(scales, _mm256_or_si256(once, _mm256_slli_epi32::<16>(once)));
            }
            for half in 0..2 {
                let group = |j: usize| codes[half * ROWS + j][2 * two + odd];
                let rows = [
                    [group(0), group(4)],
                    [group(1), group(5)],
                    [group(2), group(6)],
                    [group(3), group(7)],
                ];
                unpack_eight(rows, half, steps);
            }
        }
    }
}

/// A group of eight rows, of which two that are four apart come side by side: four columns of all in a
/// register, each code plus 8. Both nibbles of the bytes move together.
#[inline]
#[target_feature(enable = "avx2")]
fn unpack_eight(rows: [[[u8; GROUP / 2]; 2]; 4], half: usize, steps: &mut [Step; STEPS]) {
    // The upper nibble of every other byte is stored without the 8.
    let flip = _mm256_set1_epi16(i16::MIN);
    let rows = rows.each_ref().map(|two| {
        // SAFETY: the two arrays have as many bytes as are read, and the load asks for no alignment.
        unsafe { _mm256_loadu_si256(two.as_ptr().cast()) }
    });
    let mask = _mm256_set1_epi8(15);
    for (s, four) in fours(rows).into_iter().enumerate() {
        let four = _mm256_xor_si256(four, flip);
        set(&mut steps[s].0[half], _mm256_and_si256(four, mask));
        let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(four), mask);
        set(&mut steps[s + STEPS / 2].0[half], upper);
    }
}

/// Up to four vectors, zeros in the place of others.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow_vectors<const RELU: bool>(
    codes: &[i16],
    words: &mut [Words],
    starts: &mut [[i32; VECTORS]],
) {
    let vectors = codes.as_chunks::<GROUP>().0;
    let groups = starts.len();
    let narrow = words.as_chunks_mut::<STEPS>().0.iter_mut().zip(starts);
    for (g, (words, starts)) in narrow.enumerate() {
        let mut bytes = [_mm256_setzero_si256(); VECTORS];
        let vectors = vectors.iter().skip(g).step_by(groups);
        for ((bytes, start), codes) in bytes.iter_mut().zip(starts).zip(vectors) {
            (*bytes, *start) = narrow_group::<RELU>(codes);
        }
        side_by_side(bytes, words);
    }
}

/// Codes as bytes, and where sums with them start.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow_group<const RELU: bool>(codes: &[i16; GROUP]) -> (__m256i, i32) {
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
    (bytes, _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), one)))
}
