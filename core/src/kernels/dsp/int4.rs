//! INT4 in groups of 32: seven instructions for the eight inputs of a word.
//!
//! Half of a word is h = 4096 n3 + 256 u2 + 16 u1 + u0 with u = n + 8. Beside it one mask leaves
//! t1 = h mod 4096, then t2 = 16 t1 mod 4096 and t3 = 16 t2 mod 4096, and
//!
//! ```text
//! h · a3 + t1 · (16 a2 − a3) + t2 · (16 a1 − a2) + t3 · (16 a0 − a1)
//!     = 4096 · (n3 · a3 + u2 · a2 + u1 · a1 + u0 · a0)
//! ```
//!
//! A group's sum is below 2^12 · 15 · 255 · 32 < 2^29. It is multiplied by its scale at the top of a word,
//! and the upper 32 bits of that added up.

use core::arch::asm;

use super::row::Rows;
use super::{BLOCK, Coefficients, pair};
use crate::blob::Tensor;

/// Words of a group's coefficients: four times four, behind the first four what the offsets of 8 add to a
/// sum, taken off, and behind the last four [`SCALE_MASK`].
pub(super) const WORDS: usize = 18;
/// Where a group's scale is multiplied: bits 27 to 30.
const SCALE_MASK: u32 = 15 << SCALE_SHIFT;
const SCALE_SHIFT: u32 = 27;
/// Bits by which sums are above scales times codes times codes.
const FRACTION: u32 = 12 + SCALE_SHIFT - 32;

/// These bits, and what sums are below; of 512 inputs, 2^31.
pub(super) fn range(matrix: &Tensor<'_>) -> (u32, u32) {
    (FRACTION, (matrix.cols as u32 * 15 * 8 * matrix.max_code) << FRACTION)
}

/// Writes a vector's coefficients.
#[inline(always)]
pub(super) fn prepare(codes: &[i16], memory: &mut Coefficients) {
    for (words, codes) in memory.as_chunks_mut::<WORDS>().0.iter_mut().zip(codes.as_chunks().0) {
        prepare_group(codes, |at, word| {
            words[at].write(word);
        });
    }
}

/// Multiplies all rows with a prepared vector; `keep` where outputs are to be the sums.
///
/// # Safety
///
/// The coefficients of `rows` must be those of a vector of the matrix's columns; the matrix must have the
/// codes, aligned to words, scales and biases of as many rows as `rows` has outputs.
#[inline(always)]
pub(super) unsafe fn run(matrix: &Tensor<'_>, mut rows: Rows, keep: bool) {
    rows.own = 0x0fff_0fff;
    let (weights, groups) = (matrix.codes.as_ptr(), matrix.cols / BLOCK);
    // SAFETY: groups were counted just above; the rest is the caller's promise.
    unsafe {
        match groups {
            _ if keep => any_sums(&rows, weights, groups),
            4 => four(&rows, weights),
            8 => eight(&rows, weights),
            _ => any(&rows, weights, groups),
        }
    }
}

/// Calls `put` with the words of a group and where they belong. Without loops, which a compiler for small code
/// would keep: each vector comes by here once a matrix.
#[inline(always)]
fn prepare_group(codes: &[i16; BLOCK], mut put: impl FnMut(usize, u32)) {
    let a = |i: usize| codes[i] as i32;
    let mut offsets = 0;
    macro_rules! quarter {
        ($first:literal, $at:literal) => {
            // The low nibbles of four bytes, then the high ones, 16 inputs further.
            let low = [a($first), a($first + 16), a($first + 1), a($first + 17)];
            let high = [a($first + 2), a($first + 18), a($first + 3), a($first + 19)];
            let below = |n: usize| pair(16 * low[n] - low[n + 1], 16 * high[n] - high[n + 1]);
            put($at, pair(low[3], high[3]));
            put($at + 1, below(2));
            put($at + 2, below(1));
            put($at + 3, below(0));
            offsets += low[0] + low[1] + low[2] + high[0] + high[1] + high[2];
        };
    }
    quarter!(0, 0);
    quarter!(4, 5);
    quarter!(8, 9);
    quarter!(12, 13);
    put(4, (-offsets << 15) as u32);
    put(17, SCALE_MASK);
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

/// The sum of a group in r9, and the mask of its scale in r4.
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

/// A group whose scale is `$rotate` bits of lr, to the left, from where it is multiplied.
macro_rules! group {
    ($rotate:literal, $add:literal) => {
        concat!(sum_of_group!(), "and r4, r4, lr, ror #", $rotate, "\n", $add, "\n")
    };
}

/// Four groups with their scales in the upper half of lr.
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

/// Defines a function that runs all rows by the instructions of one.
macro_rules! run {
    ($name:ident, $scales:literal, $row:expr) => {
        /// # Safety
        ///
        /// `weights` must be the aligned codes of as many rows as there are outputs, with as many groups as
        /// the name says; scales and biases as many; the coefficients those of such a row.
        #[inline(never)]
        unsafe fn $name(rows: &Rows, weights: *const u8) {
            // SAFETY: every group reads its weights and coefficients, and every row its scales and bias, the
            // scales by words that end where they end, for which `ldr` asks for no alignment; a row's end
            // writes its output. The caller vouches for these. Beside the registers named below r6 and r7,
            // which cannot be, are used and put back: r0 to r3 coefficients, r4 to r7 weights, r8 the mask,
            // r9 a group's sum, r10 the row's, r11 and r12 where coefficients and weights are read, lr scales.
            unsafe {
                asm!(
                    begin!(),
                    "2:",
                    "ldr lr, [r2]",
                    $row,
                    finish!(concat!("ldrh lr, [r2], #", $scales)),
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

run!(four, "4", four_groups!("smmul r10, r9, r4"));
run!(
    eight,
    "6",
    concat!(
        four_groups!("smmul r10, r9, r4"),
        "ldr lr, [sp, #8]\n",
        "ldr lr, [lr, #2]\n",
        four_groups!("smmla r10, r9, r4, r10"),
    )
);

/// Defines a function that runs rows of any number of groups.
macro_rules! run_any {
    ($name:ident, $finish:ident) => {
        /// # Safety
        ///
        /// As for the others, with `groups` groups in a row, at least one.
        #[inline(never)]
        unsafe fn $name(rows: &Rows, weights: *const u8, groups: usize) {
            // SAFETY: as above; scales are read a byte at a time. Above what `begin!` puts on the stack are the number
            // of this row's group, at 44, and that of groups, at 56.
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
                    $finish!("ldrh lr, [r2], #2\nldr r7, [sp, #56]\nadd r7, r7, #1\nadd r2, r2, r7, lsr #1"),
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

run_any!(any, finish);
run_any!(any_sums, keep);
