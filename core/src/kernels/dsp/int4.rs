//! INT4 in groups of 32: seven instructions per word of eight inputs.
//!
//! A half word is h = 4096 n3 + 256 u2 + 16 u1 + u0 with u = n + 8. One mask leaves
//! t1 = h mod 4096, then t2 = 16 t1 mod 4096 and t3 = 16 t2 mod 4096, and
//!
//! ```text
//! h · a3 + t1 · (16 a2 − a3) + t2 · (16 a1 − a2) + t3 · (16 a0 − a1)
//!     = 4096 · (n3 · a3 + u2 · a2 + u1 · a1 + u0 · a0)
//! ```
//!
//! A group's sum is below 2^12 · 15 · 255 · 32 < 2^29. It is multiplied by the scale at the top of
//! a word, and the high words are accumulated.

use core::arch::asm;

use super::row::Rows;
use super::vector::{Coefficients, GROUP_WORDS};
use crate::blob::Tensor;
use crate::kernels::shapes::BLOCK;

// A group's words: four times four coefficients; behind the first four the negated contribution of
// the offsets of 8, behind the last four [`SCALE_MASK`].
const _: () = assert!(GROUP_WORDS == 4 * 4 + 2);

/// Place of a group's scale as a factor: bits 27 to 30.
const SCALE_MASK: u32 = 15 << SCALE_SHIFT;
const SCALE_SHIFT: u32 = 27;
/// Fraction bits of sums, relative to scales times codes times codes.
const FRACTION: u32 = 12 + SCALE_SHIFT - 32;

/// [`FRACTION`] and the bound of sums: 2^31 for 512 inputs.
pub(super) fn range(matrix: &Tensor<'_>) -> (u32, u32) {
    (FRACTION, (matrix.cols as u32 * 15 * 8 * matrix.max_code) << FRACTION)
}

/// Writes the coefficients of all groups of a vector.
#[inline(always)]
pub(super) fn prepare(codes: &[i16], memory: &mut Coefficients) {
    let groups = (codes.len() / BLOCK).min(memory.len() / GROUP_WORDS);
    if groups > 0 {
        // SAFETY: there are codes and coefficients of as many groups, of which there is one.
        unsafe { prepare_groups(codes.as_ptr(), memory.as_mut_ptr().cast(), groups) };
    }
}

/// Multiplies all rows by a prepared vector; with `keep` the outputs are the sums.
///
/// # Safety
///
/// The coefficients of `rows` must be those of a vector of the matrix's columns; the matrix must
/// have the codes, aligned to words, scales and biases of as many rows as `rows` has outputs.
#[inline(always)]
pub(super) unsafe fn run(matrix: &Tensor<'_>, mut rows: Rows, keep: bool) {
    rows.own = 0x0fff_0fff;
    let (weights, groups) = (matrix.codes.as_ptr(), matrix.cols / BLOCK);
    // SAFETY: `groups` is the number of a row's groups; the rest is the caller's promise.
    unsafe {
        match groups {
            _ if keep => any_sums(&rows, weights, groups),
            4 => four(&rows, weights),
            5 => five(&rows, weights),
            6 => six(&rows, weights),
            8 => eight(&rows, weights),
            10 => ten(&rows, weights),
            _ => any(&rows, weights, groups),
        }
    }
}

/// Coefficients of eight codes, as two halves each: low nibbles of four bytes, then high ones, 16
/// codes further; two codes on in the other half.
macro_rules! quarter {
    ($codes:literal, $further:literal, $words:literal, $next:literal) => {
        concat!(
            "ldr {p}, [{codes}, #",
            $codes,
            "]\nldr {q}, [{codes}, #",
            $codes,
            "+4]\nldr {r}, [{codes}, #",
            $further,
            "]\nldr {s}, [{codes}, #",
            $further,
            "+4]\n",
            // Codes 0, 16, 1 and 17 of either half, in t, q, p and r.
            "pkhbt {t}, {p}, {q}, lsl #16\n",
            "pkhtb {p}, {q}, {p}, asr #16\n",
            "pkhbt {q}, {r}, {s}, lsl #16\n",
            "pkhtb {r}, {s}, {r}, asr #16\n",
            "sadd16 {sum}, {sum}, {t}\n",
            "sadd16 {sum}, {sum}, {q}\n",
            "sadd16 {sum}, {sum}, {p}\n",
            // 16 times a half, less the next: the mask drops what leaves the lower half.
            "and {s}, {mask}, {p}, lsl #4\n",
            "ssub16 {s}, {s}, {r}\n",
            "strd {r}, {s}, [{words}, #",
            $words,
            "]\n",
            "and {s}, {mask}, {q}, lsl #4\n",
            "ssub16 {s}, {s}, {p}\n",
            "and {t}, {mask}, {t}, lsl #4\n",
            "ssub16 {t}, {t}, {q}\n",
            "strd {s}, {t}, [{words}, #",
            $next,
            "]\n",
        )
    };
}

