//! Kernels for Cortex-M cores that always have the DSP extension (M4, M7): two products an instruction.
//!
//! A vector's codes are put in pairs of 16 bits once, in the order in which words of weights unpack. Byte
//! b of a word ends in half b % 2 of a register, so inputs i to i + 3 become the pairs (i, i + 2) and
//! (i + 1, i + 3). Of INT8 a word unpacks by `sxtb16`; of INT4 a mask leaves in each half a nibble at
//! the top of its 16 bits, which keeps its sign, and sums are shifted back once per group. Two rows share
//! what is loaded of the vector.
//!
//! Sums are exact in any order: below 2^31 as [`super::portable`] shows, and for nibbles at the top of
//! 16 bits 2^15 · 2^8 · 32 inputs of a group are 2^28.
#![allow(unsafe_code)]

use core::arch::asm;

use super::Vectors;
use super::portable::batch;
use crate::blob::{Precision, Tensor, pair_u16};
use crate::numeric::{RESIDUAL_FRAC, Scale, shift_round};

/// Longest row whose pairs are kept on the stack.
const LONGEST: usize = 512;
/// Inputs of a block: a group of INT4.
const BLOCK: usize = 32;

/// A block of a vector, in pairs.
type Pairs = [u32; BLOCK / 2];

/// Multiplies where there is a kernel for the matrix; says whether there was. Not a part of its callers: the
/// code would be there as often as layers multiply.
#[inline(never)]
pub(super) fn matmul(matrix: &Tensor<'_>, x: Vectors<'_>, out: &mut [i32]) -> bool {
    let fits = matrix.cols <= LONGEST && matrix.cols.is_multiple_of(BLOCK);
    if !fits || matrix.codes.is_empty() || matrix.biases.is_empty() {
        return false;
    }
    match matrix.precision {
        Precision::Int8 => each_vector(matrix, x, out, INT8_ORDER, int8),
        Precision::Int4 if matrix.group == BLOCK => {
            each_vector(matrix, x, out, INT4_ORDER, int4);
        }
        _ => return false,
    }
    true
}

/// First inputs of the pairs of a block, the second being two further, as words of INT8 unpack.
const INT8_ORDER: [usize; BLOCK / 2] = [0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29];
/// The same for INT4: of a word the low nibbles of its bytes, then the high ones, 16 inputs further.
const INT4_ORDER: [usize; BLOCK / 2] = [0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29];

#[inline(always)]
fn each_vector(
    matrix: &Tensor<'_>,
    x: Vectors<'_>,
    out: &mut [i32],
    order: [usize; BLOCK / 2],
    dot: impl Fn(Two<'_>, Two<'_>, &[Pairs]) -> (i32, i32),
) {
    let layout = matrix.layout();
    let mut pairs = [[0; BLOCK / 2]; LONGEST / BLOCK];
    let pairs = &mut pairs[..matrix.cols / BLOCK];
    for (b, codes, scale) in batch(x, matrix.cols) {
        for (pairs, codes) in pairs.iter_mut().zip(codes.as_chunks::<BLOCK>().0) {
            *pairs = order.map(|i| codes[i] as u16 as u32 | (codes[i + 2] as u16 as u32) << 16);
        }
        let rescale = Rescale::new(matrix, scale);
        let out = &mut out[b * matrix.rows..][..matrix.rows];
        let rows = matrix.codes.chunks_exact(2 * layout.row_codes);
        let rows = rows.zip(matrix.scales.chunks_exact(2 * layout.row_scales));
        let rows = rows.zip(matrix.biases.as_chunks::<4>().0).zip(out.as_chunks_mut::<2>().0);
        for (((codes, scales), biases), out) in rows {
            let scales = scales.split_at(layout.row_scales);
            let (a, b) = dot(codes.split_at(layout.row_codes), scales, pairs);
            out[0] = rescale.finish(a, scales.0, [biases[0], biases[1]]);
            out[1] = rescale.finish(b, scales.1, [biases[2], biases[3]]);
        }
        if let ([.., last], true) = (out, matrix.rows % 2 == 1) {
            // The last row of an odd number is its own partner.
            let row = matrix.rows - 1;
            let codes = &matrix.codes[row * layout.row_codes..];
            let scales = &matrix.scales[row * layout.row_scales..];
            let bias = [matrix.biases[2 * row], matrix.biases[2 * row + 1]];
            let (sum, _) = dot((codes, codes), (scales, scales), pairs);
            *last = rescale.finish(sum, scales, bias);
        }
    }
}

/// Bytes of two rows.
type Two<'a> = (&'a [u8], &'a [u8]);

