//! INT4 in groups of 32 for several vectors with AVX2.
//!
//! Four columns of eight rows make a register of bytes, which `maddubs` multiplies by four codes of
//! a vector, 32 weights at a time. The unsigned factor is the code: behind a ReLU as it is, else
//! offset by 128, which adds 128 times a row's weights to its sum, the same for every vector. The
//! products of a group are summed in two 16-bit lanes per row, at most 16 · 255 · 8; `madd`
//! multiplies both by the group's scale and adds them in 32 bits.
//!
//! That is two vector operations per 32 products, and a sixteenth more per group. With two
//! multipliers among four vector ports, at most 57 products per cycle.

use alloc::vec::Vec;
#[cfg(not(miri))]
use core::arch::asm;
use core::arch::x86_64::*;

use super::registers::{fours, load, set};
use super::requantize::Requantizer;
use super::tile::{Both, Rows, Step, Sums, VECTORS, WORD, Words, side_by_side};
use crate::blob::Tensor;
use crate::kernels::batched::{BLOCK, PANEL, ROWS};
use crate::kernels::vectors::Vectors;

/// Inputs of a group.
pub(super) const GROUP: usize = 32;
/// Steps of a group.
pub(super) const STEPS: usize = GROUP / WORD;

/// Offset of codes that are not behind a ReLU.
pub(super) const OFFSET: i32 = 128;

/// Sixteen rows.
pub(super) struct Panel {
    /// Signed weights.
    pub(super) steps: Vec<Step>,
    /// For each group a row's scale, in both halves of its lane.
    pub(super) scales: Vec<Both<i32>>,
    /// Initial values of sums: the negated contribution of the offset of codes.
    pub(super) starts: Both<i32>,
}

/// As [`crate::kernels::portable::matmul`], bit for bit, for groups of 32 that divide the row. The
/// codes are within ±127, or from 0 to 255 if `RELU`.
#[target_feature(enable = "avx2")]
pub(super) fn matmul<const RELU: bool>(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) {
    // Codes times scales are at most 8 · 15.
    let unpack = |rows: &Rows, panel: &mut Panel| unpack::<RELU>(matrix, rows, panel);
    each_panel::<RELU, 1>(matrix, x, out, 120, unpack, |[panel], words, [out]| {
        sums(panel, words, out)
    });
}

/// Computes the outputs of all rows and vectors. `unpack` decodes a panel; `sums` sets the sums of
/// `P` panels with four vectors; a weight contributes at most `weight` to them.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn each_panel<const RELU: bool, const P: usize>(
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
    weight: u64,
    unpack: impl Fn(&Rows, &mut Panel),
    sums: impl Fn(&[Panel; P], &[Words], &mut [Sums; P]),
) {
    let groups = matrix.cols / GROUP;
    let mut panels: [Panel; P] = core::array::from_fn(|_| Panel {
        steps: alloc::vec![Both([[[0; WORD]; ROWS]; 2]); groups * STEPS],
        scales: alloc::vec![Both([[0; ROWS]; 2]); groups],
        starts: Both([[0; ROWS]; 2]),
    });
    let fours = BLOCK.min(x.scales.len()).div_ceil(VECTORS);
    let mut words = alloc::vec![[[0; WORD]; VECTORS]; fours * groups * STEPS];
    let mut lanes = [[Both([[0; ROWS]; 2]); VECTORS]; P];
    let mut requantizers = Vec::with_capacity(BLOCK.min(x.scales.len()));
    let bound = matrix.cols as u64 * weight * matrix.max_code as u64;
    let blocks = x.codes.chunks(BLOCK * matrix.cols).zip(x.scales.chunks(BLOCK));
    for ((codes, scales), out) in blocks.zip(out.chunks_mut(BLOCK * matrix.rows)) {
        let vectors = codes.chunks(VECTORS * matrix.cols);
        for (words, codes) in words.chunks_exact_mut(groups * STEPS).zip(vectors) {
            to_bytes::<RELU>(codes, matrix.cols, words);
        }
        requantizers.clear();
        requantizers.extend(scales.iter().map(|&scale| Requantizer::new(matrix, scale, bound)));
        for first in (0..matrix.rows).step_by(P * PANEL) {
            // Beyond the last row there are no panels, whose sums are nobody's.
            let rows: [Option<Rows>; P] = core::array::from_fn(|p| {
                let first = first + p * PANEL;
                (first < matrix.rows).then(|| Rows::new(matrix, first))
            });
            for (rows, panel) in rows.iter().zip(&mut panels) {
                if let Some(rows) = rows {
                    unpack(rows, panel);
                }
            }
            let vectors = words.chunks_exact(groups * STEPS).zip(requantizers.chunks(VECTORS));
            for (four, (words, requantizers)) in vectors.enumerate() {
                sums(&panels, words, &mut lanes);
                let out = &mut out[four * VECTORS * matrix.rows..];
                for (rows, lanes) in rows.iter().zip(&lanes) {
                    if let Some(rows) = rows {
                        rows.requantize_four(matrix, lanes, requantizers, out);
                    }
                }
            }
        }
    }
}

