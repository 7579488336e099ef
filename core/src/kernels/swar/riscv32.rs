//! The innermost loops for RV32 with multiplication. Compilers hoist all loads of a loop's body and
//! spill.
#![allow(unsafe_code)]

use core::arch::asm;

use super::layout::{self, INT4_ROWS, INT8_ROUND, INT8_ROWS, MASK, SIGNS};

/// Eight inputs of two rows of INT4; offsets of the word and of its multipliers.
macro_rules! nibbles {
    ($word:literal, $multipliers:literal) => {
        concat!(
            "lw {x}, ", $word, "({a})\n",
            "lw {y}, ", $word, "({b})\n",
            "lw {m}, ", $multipliers, "({chunk})\n",
            "xor {x}, {x}, {signs}\n",
            "xor {y}, {y}, {signs}\n",
            nibbles!(@pair "8", $multipliers, "4"),
            nibbles!(@pair "4", $multipliers, "8"),
            nibbles!(@pair "12", $multipliers, "12"),
            "mul {x}, {x}, {m}\n",
            "mul {y}, {y}, {m}\n",
            "add {sum_a}, {sum_a}, {x}\n",
            "add {sum_b}, {sum_b}, {y}\n",
        )
    };
    (@pair $shift:literal, $multipliers:literal, $next:literal) => {
        concat!(
            "srli {t}, {x}, ", $shift, "\n",
            "srli {u}, {y}, ", $shift, "\n",
            "and {t}, {t}, {mask}\n",
            "and {u}, {u}, {mask}\n",
            "mul {t}, {t}, {m}\n",
            "mul {u}, {u}, {m}\n",
            "lw {m}, ", $multipliers, " + ", $next, "({chunk})\n",
            "add {sum_a}, {sum_a}, {t}\n",
            "add {sum_b}, {sum_b}, {u}\n",
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
            // and four multipliers per word, all aligned to words; all written registers are named.
            unsafe {
                asm!(
                    $($words,)*
                    a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), chunk = in(reg) chunk.as_ptr(),
                    mask = in(reg) MASK, signs = in(reg) SIGNS,
                    sum_a = inout(reg) sum_a, sum_b = inout(reg) sum_b,
                    x = out(reg) _, y = out(reg) _, m = out(reg) _, t = out(reg) _, u = out(reg) _,
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
            "lh {code}, ", $code, "({codes})\n",
            byte!(@row $load, "a", "sum_a", $weight),
            byte!(@row $load, "b", "sum_b", $weight),
            byte!(@row $load, "c", "sum_c", $weight),
            byte!(@row $load, "d", "sum_d", $weight),
        )
    };
    (@row $load:literal, $row:literal, $sum:literal, $weight:literal) => {
        concat!(
            $load, " {t}, ", $weight, "({", $row, "})\n",
            "mul {t}, {t}, {code}\n",
            "add {", $sum, "}, {", $sum, "}, {t}\n",
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
    // SAFETY: the loads are within the sixteen weights of each row and the sixteen codes, which are
    // aligned to halves; all written registers are named.
    unsafe {
        asm!(
            byte!("lbu", "0", "0"), byte!("lb", "1", "2"),
            byte!("lbu", "2", "4"), byte!("lb", "3", "6"),
            byte!("lbu", "4", "8"), byte!("lb", "5", "10"),
            byte!("lbu", "6", "12"), byte!("lb", "7", "14"),
            byte!("lbu", "8", "16"), byte!("lb", "9", "18"),
            byte!("lbu", "10", "20"), byte!("lb", "11", "22"),
            byte!("lbu", "12", "24"), byte!("lb", "13", "26"),
            byte!("lbu", "14", "28"), byte!("lb", "15", "30"),
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