/// # Safety
///
/// There are codes, below 2^9 in magnitude, and room for coefficients of as many groups, at least
/// one.
#[inline(never)]
unsafe fn prepare_groups(codes: *const i16, words: *mut u32, groups: usize) {
    // SAFETY: each round reads the codes of a group, by words, for which `ldr` needs no alignment,
    // and writes its coefficients; the caller vouches for the number of both.
    unsafe {
        asm!(
            "2:",
            "mov {sum}, #0",
            quarter!("0", "32", "0", "8"),
            quarter!("8", "40", "20", "28"),
            quarter!("16", "48", "36", "44"),
            quarter!("24", "56", "52", "60"),
            // What the offsets of 8 contribute, negated.
            "sxth {s}, {sum}",
            "add {sum}, {s}, {sum}, asr #16",
            "rsb {sum}, {sum}, #0",
            "lsl {sum}, {sum}, #15",
            "str {sum}, [{words}, #16]",
            "mov {sum}, #{scale_mask}",
            "str {sum}, [{words}, #68]",
            "add {words}, #72",
            "add {codes}, #64",
            "subs {groups}, #1",
            "bne 2b",
            codes = inout(reg) codes => _,
            words = inout(reg) words => _,
            groups = inout(reg) groups => _,
            mask = in(reg) 0xfff0_ffffu32,
            scale_mask = const SCALE_MASK,
            sum = out(reg) _, p = out(reg) _, q = out(reg) _, r = out(reg) _, s = out(reg) _,
            t = out(reg) _,
            options(nostack),
        );
    }
}

macro_rules! word {
    ($weights:literal) => {
        concat!(
            "smlad r9, ",
            $weights,
            ", r0, r9\n",
            "and ",
            $weights,
            ", r8, ",
            $weights,
            "\n",
            "smlad r9, ",
            $weights,
            ", r1, r9\n",
            "and ",
            $weights,
            ", r8, ",
            $weights,
            ", lsl #4\n",
            "smlad r9, ",
            $weights,
            ", r2, r9\n",
            "and ",
            $weights,
            ", r8, ",
            $weights,
            ", lsl #4\n",
            "smlad r9, ",
            $weights,
            ", r3, r9\n",
        )
    };
}

/// Leaves the sum of a group in r9 and the mask of its scale in r4.
macro_rules! sum_of_group {
    () => {
        concat!(
            "ldm r11!, {{r0, r1, r2, r3, r9}}\n",
            "ldm r12!, {{r4, r5, r6, r7}}\n",
            word!("r4"),
            "ldm r11!, {{r0, r1, r2, r3}}\n",
            word!("r5"),
            "ldm r11!, {{r0, r1, r2, r3}}\n",
            word!("r6"),
            "ldm r11!, {{r0, r1, r2, r3, r4}}\n",
            word!("r7"),
        )
    };
}

/// A group whose scale in lr is rotated right by `$rotate` bits to its place as a factor.
macro_rules! group {
    ($rotate:literal, $add:literal) => {
        concat!(sum_of_group!(), "and r4, r4, lr, ror #", $rotate, "\n", $add, "\n")
    };
}

/// Four groups with their scales in the high half of lr.
macro_rules! four_groups {
    ($first:literal) => {
        concat!(
            group!("21", $first),
            group!("25", "smmla r10, r9, r4, r10"),
            group!("29", "smmla r10, r9, r4, r10"),
            group!("1", "smmla r10, r9, r4, r10"),
        )
    };
}

/// Five groups with their scales from bit 8 of lr on.
macro_rules! five_groups {
    () => {
        concat!(
            group!("13", "smmul r10, r9, r4"),
            group!("17", "smmla r10, r9, r4, r10"),
            group!("21", "smmla r10, r9, r4, r10"),
            group!("25", "smmla r10, r9, r4, r10"),
            group!("29", "smmla r10, r9, r4, r10"),
        )
    };
}