/// Sums of sixteen rows with four vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn sums(panel: &Panel, words: &[Words], sums: &mut Sums) {
    *sums = [panel.starts; VECTORS];
    let groups = panel.steps.as_chunks().0.iter().zip(words.as_chunks().0);
    for ((steps, words), scales) in groups.zip(&panel.scales) {
        add_group(steps, words, scales, sums);
    }
}

/// Adds a group's products, times its scales, to the sums.
///
/// In assembly because sums (two 16-bit lanes for each of sixteen rows and four vectors), products
/// and operands take all sixteen registers: a compiler that hoists any load spills sums. Products
/// are summed after the next vector's multiplications, to hide latency.
#[cfg(not(miri))]
#[inline]
#[target_feature(enable = "avx2")]
fn add_group(steps: &[Step; STEPS], words: &[Words; STEPS], scales: &Both<i32>, sums: &mut Sums) {
    macro_rules! weights {
        ($step:literal) => {
            concat!(
                "vmovdqa {w0}, [{steps} + 64*",
                $step,
                "]\n",
                "vmovdqa {w1}, [{steps} + 64*",
                $step,
                " + 32]\n",
            )
        };
    }
    macro_rules! multiply {
        ($step:literal, $vector:literal, $x:literal, $a0:literal, $a1:literal) => {
            concat!(
                "vpbroadcastd {",
                $x,
                "}, [{words} + 16*",
                $step,
                " + 4*",
                $vector,
                "]\n",
                "vpmaddubsw {",
                $a0,
                "}, {",
                $x,
                "}, {w0}\n",
                "vpmaddubsw {",
                $a1,
                "}, {",
                $x,
                "}, {w1}\n",
            )
        };
    }
    macro_rules! add {
        ($a0:literal, $a1:literal, $p0:literal, $p1:literal) => {
            concat!(
                "vpaddw {", $a0, "}, {", $a0, "}, {", $p0, "}\n", "vpaddw {", $a1, "}, {", $a1,
                "}, {", $p1, "}\n",
            )
        };
    }
    macro_rules! step {
        ($step:literal) => {
            concat!(
                weights!($step),
                multiply!($step, 0, "x0", "p0", "p1"),
                multiply!($step, 1, "x1", "p2", "p3"),
                add!("a0", "a1", "p0", "p1"),
                multiply!($step, 2, "x0", "p0", "p1"),
                add!("b0", "b1", "p2", "p3"),
                multiply!($step, 3, "x1", "p2", "p3"),
                add!("c0", "c1", "p0", "p1"),
                add!("d0", "d1", "p2", "p3"),
            )
        };
    }
    macro_rules! add_scaled {
        ($vector:literal, $a0:literal, $a1:literal) => {
            concat!(
                "vpmaddwd {",
                $a0,
                "}, {",
                $a0,
                "}, {w0}\n",
                "vpmaddwd {",
                $a1,
                "}, {",
                $a1,
                "}, {w1}\n",
                "vpaddd {",
                $a0,
                "}, {",
                $a0,
                "}, [{sums} + 64*",
                $vector,
                "]\n",
                "vpaddd {",
                $a1,
                "}, {",
                $a1,
                "}, [{sums} + 64*",
                $vector,
                " + 32]\n",
                "vmovdqa [{sums} + 64*",
                $vector,
                "], {",
                $a0,
                "}\n",
                "vmovdqa [{sums} + 64*",
                $vector,
                " + 32], {",
                $a1,
                "}\n",
            )
        };
    }
    // SAFETY: reads the steps, words and scales, updates the sums; all but the words are aligned to
    // 64 bytes, and the words are read by 4 bytes. All written registers are named.
    unsafe {
        asm!(
            weights!(0),
            multiply!(0, 0, "x0", "a0", "a1"),
            multiply!(0, 1, "x1", "b0", "b1"),
            multiply!(0, 2, "x0", "c0", "c1"),
            multiply!(0, 3, "x1", "d0", "d1"),
            step!(1),
            step!(2),
            step!(3),
            step!(4),
            step!(5),
            step!(6),
            step!(7),
            "vmovdqa {w0}, [{scales}]",
            "vmovdqa {w1}, [{scales} + 32]",
            add_scaled!(0, "a0", "a1"),
            add_scaled!(1, "b0", "b1"),
            add_scaled!(2, "c0", "c1"),
            add_scaled!(3, "d0", "d1"),
            steps = in(reg) steps,
            words = in(reg) words,
            scales = in(reg) scales,
            sums = in(reg) sums,
            a0 = out(ymm_reg) _,
            a1 = out(ymm_reg) _,
            b0 = out(ymm_reg) _,
            b1 = out(ymm_reg) _,
            c0 = out(ymm_reg) _,
            c1 = out(ymm_reg) _,
            d0 = out(ymm_reg) _,
            d1 = out(ymm_reg) _,
            w0 = out(ymm_reg) _,
            w1 = out(ymm_reg) _,
            x0 = out(ymm_reg) _,
            x1 = out(ymm_reg) _,
            p0 = out(ymm_reg) _,
            p1 = out(ymm_reg) _,
            p2 = out(ymm_reg) _,
            p3 = out(ymm_reg) _,
            options(nostack, preserves_flags),
        );
    }
}

