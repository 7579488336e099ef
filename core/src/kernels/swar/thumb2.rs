//! The innermost loops for cores with Thumb-2 and without DSP (Cortex-M3), which multiply and
//! accumulate, or shift and mask, in one instruction. Compilers hoist all loads of a loop's body
//! and spill.
#![allow(unsafe_code)]

use core::arch::asm;

use super::layout::{self, INT4_ROWS, INT8_ROUND, INT8_ROWS, MASK, SIGNS};

/// Eight inputs of two rows of INT4; offsets of the word and of its multipliers.
macro_rules! nibbles {
    ($word:literal, $multipliers:literal) => {
        concat!(
            nibbles!(@load "x", "a", $word),
            nibbles!(@load "y", "b", $word),
            "ldrd {m}, {n}, [{chunk}, #", $multipliers, "]\n",
            nibbles!(@half "x", "sum_a", "#8", "#4"),
            nibbles!(@half "y", "sum_b", "#8", "#4"),
            "ldrd {m}, {n}, [{chunk}, #", $multipliers, " + 8]\n",
            nibbles!(@end "x", "sum_a"),
            nibbles!(@end "y", "sum_b"),
        )
    };
    (@load $x:literal, $row:literal, $word:literal) => {
        concat!(
            "ldr {", $x, "}, [{", $row, "}, #", $word, "]\n",
            "eor {", $x, "}, {", $x, "}, {signs}\n",
        )
    };
    (@half $x:literal, $sum:literal, $first:literal, $second:literal) => {
        concat!(
            "and {t}, {mask}, {", $x, "}, lsr ", $first, "\n",
            "mla {", $sum, "}, {t}, {m}, {", $sum, "}\n",
            "and {t}, {mask}, {", $x, "}, lsr ", $second, "\n",
            "mla {", $sum, "}, {t}, {n}, {", $sum, "}\n",
        )
    };
    (@end $x:literal, $sum:literal) => {
        concat!(
            "and {t}, {mask}, {", $x, "}, lsr #12\n",
            "mla {", $sum, "}, {t}, {m}, {", $sum, "}\n",
            "mla {", $sum, "}, {", $x, "}, {n}, {", $sum, "}\n",
        )
    };
}

/// Dot products of two rows of INT4 with a chunk of the vector, in the high halves.
///
/// # Panics
///
/// If `chunk` is not one of `W` words.
#[inline(always)]
pub(super) fn int4<const W: usize>(
    chunk: &[u32],
    [a, b]: [&[u32; W]; INT4_ROWS],
) -> [u32; INT4_ROWS] {
    assert!(chunk.len() == layout::chunk_words(W));
    let (mut sum_a, mut sum_b) = (chunk[0], chunk[0]);
    macro_rules! dot {
        ($($words:expr),*) => {
            // SAFETY: the loads are within the `W` words of each row and the chunk's initial value
            // and four multipliers per word, all aligned to words as `ldrd` needs; all written
            // registers are named.
            unsafe {
                asm!(
                    $($words,)*
                    a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), chunk = in(reg) chunk.as_ptr(),
                    mask = in(reg) MASK, signs = const SIGNS,
                    sum_a = inout(reg) sum_a, sum_b = inout(reg) sum_b,
                    x = out(reg) _, y = out(reg) _, m = out(reg) _, n = out(reg) _, t = out(reg) _,
                    options(pure, readonly, nostack),
                );
            }
        };
    }
    if W == 4 {
        dot!(nibbles!("0", "4"), nibbles!("4", "20"), nibbles!("8", "36"), nibbles!("12", "52"));
    } else {
        const { assert!(W == 2 || W == 4) };
        dot!(nibbles!("0", "4"), nibbles!("4", "20"));
    }
    [sum_a, sum_b]
}

/// One input of four rows of INT8: load instruction of the weight, offsets of weight and code.
macro_rules! byte {
    ($load:literal, $weight:literal, $code:literal) => {
        concat!(
            "ldrsh {code}, [{codes}, #", $code, "]\n",
            byte!(@row $load, "a", "sum_a", $weight),
            byte!(@row $load, "b", "sum_b", $weight),
            byte!(@row $load, "c", "sum_c", $weight),
            byte!(@row $load, "d", "sum_d", $weight),
        )
    };
    (@row $load:literal, $row:literal, $sum:literal, $weight:literal) => {
        concat!(
            $load, " {t}, [{", $row, "}, #", $weight, "]\n",
            "mla {", $sum, "}, {t}, {code}, {", $sum, "}\n",
        )
    };
}

/// Adds the products of a round of inputs.
#[inline(always)]
pub(super) fn int8(
    [a, b, c, d]: [&[u8; INT8_ROUND]; INT8_ROWS],
    codes: &[i16; INT8_ROUND],
    sums: [i32; INT8_ROWS],
) -> [i32; INT8_ROWS] {
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = sums;
    // SAFETY: the loads are within the sixteen weights of each row and the sixteen codes, which
    // have the alignment that `ldrsh` needs; all written registers are named.
    unsafe {
        asm!(
            byte!("ldrb", "0", "0"), byte!("ldrsb", "1", "2"),
            byte!("ldrb", "2", "4"), byte!("ldrsb", "3", "6"),
            byte!("ldrb", "4", "8"), byte!("ldrsb", "5", "10"),
            byte!("ldrb", "6", "12"), byte!("ldrsb", "7", "14"),
            byte!("ldrb", "8", "16"), byte!("ldrsb", "9", "18"),
            byte!("ldrb", "10", "20"), byte!("ldrsb", "11", "22"),
            byte!("ldrb", "12", "24"), byte!("ldrsb", "13", "26"),
            byte!("ldrb", "14", "28"), byte!("ldrsb", "15", "30"),
            a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(),
            c = in(reg) c.as_ptr(), d = in(reg) d.as_ptr(),
            codes = in(reg) codes.as_ptr(),
            sum_a = inout(reg) sum_a, sum_b = inout(reg) sum_b, sum_c = inout(reg) sum_c,
            sum_d = inout(reg) sum_d, code = out(reg) _, t = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    [sum_a, sum_b, sum_c, sum_d]
}