/// Six groups, likewise.
macro_rules! six_groups {
    () => {
        concat!(five_groups!(), group!("1", "smmla r10, r9, r4, r10"))
    };
}

/// Four more groups. A word `$at` bytes behind the row's first has their scales in its high half.
macro_rules! four_more {
    ($at:literal) => {
        concat!(
            "ldr lr, [sp, #8]\nldr lr, [lr, #",
            $at,
            "]\n",
            four_groups!("smmla r10, r9, r4, r10")
        )
    };
}

/// Defines a function that runs `$row`, one row's instructions, for all rows. A row has `$scales`
/// bytes of scales, of which `$row` finds the word at byte `$first` in lr.
macro_rules! run {
    ($name:ident, $first:literal, $scales:literal, $row:expr) => {
        /// # Safety
        ///
        /// `weights` must be the aligned codes of as many rows as there are outputs, with as many
        /// groups as the name says; scales and biases as many; the coefficients those of such a
        /// row.
        #[inline(never)]
        unsafe fn $name(rows: &Rows, weights: *const u8) {
            // SAFETY: each group reads its weights and coefficients, and each row its scales and
            // bias; scales are read by words within the row's, for which `ldr` needs no
            // alignment; each row writes its output. The caller vouches for all of these. r6 and
            // r7, which cannot be operands, are saved and restored. r0 to r3: coefficients, r4 to
            // r7: weights, r8: mask, r9: sum of a group, r10: sum of the row, r11: next
            // coefficients, r12: next weights, lr: scales.
            unsafe {
                asm!(
                    begin!(),
                    "2:",
                    concat!("ldr lr, [r2, #", $first, "]"),
                    $row,
                    requantize_row!(concat!("ldrh lr, [r2], #", $scales)),
                    "bne 2b",
                    end!(),
                    inout("r0") core::ptr::from_ref(rows) => _,
                    inout("r12") weights => _,
                    out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _,
                    out("r9") _, out("r10") _, out("r11") _, out("lr") _,
                );
            }
        }
    };
}

run!(four, "0", "4", four_groups!("smmul r10, r9, r4"));
run!(five, "1", "5", five_groups!());
run!(six, "1", "5", six_groups!());
run!(eight, "0", "6", concat!(four_groups!("smmul r10, r9, r4"), four_more!("2")));
run!(ten, "1", "7", concat!(six_groups!(), four_more!("3")));

/// Defines a function for rows of any number of groups.
macro_rules! run_any {
    ($name:ident, $end_of_row:ident) => {
        /// # Safety
        ///
        /// As for the others, with `groups` groups in a row, at least one.
        #[inline(never)]
        unsafe fn $name(rows: &Rows, weights: *const u8, groups: usize) {
            // SAFETY: as above, with scales read by bytes. On the stack above what `load!` pushes:
            // the index of the group, at 44, and the number of groups, at 56.
            unsafe {
                asm!(
                    "push {{r4, r6, r7, lr}}",
                    load!(),
                    "2:",
                    "mov r10, #0",
                    "str r10, [sp, #44]",
                    "3:",
                    sum_of_group!(),
                    "ldr r0, [sp, #8]",
                    "ldr r1, [sp, #44]",
                    "add r0, r0, r1, lsr #1",
                    "ldrb r0, [r0, #2]",
                    "tst r1, #1",
                    "ite eq",
                    "lsleq r0, r0, #27",
                    "lslne r0, r0, #23",
                    "and r4, r4, r0",
                    "smmla r10, r9, r4, r10",
                    "add r1, r1, #1",
                    "str r1, [sp, #44]",
                    "ldr r0, [sp, #56]",
                    "cmp r1, r0",
                    "bne 3b",
                    $end_of_row!(
                        "ldrh lr, [r2], #2
                        ldr r7, [sp, #56]
                        add r7, r7, #1
                        add r2, r2, r7, lsr #1"
                    ),
                    "bne 2b",
                    "add sp, sp, #44",
                    "pop {{r4, r6, r7, lr}}",
                    inout("r0") core::ptr::from_ref(rows) => _,
                    inout("r12") weights => _,
                    inout("lr") groups => _,
                    out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _,
                    out("r9") _, out("r10") _, out("r11") _,
                );
            }
        }
    };
}

run_any!(any, requantize_row);
run_any!(any_sums, store_sum);