/// The same for Miri, which knows intrinsics and no assembly.
#[cfg(miri)]
#[target_feature(enable = "avx2")]
fn add_group(steps: &[Step; STEPS], words: &[Words; STEPS], scales: &Both<i32>, sums: &mut Sums) {
    for (v, sums) in sums.iter_mut().enumerate() {
        for (half, sums) in sums.0.iter_mut().enumerate() {
            let mut lanes = _mm256_setzero_si256();
            for (step, words) in steps.iter().zip(words) {
                let word = super::tile::broadcast(words[v]);
                let products = _mm256_maddubs_epi16(word, load(&step.0[half]));
                lanes = _mm256_add_epi16(lanes, products);
            }
            let products = _mm256_madd_epi16(lanes, load(&scales.0[half]));
            set(sums, _mm256_add_epi32(load(sums), products));
        }
    }
}

/// Decodes a panel.
#[inline]
#[target_feature(enable = "avx2")]
fn unpack<const RELU: bool>(matrix: &Tensor<'_>, rows: &Rows, panel: &mut Panel) {
    let layout = matrix.layout();
    let mut codes: [&[[u8; GROUP / 2]]; PANEL] = [&[]; PANEL];
    let mut scales: [&[u8]; PANEL] = [&[]; PANEL];
    for (j, (codes, scales)) in codes.iter_mut().zip(&mut scales).enumerate() {
        // Padded with the last row.
        let row = rows.first + j.min(rows.count - 1);
        *codes = matrix.codes[row * layout.row_codes..][..layout.row_codes].as_chunks().0;
        *scales = &matrix.scales[row * layout.row_scales..][2..layout.row_scales];
    }
    let mut starts = [_mm256_setzero_si256(); 2];
    let pairs = panel.steps.chunks_mut(2 * STEPS).zip(panel.scales.chunks_mut(2));
    for (two, (steps, scales_of)) in pairs.enumerate() {
        let mut pairs = [0; PANEL];
        for (pair, scales) in pairs.iter_mut().zip(scales) {
            *pair = scales[two];
        }
        // SAFETY: the 16 bytes of the array are readable, and the load needs no alignment.
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
                if !RELU {
                    let mut lanes = _mm256_setzero_si256();
                    let offset = _mm256_set1_epi8(OFFSET as i8);
                    for step in steps.iter() {
                        let products = _mm256_maddubs_epi16(offset, load(&step.0[half]));
                        lanes = _mm256_sub_epi16(lanes, products);
                    }
                    let products = _mm256_madd_epi16(lanes, load(&scales.0[half]));
                    starts[half] = _mm256_add_epi32(starts[half], products);
                }
            }
        }
    }
    for (half, starts) in panel.starts.0.iter_mut().zip(starts) {
        set(half, starts);
    }
}

