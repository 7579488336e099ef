//! The innermost loops for ARMv7-M without DSP (Cortex-M3), which adds while it multiplies and masks while it
//! shifts. Compilers load all of a loop's body first and then run out of registers.
#![allow(unsafe_code)]

use core::arch::asm;

use super::int4::{self, MASK, ROWS, SIGNS};
use super::int8;

/// Eight inputs of two rows of INT4; offsets of the word and of its multipliers.
macro_rules! nibbles {
    ($word:literal, $multipliers:literal) => {
        concat!(
            nibbles!(@load "x", "a", $word),
            nibbles!(@load "y", "b", $word),
            "ldrd {m}, {n}, [{stretch}, #", $multipliers, "]\n",
            nibbles!(@half "x", "sum_a", "#8", "#4"),
            nibbles!(@half "y", "sum_b", "#8", "#4"),
            "ldrd {m}, {n}, [{stretch}, #", $multipliers, " + 8]\n",
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
            // follow the start of the stretch, all aligned to words as `ldrd` asks; what is written are
            // registers that are named here.
            unsafe {
                asm!(
                    $($words,)*
                    a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), stretch = in(reg) stretch.as_ptr(),
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

/// An input of four rows of INT8: how its weight is loaded, offsets of the weights and of the code.
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
    [a, b, c, d]: [&[u8; int8::ROUND]; int8::ROWS],
    codes: &[i16; int8::ROUND],
    sums: [i32; int8::ROWS],
) -> [i32; int8::ROWS] {
    let [mut sum_a, mut sum_b, mut sum_c, mut sum_d] = sums;
    // SAFETY: the loads are within the sixteen weights of each row and the sixteen codes, and `ldrsh` asks for no
    // more than the alignment of those; what is written are registers that are named here.
    unsafe {
        asm!(
            byte!("ldrb", "0", "0"), byte!("ldrsb", "1", "2"), byte!("ldrb", "2", "4"), byte!("ldrsb", "3", "6"),
            byte!("ldrb", "4", "8"), byte!("ldrsb", "5", "10"), byte!("ldrb", "6", "12"), byte!("ldrsb", "7", "14"),
            byte!("ldrb", "8", "16"), byte!("ldrsb", "9", "18"), byte!("ldrb", "10", "20"), byte!("ldrsb", "11", "22"),
            byte!("ldrb", "12", "24"), byte!("ldrsb", "13", "26"), byte!("ldrb", "14", "28"), byte!("ldrsb", "15", "30"),
            a = in(reg) a.as_ptr(), b = in(reg) b.as_ptr(), c = in(reg) c.as_ptr(), d = in(reg) d.as_ptr(),
            codes = in(reg) codes.as_ptr(),
            sum_a = inout(reg) sum_a, sum_b = inout(reg) sum_b, sum_c = inout(reg) sum_c,
            sum_d = inout(reg) sum_d, code = out(reg) _, t = out(reg) _,
            options(pure, readonly, nostack),
        );
    }
    [sum_a, sum_b, sum_c, sum_d]
}
