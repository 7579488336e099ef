//! The innermost loops for RV32 with multiplication. Compilers load all of a loop's body first and then run out
//! of registers.
#![allow(unsafe_code)]

use core::arch::asm;

use super::int4::{self, MASK, ROWS, SIGNS};
use super::int8;

/// Eight inputs of two rows of INT4; offsets of the word and of its multipliers.
macro_rules! nibbles {
    ($word:literal, $multipliers:literal) => {
        concat!(
            "lw {x}, ", $word, "({a})\n",
            "lw {y}, ", $word, "({b})\n",
            "lw {m}, ", $multipliers, "({stretch})\n",
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
            "lw {m}, ", $multipliers, " + ", $next, "({stretch})\n",
            "add {sum_a}, {sum_a}, {t}\n",
            "add {sum_b}, {sum_b}, {u}\n",
        )
    };
}

/// What [`int4::dot`] adds up.
///
/// # Panics
///
/// Where `stretch` is not one of `W` words.
#[inline(always)]
pub(super) fn int4<const W: usize>(stretch: &[u32], [a, b]: [&[u32; W]; ROWS]) -> [u32; ROWS] {
    assert!(stretch.len() == int4::stretch(W));
    let (mut sum_a, mut sum_b) = (stretch[0], stretch[0]);
    macro_rules! dot {
        ($($words:expr),*) => {
            // SAFETY: the loads are within the `W` words of each row and the four multipliers for each that
            // follow the start of the stretch, all aligned to words; what is written are
            // registers that are named here.
            unsafe {
                asm!(
                    $($words,)*
                    a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), stretch = in(reg) stretch.as_ptr(),
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

/// An input of four rows of INT8: how its weight is loaded, offsets of the weights and of the code.
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
    [a, b, c, d]: [&[u8; int8::ROUND]; int8::ROWS],
    codes: &[i16; int8::ROUND],
    sums: [i32; int8::ROWS],
) -> [i32; int8::ROWS] {
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = sums;
    // SAFETY: the loads are within the sixteen weights of each row and the sixteen codes, which are
    // aligned as such; what is written are registers that are named here.
    unsafe {
        asm!(
            byte!("lbu", "0", "0"), byte!("lb", "1", "2"), byte!("lbu", "2", "4"), byte!("lb", "3", "6"),
            byte!("lbu", "4", "8"), byte!("lb", "5", "10"), byte!("lbu", "6", "12"), byte!("lb", "7", "14"),
            byte!("lbu", "8", "16"), byte!("lb", "9", "18"), byte!("lbu", "10", "20"), byte!("lb", "11", "22"),
            byte!("lbu", "12", "24"), byte!("lb", "13", "26"), byte!("lbu", "14", "28"), byte!("lb", "15", "30"),
            a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), c = in(reg) c.as_ptr(), d = in(reg) d.as_ptr(),
            codes = in(reg) codes.as_ptr(),
            sum_a = inout(reg) sum_a, sum_b = inout(reg) sum_b, sum_c = inout(reg) sum_c,
            sum_d = inout(reg) sum_d, code = out(reg) _, t = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    [sum_a, sum_b, sum_c, sum_d]
}
