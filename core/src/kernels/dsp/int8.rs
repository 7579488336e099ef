//! INT8: three instructions per word of four inputs, or four where codes reach 255.

use core::arch::asm;

use super::row::Rows;
use super::vector::{Coefficients, pair};
use crate::blob::Tensor;
use crate::kernels::shapes::BLOCK;

/// Inputs of a long round.
const LONG: usize = 128;

/// Fraction bits of sums, relative to codes times codes, and their bound: 2^31 for 512 inputs.
pub(super) fn range(matrix: &Tensor<'_>) -> (u32, u32) {
    let fraction = if is_small(matrix) { 8 } else { 7 };
    (fraction, (matrix.cols as u32 * 128 * matrix.max_code) << fraction)
}

/// Whether 256 · a − b fits 16 bits for all codes a and b.
pub(super) fn is_small(matrix: &Tensor<'_>) -> bool {
    matrix.max_code <= 127
}

/// Writes a vector's coefficients.
#[inline(always)]
pub(super) fn prepare(matrix: &Tensor<'_>, codes: &[i16], memory: &mut Coefficients) {
    let small = is_small(matrix);
    // The first word is the negated contribution of the offsets of 128.
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
    memory[0].write((-offsets << (7 + range(matrix).0)) as u32);
}

/// Multiplies all rows by a prepared vector; with `keep`, for which codes must be small
/// ([`is_small`]), the outputs are the sums.
///
/// # Safety
///
/// The coefficients of `rows` must be those of a vector of the matrix's columns; the matrix must
/// have the codes, aligned to words, scales and biases of as many rows as `rows` has outputs.
#[inline(always)]
pub(super) unsafe fn run(matrix: &Tensor<'_>, mut rows: Rows, keep: bool) {
    let small = is_small(matrix);
    // Long rounds only for small codes: vectors behind a ReLU are rarely dense.
    let long = small && matrix.cols.is_multiple_of(LONG) && !keep;
    rows.own = (matrix.cols / if long { LONG } else { BLOCK }) as u32;
    let weights = matrix.codes.as_ptr();
    // SAFETY: `rows.own` is the number of rounds in a row; the rest is the caller's promise.
    unsafe {
        match (small, keep) {
            (true, false) if long => small_long(&rows, weights),
            (true, false) => small_any(&rows, weights),
            (true, true) => small_sums(&rows, weights),
            (false, _) => large(&rows, weights),
        }
    }
}

/// A word of weights with two coefficients for each half.
macro_rules! small_word {
    ($weights:literal, $whole:literal, $lower:literal) => {
        concat!(
            "smlad r10, ",
            $weights,
            ", ",
            $whole,
            ", r10\n",
            "uxtb16 ",
            $weights,
            ", ",
            $weights,
            "\n",
            "smlad r10, ",
            $weights,
            ", ",
            $lower,
            ", r10\n",
        )
    };
}

/// The same with one coefficient per byte.
macro_rules! large_word {
    ($weights:literal, $upper:literal, $lower:literal) => {
        concat!(
            "sxtb16 lr, ",
            $weights,
            ", ror #8\n",
            "uxtb16 ",
            $weights,
            ", ",
            $weights,
            "\n",
            "smlad r10, lr, ",
            $upper,
            ", r10\n",
            "smlad r10, ",
            $weights,
            ", ",
            $lower,
            ", r10\n",
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

/// Defines a function that runs all rows in rounds of one length.
macro_rules! run {
    ($name:ident, $round:ident, $word:ident, $end_of_row:ident) => {
        /// # Safety
        ///
        /// `weights` must be the aligned codes of as many rows as there are outputs, each of
        /// `rows.own` rounds; scales and biases as many; the coefficients those of such a row.
        #[inline(never)]
        unsafe fn $name(rows: &Rows, weights: *const u8) {
            // SAFETY: each round reads its weights and coefficients, which a row has for all its
            // rounds; each row reads its scale and bias and writes its output. The caller vouches
            // for all of these. r6 and r7, which cannot be operands, are saved and restored. r0 to
            // r3: coefficients, r4 to r7: weights, r8: rounds left, r10: sum, r11: next
            // coefficients, r12: next weights.
            unsafe {
                asm!(
                    begin!(),
                    "2:",
                    "ldr r10, [r11], #4",
                    "3:",
                    $round!($word),
                    "subs r8, r8, #1",
                    "bne 3b",
                    $end_of_row!("ldrh lr, [r2], #2"),
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

run!(small_long, long_round, small_word, requantize_row);
run!(small_any, block, small_word, requantize_row);
run!(large, block, large_word, requantize_row);
run!(small_sums, block, small_word, store_sum);
