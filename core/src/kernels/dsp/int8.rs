//! INT8: per word three instructions for four inputs, or four where codes reach 255.

use core::arch::asm;

use super::row::Rows;
use super::{BLOCK, Coefficients, pair};
use crate::blob::Tensor;

/// Inputs of a long round.
const LONG: usize = 128;

/// Bits by which sums are above codes times codes.
pub(super) fn fraction(matrix: &Tensor<'_>) -> i32 {
    if is_small(matrix) { 8 } else { 7 }
}

/// Whether 256 · a − b fits 16 bits for all codes a and b.
fn is_small(matrix: &Tensor<'_>) -> bool {
    matrix.max_code <= 127
}

/// Multiplies all rows with a vector. Sums of 512 inputs are at most 512 · 128 · 127 · 2^8 or
/// 512 · 128 · 255 · 2^7, below 2^31.
#[inline(always)]
pub(super) fn rows(matrix: &Tensor<'_>, codes: &[i16], memory: &mut Coefficients, mut rows: Rows) {
    let small = is_small(matrix);
    // The first word is what the offsets of 128 add to a sum, taken off.
    let mut offsets = 0i32;
    let words = memory[1..].as_chunks_mut::<2>().0;
    for (words, codes) in words.iter_mut().zip(codes.as_chunks::<4>().0) {
        let [a0, a1, a2, a3] = codes.map(|code| code as i32);
        offsets += a0 + a2;
        let [whole, lower] = match small {
            true => [pair(a1, a3), pair(256 * a0 - a1, 256 * a2 - a3)],
            false => [pair(128 * a1, 128 * a3), pair(128 * a0, 128 * a2)],
        };
        words[0].write(whole);
        words[1].write(lower);
    }
    memory[0].write((-offsets << (7 + fraction(matrix))) as u32);
    let long = matrix.cols.is_multiple_of(LONG);
    let rounds = matrix.cols / if long { LONG } else { BLOCK };
    rows.own = rounds as u32;
    rows.coefficients = memory.as_ptr().cast();
    let weights = matrix.codes.as_ptr();
    // SAFETY: the coefficients are those of a row as long as the matrix's, whose rounds were counted just
    // above; weights are aligned to words, as the caller has checked.
    unsafe {
        match (small, long) {
            (true, true) => run_small_long(&rows, weights),
            (true, false) => run_small(&rows, weights),
            (false, true) => run_large_long(&rows, weights),
            (false, false) => run_large(&rows, weights),
        }
    }
}

/// A word of weights with both coefficients of its halves.
macro_rules! small_word {
    ($weights:literal, $whole:literal, $lower:literal) => {
        concat!(
            "smlad r10, ", $weights, ", ", $whole, ", r10\n",
            "uxtb16 ", $weights, ", ", $weights, "\n",
            "smlad r10, ", $weights, ", ", $lower, ", r10\n",
        )
    };
}

/// The same with coefficients of the bytes.
macro_rules! large_word {
    ($weights:literal, $upper:literal, $lower:literal) => {
        concat!(
            "sxtb16 lr, ", $weights, ", ror #8\n",
            "uxtb16 ", $weights, ", ", $weights, "\n",
            "smlad r10, lr, ", $upper, ", r10\n",
            "smlad r10, ", $weights, ", ", $lower, ", r10\n",
        )
    };
}

macro_rules! sixteen_inputs {
    ($word:ident) => {
        concat!(
            "ldm r12!, {{r4, r5, r6, r7}}\n",
            "ldm r11!, {{r0, r1, r2, r3}}\n",
            $word!("r4", "r0", "r1"),
            $word!("r5", "r2", "r3"),
            "ldm r11!, {{r0, r1, r2, r3}}\n",
            $word!("r6", "r0", "r1"),
            $word!("r7", "r2", "r3"),
        )
    };
}

macro_rules! block {
    ($word:ident) => {
        concat!(sixteen_inputs!($word), sixteen_inputs!($word))
    };
}

macro_rules! long_round {
    ($word:ident) => {
        concat!(block!($word), block!($word), block!($word), block!($word))
    };
}

/// Defines a function that runs all rows in rounds of some length.
macro_rules! run {
    ($name:ident, $round:ident, $word:ident) => {
        /// # Safety
        ///
        /// `weights` must be the aligned codes of as many rows as there are outputs, each of `rows.own` rounds;
        /// scales and biases as many; the coefficients those of such a row.
        #[inline(never)]
        unsafe fn $name(rows: &Rows, weights: *const u8) {
            // SAFETY: every round reads its weights and coefficients, of which there are as many as rounds in a
            // row, and every row's end the row's scale and bias and writes its output. The caller vouches for
            // these. Beside the registers named below r6 and r7, which cannot be, are used and put back:
            // r0 to r3 coefficients, r4 to r7 weights, r8 rounds left, r10 the sum, r11 and r12 where
            // coefficients and weights are read.
            unsafe {
                asm!(
                    begin!(),
                    "2:",
                    "ldr r10, [r11], #4",
                    "3:",
                    $round!($word),
                    "subs r8, r8, #1",
                    "bne 3b",
                    finish!("ldrh lr, [r2], #2"),
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

run!(run_small_long, long_round, small_word);
run!(run_small, block, small_word);
run!(run_large_long, long_round, large_word);
run!(run_large, block, large_word);
