//! Single vectors with NEON.
//!
//! INT4: a nibble is the code + 8, the highest of two bytes after flipping its top bit. It is not
//! negative, so that it may be multiplied by signed or unsigned bytes; eight times the sum of codes
//! is subtracted. INT8: dot products where the processor has them, else 16-bit products.

use core::arch::aarch64::*;

use super::dot::{sdot, udot};
use super::requantize::requantize_eight;
use crate::blob::{Precision, Tensor, TensorLayout, pair_u16};
use crate::kernels::batched::{LONGEST, ROWS, Rescale, decode};
use crate::kernels::choice::Reason;
use crate::kernels::matrix::Matrix;
use crate::kernels::portable::{bias, group_scale, int8_code};
use crate::kernels::single::Block;
use crate::kernels::vectors::{Vectors, not_negative};
use crate::numeric::Scale;
use alloc::vec::Vec;

/// A group of 32 codes as bytes, and eight times the sums of some.
#[derive(Clone, Copy)]
struct ByteCodes {
    /// Codes 0 to 15, for the low nibbles.
    low: [u8; 16],
    /// Codes 16 to 31, for the high nibbles.
    high: [u8; 16],
    /// Eight times code j + code j + 8 of both: below 2^13.
    eights: [i16; 8],
    /// Eight times codes 4 · j to 4 · j + 3 of both.
    eights_of_four: [i32; 4],
}

impl ByteCodes {
    /// Codes within ±127, or from 0 to 255.
    #[inline(always)]
    fn new(codes: &[i16; 32]) -> Self {
        let (mut low, mut high) = ([0; 16], [0; 16]);
        let (mut eights, mut eights_of_four) = ([0; 8], [0; 4]);
        for j in 0..16 {
            (low[j], high[j]) = (codes[j] as u8, codes[16 + j] as u8);
            let both = 8 * (codes[j] + codes[16 + j]);
            eights[j % 8] += both;
            eights_of_four[j / 4] += both as i32;
        }
        Self { low, high, eights, eights_of_four }
    }
}

/// See [`crate::kernels::kernel::Kernel::run`]; takes one vector, unless a code of INT4 behind a
/// ReLU is negative.
pub(in crate::kernels) fn run(matrix: &Matrix<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let int8 = |matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]| {
        each_block(matrix, rescale, out, |block, layout, sums| {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = int8_sum(&block.codes[j * layout.row_codes..][..layout.row_codes], codes);
            }
        });
    };
    x.scales.len() == 1
        && x.one_by_one(matrix, out, |codes, scale, out| {
            by_precision(matrix, (codes, scale), out, int4::<false>, int4::<true>, int8)
        })
}

/// As [`run`], with dot products.
#[target_feature(enable = "neon,dotprod")]
pub(in crate::kernels) fn run_with_dot_products(
    matrix: &Matrix<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
) -> bool {
    x.scales.len() == 1
        && x.one_by_one(matrix, out, |codes, scale, out| {
            by_precision(
                matrix,
                (codes, scale),
                out,
                |matrix, codes, rescale, out| int4_dot::<false>(matrix, codes, rescale, out),
                |matrix, codes, rescale, out| int4_dot::<true>(matrix, codes, rescale, out),
                |matrix, codes, rescale, out| {
                    if matrix.max_code <= 127 {
                        int8_dot::<false>(matrix, codes, rescale, out);
                    } else {
                        int8_dot::<true>(matrix, codes, rescale, out);
                    }
                },
            )
        })
}