/// What turns the sums of a vector into outputs.
#[derive(Clone, Copy)]
struct Rescale {
    /// Mantissa of the vector's scale.
    mantissa: u32,
    shift: i32,
    /// Half of what is shifted out.
    half: i64,
    /// Bits that a bias is shifted left by.
    bias_shift: u32,
}

impl Rescale {
    #[inline(always)]
    fn new(matrix: &Tensor<'_>, scale: Scale) -> Self {
        let shift = matrix.exponent - scale.exponent as i32 - RESIDUAL_FRAC as i32;
        let half = if (1..=62).contains(&shift) { 1 << (shift - 1) } else { 0 };
        let bias_shift = RESIDUAL_FRAC - matrix.bias_exponent;
        Self { mantissa: scale.mantissa as u32, shift, half, bias_shift }
    }

    /// As [`super::portable`] does it: accumulator times both mantissas, shifted, plus the bias. The row's
    /// scales begin with its mantissa.
    #[inline(always)]
    fn finish(self, sum: i32, scales: &[u8], bias: [u8; 2]) -> i32 {
        let multiplier = pair_u16(scales, 0) as u32 * self.mantissa;
        // Below 2^31 · 2^31: adding half of what is shifted out cannot overflow.
        let product = sum as i64 * multiplier as i32 as i64;
        let rounded = product + self.half;
        let (high, low) = ((rounded >> 32) as i32, rounded as u32);
        let value = match self.shift {
            32..=62 => high >> (self.shift - 32),
            // What is above 32 bits after the shift is nothing but the sign, in range.
            1..=31 if (high >> (self.shift - 1)).wrapping_add(1) as u32 <= 1 => {
                (low >> self.shift | (high as u32) << (32 - self.shift)) as i32
            }
            _ => shift_round(product, self.shift),
        };
        value.saturating_add((i16::from_le_bytes(bias) as i32) << self.bias_shift)
    }
}

#[inline(always)]
fn int8((a, b): Two<'_>, _: Two<'_>, pairs: &[Pairs]) -> (i32, i32) {
    let mut sums = (0, 0);
    for ((a, b), pairs) in a.as_chunks().0.iter().zip(b.as_chunks().0).zip(pairs) {
        sums = dot_int8(a, b, pairs, sums);
    }
    sums
}

/// Groups whose scales fit a register.
const GROUPS: usize = 8;

#[inline(always)]
fn int4((a, b): Two<'_>, scales: Two<'_>, pairs: &[Pairs]) -> (i32, i32) {
    let (scales_a, scales_b) = (&scales.0[2..], &scales.1[2..]);
    let (scale_a, scale_b) = (nibbles(scales_a), nibbles(scales_b));
    let mut sums = Sums { total_a: 0, total_b: 0, scales_a: scale_a, scales_b: scale_b };
    dot_int4(a, b, &pairs[..pairs.len().min(GROUPS)], &mut sums);
    for first in (GROUPS..pairs.len()).step_by(GROUPS) {
        sums.scales_a = nibbles(&scales_a[first / 2..]);
        sums.scales_b = nibbles(&scales_b[first / 2..]);
        let (a, b) = (&a[first * BLOCK / 2..], &b[first * BLOCK / 2..]);
        dot_int4(a, b, &pairs[first..pairs.len().min(first + GROUPS)], &mut sums);
    }
    (sums.total_a, sums.total_b)
}

/// The first eight scales, those that there are.
#[inline(always)]
fn nibbles(scales: &[u8]) -> u32 {
    match *scales {
        [a, b] => a as u32 | (b as u32) << 8,
        [a, b, c, d, ..] => u32::from_le_bytes([a, b, c, d]),
        _ => scales.iter().rev().fold(0, |nibbles, &scale| nibbles << 8 | scale as u32),
    }
}

/// Sums of two rows, and the scales of the groups that are to come.
#[repr(C)]
struct Sums {
    total_a: i32,
    total_b: i32,
    scales_a: u32,
    scales_b: u32,
}