/// Unpacks a group of eight rows, rows j and j + 4 adjacent, to four columns of all rows per
/// register. Both nibbles of a byte move together.
#[inline]
#[target_feature(enable = "avx2")]
fn unpack_eight(rows: [[[u8; GROUP / 2]; 2]; 4], half: usize, steps: &mut [Step; STEPS]) {
    // The high nibble of every other byte is stored without the 8.
    let flip = _mm256_set1_epi16(i16::MIN);
    let rows = rows.each_ref().map(|two| {
        // SAFETY: the two arrays have as many bytes as are read, and the load needs no alignment.
        unsafe { _mm256_loadu_si256(two.as_ptr().cast()) }
    });
    let (mask, eight) = (_mm256_set1_epi8(15), _mm256_set1_epi8(8));
    for (s, four) in fours(rows).into_iter().enumerate() {
        let four = _mm256_xor_si256(four, flip);
        let lower = _mm256_and_si256(four, mask);
        set(&mut steps[s].0[half], _mm256_sub_epi8(lower, eight));
        let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(four), mask);
        set(&mut steps[s + STEPS / 2].0[half], _mm256_sub_epi8(upper, eight));
    }
}

/// Up to four vectors of `cols` codes as unsigned bytes; padded with zero vectors.
#[inline]
#[target_feature(enable = "avx2")]
fn to_bytes<const RELU: bool>(codes: &[i16], cols: usize, words: &mut [Words]) {
    for (g, words) in words.as_chunks_mut::<STEPS>().0.iter_mut().enumerate() {
        let mut bytes = [_mm256_setzero_si256(); VECTORS];
        for (bytes, codes) in bytes.iter_mut().zip(codes.chunks_exact(cols)) {
            *bytes = group_to_bytes::<RELU>(&codes.as_chunks().0[g]);
        }
        side_by_side(bytes, words);
    }
}

/// Codes as unsigned bytes.
#[inline]
#[target_feature(enable = "avx2")]
fn group_to_bytes<const RELU: bool>(codes: &[i16; GROUP]) -> __m256i {
    // SAFETY: the two halves of the array are readable, and the loads need no alignment.
    let (a, b) = unsafe {
        let at = codes.as_ptr();
        (_mm256_loadu_si256(at.cast()), _mm256_loadu_si256(at.add(16).cast()))
    };
    let packed = if RELU {
        _mm256_packus_epi16(a, b)
    } else {
        _mm256_xor_si256(_mm256_packs_epi16(a, b), _mm256_set1_epi8(OFFSET as i8))
    };
    // Packing works within 128-bit lanes: the quarters are the first of a and b, then the second.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
}