/// Chooses by precision; returns whether the vector was taken. The INT4 kernels are for groups of
/// 32 that divide the row, the first for codes within ±127, the second for codes from 0 to 255; the
/// last is for INT8.
#[inline(always)]
fn by_precision(
    matrix: &Tensor<'_>,
    (codes, scale): (&[i16], u32),
    out: &mut [i32],
    int4: impl FnOnce(&Tensor<'_>, &[i16], &Rescale, &mut [i32]),
    int4_relu: impl FnOnce(&Tensor<'_>, &[i16], &Rescale, &mut [i32]),
    int8: impl FnOnce(&Tensor<'_>, &[i16], &Rescale, &mut [i32]),
) -> bool {
    let rescale = &Rescale::new(matrix, Scale::unpack(scale));
    match matrix.precision {
        Precision::Int8 => int8(matrix, codes, rescale, out),
        Precision::Int4 if is_int4_by_32(matrix) => {
            if matrix.max_code <= 127 {
                int4(matrix, codes, rescale, out);
            } else if not_negative(codes) {
                int4_relu(matrix, codes, rescale, out);
            } else {
                return false;
            }
        }
        _ => grouped(matrix, codes, rescale, out),
    }
    true
}

/// All integers of at least one block of rows; grouped ones other than INT4 in groups of 32 up to a
/// length.
pub(in crate::kernels) fn admits(matrix: &Tensor<'_>) -> Result<(), Reason> {
    if matrix.precision == Precision::Fp16 {
        return Err(Reason::Storage);
    }
    let any = matrix.precision == Precision::Int8 || is_int4_by_32(matrix);
    let fits = matrix.rows >= ROWS && matrix.cols > 0 && (any || matrix.cols <= LONGEST);
    if fits { Ok(()) } else { Err(Reason::Shape) }
}

/// INT4 in groups of 32 that divide the row.
fn is_int4_by_32(matrix: &Tensor<'_>) -> bool {
    matrix.precision == Precision::Int4 && matrix.group == 32 && matrix.cols.is_multiple_of(32)
}

/// Requantizes and stores the sums that `each` computes for every block.
#[inline(always)]
fn each_block(
    matrix: &Tensor<'_>,
    rescale: &Rescale,
    out: &mut [i32],
    mut each: impl FnMut(&Block<'_>, &TensorLayout, &mut [i32; ROWS]),
) {
    let layout = matrix.layout();
    for start in (0..matrix.rows).step_by(ROWS) {
        let block = Block::new(matrix, &layout, start);
        let mut sums = [0; ROWS];
        each(&block, &layout, &mut sums);
        let (mut mantissas, mut biases) = ([0; ROWS], [0; ROWS]);
        for j in 0..ROWS {
            mantissas[j] = pair_u16(&block.scales[j * layout.row_scales..], 0) as i64;
            biases[j] = bias(matrix, block.first + j);
        }
        out[block.first..][..ROWS]
            .copy_from_slice(&requantize_eight(sums, mantissas, biases, rescale));
    }
}

fn to_bytes(codes: &[i16]) -> Vec<ByteCodes> {
    codes.as_chunks().0.iter().map(ByteCodes::new).collect()
}

fn int4<const RELU: bool>(matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]) {
    let x = to_bytes(codes);
    each_block(matrix, rescale, out, |block, layout, sums| {
        for (j, sum) in sums.iter_mut().enumerate() {
            let scales = &block.scales[j * layout.row_scales..];
            let row = &block.codes[j * layout.row_codes..][..layout.row_codes];
            let groups = row.as_chunks::<16>().0.iter().zip(&x).enumerate();
            // SAFETY: NEON is part of the target, and all that is loaded are whole arrays.
            unsafe {
                let mut lanes = vdupq_n_s32(0);
                for (g, (codes, x)) in groups {
                    let products = products::<RELU>(codes, x);
                    let scale = group_scale(scales, g) as i16;
                    lanes = vmlal_n_s16(lanes, vget_low_s16(products), scale);
                    lanes = vmlal_high_n_s16(lanes, products, scale);
                }
                *sum = vaddvq_s32(lanes);
            }
        }
    });
}

/// Sums of four products each of a group, at most 4 · 15 · 255 before eight times the codes are
/// subtracted.
///
/// # Safety
///
/// None beyond NEON, which is part of the target.
#[inline(always)]
unsafe fn products<const RELU: bool>(codes: &[u8; 16], x: &ByteCodes) -> int16x8_t {
    // SAFETY: all that is loaded are whole arrays.
    unsafe {
        let (low, high) = nibbles(codes);
        let (x_low, x_high) = (vld1q_u8(x.low.as_ptr()), vld1q_u8(x.high.as_ptr()));
        let sums = if RELU {
            let sums = vmull_u8(vget_low_u8(low), vget_low_u8(x_low));
            let sums = vmlal_high_u8(sums, low, x_low);
            let sums = vmlal_u8(sums, vget_low_u8(high), vget_low_u8(x_high));
            vreinterpretq_s16_u16(vmlal_high_u8(sums, high, x_high))
        } else {
            let signed = |bytes| vreinterpretq_s8_u8(bytes);
            let [low, high, x_low, x_high] =
                [signed(low), signed(high), signed(x_low), signed(x_high)];
            let sums = vmull_s8(vget_low_s8(low), vget_low_s8(x_low));
            let sums = vmlal_high_s8(sums, low, x_low);
            let sums = vmlal_s8(sums, vget_low_s8(high), vget_low_s8(x_high));
            vmlal_high_s8(sums, high, x_high)
        };
        vsubq_s16(sums, vld1q_s16(x.eights.as_ptr()))
    }
}

/// Codes 0 to 15 of a group plus 8, and codes 16 to 31 plus 8.
///
/// # Safety
///
/// None beyond NEON, which is part of the target.
#[inline(always)]
unsafe fn nibbles(codes: &[u8; 16]) -> (uint8x16_t, uint8x16_t) {
    // SAFETY: the whole array is loaded.
    unsafe {
        let flipped = veorq_u8(vld1q_u8(codes.as_ptr()), vreinterpretq_u8_u16(vdupq_n_u16(0x8000)));
        (vandq_u8(flipped, vdupq_n_u8(15)), vshrq_n_u8::<4>(flipped))
    }
}

#[target_feature(enable = "neon,dotprod")]
fn int4_dot<const RELU: bool>(
    matrix: &Tensor<'_>,
    codes: &[i16],
    rescale: &Rescale,
    out: &mut [i32],
) {
    let x = to_bytes(codes);
    each_block(matrix, rescale, out, |block, layout, sums| {
        for (j, sum) in sums.iter_mut().enumerate() {
            let scales = &block.scales[j * layout.row_scales..];
            let row = &block.codes[j * layout.row_codes..][..layout.row_codes];
            // SAFETY: all that is loaded are whole arrays, and the processor has the instructions.
            unsafe {
                let mut lanes = vdupq_n_s32(0);
                for (g, (codes, x)) in row.as_chunks::<16>().0.iter().zip(&x).enumerate() {
                    let (low, high) = nibbles(codes);
                    let (x_low, x_high) = (vld1q_u8(x.low.as_ptr()), vld1q_u8(x.high.as_ptr()));
                    let start = vnegq_s32(vld1q_s32(x.eights_of_four.as_ptr()));
                    let products = if RELU {
                        udot(udot(start, low, x_low), high, x_high)
                    } else {
                        let signed = |bytes| vreinterpretq_s8_u8(bytes);
                        let products = sdot(start, signed(low), signed(x_low));
                        sdot(products, signed(high), signed(x_high))
                    };
                    lanes = vmlaq_n_s32(lanes, products, group_scale(scales, g));
                }
                *sum = vaddvq_s32(lanes);
            }
        }
    });
}

/// Codes of more than 8 bits are split into the low 7 bits and the rest, with a factor of 128.
#[target_feature(enable = "neon,dotprod")]
fn int8_dot<const SPLIT: bool>(
    matrix: &Tensor<'_>,
    codes: &[i16],
    rescale: &Rescale,
    out: &mut [i32],
) {
    let (chunks, rest) = codes.as_chunks::<16>();
    let bytes = |x: &[i16; 16]| {
        [x.map(|x| if SPLIT { x & 127 } else { x } as i8), x.map(|x| (x >> 7) as i8)]
    };
    let x: Vec<[[i8; 16]; 2]> = chunks.iter().map(bytes).collect();
    each_block(matrix, rescale, out, |block, layout, sums| {
        for (j, sum) in sums.iter_mut().enumerate() {
            let row = &block.codes[j * layout.row_codes..][..layout.row_codes];
            let (weights, row_rest) = row.as_chunks::<16>();
            // SAFETY: all that is loaded are whole arrays, and the processor has the instructions.
            unsafe {
                let mut lanes = [vdupq_n_s32(0); 2];
                for (weights, [low, high]) in weights.iter().zip(&x) {
                    let weights = load_int8(weights);
                    lanes[0] = sdot(lanes[0], weights, vld1q_s8(low.as_ptr()));
                    if SPLIT {
                        lanes[1] = sdot(lanes[1], weights, vld1q_s8(high.as_ptr()));
                    }
                }
                *sum = vaddvq_s32(lanes[0]) + 128 * vaddvq_s32(lanes[1]);
            }
            *sum += int8_sum(row_rest, rest);
        }
    });
}

/// Sum of a row of INT8: at most 2^14 inputs times 2^7 · 2^8.
#[inline(always)]
fn int8_sum(row: &[u8], codes: &[i16]) -> i32 {
    let ((weights, row_rest), (chunks, rest)) = (row.as_chunks(), codes.as_chunks::<16>());
    // SAFETY: NEON is part of the target, and all that is loaded are whole arrays.
    let sum = unsafe {
        let mut lanes = [vdupq_n_s32(0); 2];
        for (weights, x) in weights.iter().zip(chunks) {
            let weights = load_int8(weights);
            let (low, high) = (vmovl_s8(vget_low_s8(weights)), vmovl_high_s8(weights));
            let (x_low, x_high) = (vld1q_s16(x.as_ptr()), vld1q_s16(x.as_ptr().add(8)));
            lanes[0] = vmlal_s16(lanes[0], vget_low_s16(low), vget_low_s16(x_low));
            lanes[1] = vmlal_high_s16(lanes[1], low, x_low);
            lanes[0] = vmlal_s16(lanes[0], vget_low_s16(high), vget_low_s16(x_high));
            lanes[1] = vmlal_high_s16(lanes[1], high, x_high);
        }
        vaddvq_s32(vaddq_s32(lanes[0], lanes[1]))
    };
    let rest = row_rest.iter().zip(rest).enumerate();
    sum + rest.map(|(c, (&w, &x))| int8_code(w, c) as i32 * x as i32).sum::<i32>()
}

/// Sixteen weights of a row of INT8.
///
/// # Safety
///
/// None beyond NEON, which is part of the target.
#[inline(always)]
unsafe fn load_int8(bytes: &[u8; 16]) -> int8x16_t {
    // SAFETY: the whole array is loaded.
    unsafe {
        // Bytes at even places are offset by 128.
        let offsets = vreinterpretq_u8_u16(vdupq_n_u16(0x80));
        vreinterpretq_s8_u8(veorq_u8(vld1q_u8(bytes.as_ptr()), offsets))
    }
}

/// Any planes and any group size: a decoded weight is below 2^9 in magnitude.
fn grouped(matrix: &Tensor<'_>, codes: &[i16], rescale: &Rescale, out: &mut [i32]) {
    let mut weights = [0i16; LONGEST];
    let weights = &mut weights[..codes.len()];
    each_block(matrix, rescale, out, |block, layout, sums| {
        for (j, sum) in sums.iter_mut().enumerate() {
            let row = &block.codes[j * layout.row_codes..][..layout.row_codes];
            decode(matrix, &block.scales[j * layout.row_scales..], row, weights);
            *sum = weights.iter().zip(codes).map(|(&w, &x)| w as i32 * x as i32).sum();
        }
    });
}