/// Adds a block of two rows, times the same block of a vector, to their sums.
#[inline(always)]
fn dot_int8(a: &[u8; BLOCK], b: &[u8; BLOCK], pairs: &Pairs, sums: (i32, i32)) -> (i32, i32) {
    let (mut sum_a, mut sum_b) = sums;
    macro_rules! four_inputs {
        ($at:literal) => {
            concat!(
                "ldr {w}, [{a}, #",
                $at,
                "]\n",
                "ldrd {even}, {odd}, [{pairs}, #4 * ",
                $at,
                " / 2]\n",
                "sxtb16 {t}, {w}\n",
                "sxtb16 {w}, {w}, ror #8\n",
                "smlad {sum_a}, {t}, {even}, {sum_a}\n",
                "ldr {t}, [{b}, #",
                $at,
                "]\n",
                "smlad {sum_a}, {w}, {odd}, {sum_a}\n",
                "sxtb16 {w}, {t}\n",
                "sxtb16 {t}, {t}, ror #8\n",
                "smlad {sum_b}, {w}, {even}, {sum_b}\n",
                "smlad {sum_b}, {t}, {odd}, {sum_b}\n",
            )
        };
    }
    // SAFETY: the loads are within the 32 bytes of each row's block and the 64 of the pairs, for which
    // this architecture asks no more than the alignment to words that `ldrd` gets from `Pairs`; what is
    // written are registers that are named here.
    unsafe {
        asm!(
            four_inputs!("0"), four_inputs!("4"), four_inputs!("8"), four_inputs!("12"),
            four_inputs!("16"), four_inputs!("20"), four_inputs!("24"), four_inputs!("28"),
            a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), pairs = in(reg) pairs.as_ptr(),
            sum_a = inout(reg) sum_a, sum_b = inout(reg) sum_b,
            w = out(reg) _, t = out(reg) _, even = out(reg) _, odd = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    (sum_a, sum_b)
}

/// Adds groups of two rows, times the same inputs of a vector and their scales, to the sums.
///
/// # Panics
///
/// Where a row has fewer groups than there are pairs, which are at least one.
#[inline(always)]
fn dot_int4(a: &[u8], b: &[u8], pairs: &[Pairs], sums: &mut Sums) {
    let bytes = pairs.len() * BLOCK / 2;
    assert!(bytes > 0 && a.len() >= bytes && b.len() >= bytes);
    macro_rules! eight_inputs {
        ($first_a:literal, $first_b:literal) => {
            concat!(
                "ldm r8!, {{r0, r1, r2, r3}}\n",
                "ldr r11, [r4], #4\n",
                "and r10, r9, r11, lsl #12\n",
                $first_a,
                "and r10, r9, r11, lsl #8\n",
                "smlad r12, r10, r1, r12\n",
                "and r10, r9, r11, lsl #4\n",
                "smlad r12, r10, r2, r12\n",
                "and r10, r9, r11\n",
                "smlad r12, r10, r3, r12\n",
                "ldr r11, [r5], #4\n",
                "and r10, r9, r11, lsl #12\n",
                $first_b,
                "and r10, r9, r11, lsl #8\n",
                "smlad lr, r10, r1, lr\n",
                "and r10, r9, r11, lsl #4\n",
                "smlad lr, r10, r2, lr\n",
                "and r10, r9, r11\n",
                "smlad lr, r10, r3, lr\n",
            )
        };
        () => {
            eight_inputs!("smlad r12, r10, r0, r12\n", "smlad lr, r10, r0, lr\n")
        };
    }
    // SAFETY: every round reads the 16 bytes of a group of each row and the 64 of its pairs, of which
    // there are as many as rounds, and reads and writes the 16 bytes of the sums; pairs and sums are
    // aligned to words as `ldm` asks, and `ldr` asks for no alignment. Beside the registers named below r6
    // and r7, which cannot be, are used and put back: r4, r5 the rows, r6 the sums, r7 the rounds left,
    // r8 the pairs, r9 the mask, r10 and r11 scratch, r12 and lr the groups' sums.
    unsafe {
        asm!(
            "push {{r6, r7}}",
            "mov r6, r10",
            "mov r7, r11",
            "2:",
            eight_inputs!("smuad r12, r10, r0\n", "smuad lr, r10, r0\n"),
            eight_inputs!(), eight_inputs!(), eight_inputs!(),
            "ldm r6, {{r0, r1, r2, r3}}",
            "asr r12, r12, #12",
            "and r11, r2, #15",
            "asr lr, lr, #12",
            "and r10, r3, #15",
            "mla r0, r11, r12, r0",
            "mla r1, r10, lr, r1",
            "lsr r2, r2, #4",
            "lsr r3, r3, #4",
            "stm r6, {{r0, r1, r2, r3}}",
            "subs r7, r7, #1",
            "bne 2b",
            "pop {{r6, r7}}",
            inout("r4") a.as_ptr() => _,
            inout("r5") b.as_ptr() => _,
            inout("r8") pairs.as_ptr() => _,
            in("r9") 0xf000_f000u32,
            inout("r10") core::ptr::from_mut(sums) => _,
            inout("r11") pairs.len() => _,
            out("r0") _, out("r1") _, out("r2") _, out("r3") _, out("r12") _, out("lr") _,
        );
    }
}
