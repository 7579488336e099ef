//! Rows for Cortex-M cores with the DSP extension: the arithmetic of [`crate::kernels::planes::Dsp`] without what a compiler
//! moves about between two words, for which it lacks registers.
//!
//! Registers: r0 what stands before coefficients, r1 to r4 coefficients, r5 scratch, r6 a word as stored, r7 words of
//! codes, r8 more of them or the mask of a code, r9 the sum of a group, r10 of the row, r11 the vector, r12 the upper
//! plane, lr a word of the lower one.

use core::arch::asm;

use super::row::Rows;
use crate::blob::{Precision, Tensor};
use crate::kernels::planes::{LAST, UNIT, Unit};
use crate::numeric::Scale;

/// The next four coefficients, and what stands before them.
macro_rules! coefficients {
    () => {
        "ldm r11!, {{r0, r1, r2, r3, r4}}\n"
    };
}

/// The first ones of a unit; before them stands what its sum starts with.
macro_rules! first {
    (0) => {
        concat!(coefficients!(), "mov r9, r0\n")
    };
    (1) => {
        concat!(coefficients!(), "add r9, r9, r0\n")
    };
}

/// Products of the eight codes of a word, lowest at bit 0 or 1 or 2 of nibbles; r8 is the mask of one.
macro_rules! codes {
    ($word:literal, 0) => {
        codes!(@ $word, "", ", lsr #8", ", lsr #4", ", lsr #12")
    };
    ($word:literal, 1) => {
        codes!(@ $word, ", lsr #1", ", lsr #9", ", lsr #5", ", lsr #13")
    };
    ($word:literal, 2) => {
        codes!(@ $word, ", lsr #2", ", lsr #10", ", lsr #6", ", lsr #14")
    };
    (@ $word:literal, $a:literal, $b:literal, $c:literal, $d:literal) => {
        concat!(
            "and r5, r8, ", $word, $a, "\n",
            "smlad r9, r5, r1, r9\n",
            "and r5, r8, ", $word, $b, "\n",
            "smlad r9, r5, r2, r9\n",
            "and r5, r8, ", $word, $c, "\n",
            "smlad r9, r5, r3, r9\n",
            "and r5, r8, ", $word, $d, "\n",
            "smlad r9, r5, r4, r9\n",
        )
    };
}

/// Joins the nibbles of r6 with the bits of lr that `$mask` leaves, and of as many four bits further, to the bytes
/// of r7, of even nibbles, and r8.
macro_rules! join {
    (1) => {
        join!(@ "#0x01010101", "#0x10101010", "1", "3", "#0x1e1e1e1e")
    };
    (2) => {
        join!(@ "#0x03030303", "#0x30303030", "2", "2", "#0x3c3c3c3c")
    };
    (@ $even:literal, $odd:literal, $up:literal, $down:literal, $upper:literal) => {
        concat!(
            "eor r6, r6, #0x88888888\n",
            "and r7, r6, #0x0f0f0f0f\n",
            "and r5, lr, ", $even, "\n",
            "orr r7, r5, r7, lsl #", $up, "\n",
            "lsr r8, r6, #", $down, "\n",
            "and r8, r8, ", $upper, "\n",
            "and r5, lr, ", $odd, "\n",
            "orr r8, r8, r5, lsr #4\n",
        )
    };
}

/// Products of the bytes of r7 and r8.
macro_rules! bytes {
    () => {
        "uxtb16 r5, r7
        smlad r9, r5, r1, r9
        uxtb16 r5, r7, ror #8
        smlad r9, r5, r2, r9
        uxtb16 r5, r8
        smlad r9, r5, r3, r9
        uxtb16 r5, r8, ror #8
        smlad r9, r5, r4, r9\n"
    };
}

/// Takes the next bytes of the lower plane to lr.
macro_rules! lower {
    ($load:literal) => {
        concat!("ldr r0, [sp, #44]\n", $load, "\nstr r0, [sp, #44]\n")
    };
}

/// Units by precision, the number of one telling the first of a group from others.
macro_rules! int2 {
    ($unit:tt) => {
        concat!(
            "ldr r6, [r12], #4\n",
            "eor r6, r6, #0xaaaaaaaa\n",
            first!($unit),
            codes!("r6", 0),
            coefficients!(),
            codes!("r6", 2),
        )
    };
}

/// The ones are where `plain::ones` has them, and are moved for the next unit.
macro_rules! int3 {
    ($unit:tt) => {
        concat!(
            "ldr r6, [r12], #4\n",
            "eor r6, r6, #0xaaaaaaaa\n",
            first!($unit),
            "and r7, r6, #0x33333333
            and r5, lr, #0x11111111
            orr r7, r5, r7, lsl #1\n",
            codes!("r7", 0),
            coefficients!(),
            "and r7, r6, #0xcccccccc
            and r5, lr, #0x44444444
            orr r7, r7, r5, lsr #1\n",
            codes!("r7", 1),
            "lsr lr, lr, #1\n",
        )
    };
}

/// `$ahead` is how far the second word is from the first one's end.
macro_rules! int4 {
    ($unit:tt, $ahead:literal) => {
        concat!(
            "ldr r6, [r12], #4\n",
            "eor r6, r6, #0x80008000\n",
            first!($unit),
            codes!("r6", 0),
            "ldr r6, [r12, #",
            $ahead,
            "]\n",
            "eor r6, r6, #0x80008000\n",
            coefficients!(),
            codes!("r6", 0),
        )
    };
}

/// INT5 or INT6, with one bit or two in the lower plane, in groups of two units.
macro_rules! joined {
    ($unit:tt, $bits:tt) => {
        concat!(
            "ldr r6, [r12], #4\n",
            join!($bits),
            first!($unit),
            bytes!(),
            "ldr r6, [r12, #4]\n",
            "ror lr, lr, #2\n",
            join!($bits),
            coefficients!(),
            bytes!(),
        )
    };
}

/// Defines a function that runs all rows. `$begin` and `$end` stand around the groups of a row, `$group` is one.
macro_rules! rows {
    ($name:ident, $begin:expr, $group:expr, $end:expr) => {
        /// # Safety
        ///
        /// `weights` must be the aligned codes of as many rows as there are outputs, of the precision and groups that
        /// the name says; scales, biases and `layout` theirs; the coefficients the units of such a row.
        #[inline(never)]
        unsafe fn $name(rows: &Rows, weights: *const u8, layout: &Planes) {
            // SAFETY: every group reads its units, its part of both planes, and the scale at the place that its last
            // unit names, which ends the row where it is the last one; every row's end reads the row's scale and bias and
            // writes its output. The caller vouches for these. Beside the registers named below r6 and r7, which
            // cannot be, are used and put back. Above what `load!` puts on the stack are the next bytes of the lower plane,
            // at 44, the bytes of an upper plane, at 48, and of a row's scales, at 52.
            unsafe {
                asm!(
                    "push {{r1, r2, r3, r6, r7}}",
                    load!(),
                    "2:",
                    $begin,
                    "mov r10, #0",
                    "3:",
                    $group,
                    "ldr r1, [sp, #8]",
                    "add r1, r1, r0, lsr #8",
                    "ldrb r1, [r1]",
                    "ror r1, r1, r0",
                    "and r1, r1, #15",
                    "mla r10, r9, r1, r10",
                    "tst r0, #{last}",
                    "beq 3b",
                    finish!("ldrh lr, [r2]\nldr r7, [sp, #52]\nadd r2, r2, r7"),
                    $end,
                    "bne 2b",
                    "add sp, sp, #44",
                    "pop {{r1, r2, r3, r6, r7}}",
                    last = const LAST,
                    inout("r0") core::ptr::from_ref(rows) => _,
                    inout("r2") layout.upper => _,
                    inout("r3") layout.scales => _,
                    inout("r12") weights => _,
                    out("r1") _, out("r4") _, out("r5") _, out("r8") _, out("r9") _, out("r10") _,
                    out("r11") _, out("lr") _,
                );
            }
        }
    };
    // With a lower plane behind the upper one.
    ($name:ident, $group:expr) => {
        rows!(
            $name,
            "ldr r0, [sp, #48]\nadd r0, r0, r12\nstr r0, [sp, #44]",
            $group,
            "ldr r12, [sp, #44]"
        );
    };
}

rows!(int2_by_16, "", int2!(0), "");
rows!(int2_by_32, "", concat!(int2!(0), int2!(1)), "");
rows!(int3_by_16, concat!(lower!("ldrh lr, [r0], #2\norr lr, lr, lr, lsl #15"), int3!(0)));
rows!(int3_by_32, concat!(lower!("ldr lr, [r0], #4"), int3!(0), int3!(1)));
rows!(int4_by_16, "", concat!(int4!(0, "0"), "add r12, r12, #4\n"), "");
rows!(
    int4_by_64,
    "",
    concat!(int4!(0, "12"), int4!(1, "12"), int4!(1, "12"), int4!(1, "12"), "add r12, r12, #16\n"),
    ""
);
rows!(
    int5_by_32,
    concat!(
        lower!("ldr lr, [r0], #4"),
        joined!(0, 1),
        "ror lr, lr, #31\n",
        joined!(1, 1),
        "add r12, r12, #8\n"
    )
);
rows!(
    int6_by_32,
    concat!(
        lower!("ldr lr, [r0], #4"),
        joined!(0, 2),
        lower!("ldr lr, [r0], #4"),
        joined!(1, 2),
        "add r12, r12, #8\n"
    )
);

/// Sizes of parts of a row, in bytes.
struct Planes {
    upper: usize,
    scales: usize,
}

/// See [`crate::kernels::planes::Pairs::multiply`]. It can unless [`Rows::new`] cannot.
///
/// # Panics
///
/// Where the units are not those of a row.
#[inline(always)]
pub(in crate::kernels) fn multiply(
    matrix: &Tensor<'_>,
    scale: Scale,
    units: &[Unit],
    out: &mut [i32],
) -> bool {
    let bits = matrix.precision.bits() as u32;
    // Of 512 inputs, 2^26.
    let bound = (matrix.cols as u32 * 15 * matrix.max_code) << (bits - 1);
    let Some(mut rows) = Rows::new(matrix, scale, (0, bound), out) else { return false };
    assert!(units.len() * UNIT == matrix.cols);
    rows.coefficients = units.as_ptr().cast();
    rows.own = ((1 << bits) - 1) * 0x0001_0001;
    let layout = Planes {
        upper: units.len() * if bits < 4 { 4 } else { 8 },
        scales: matrix.layout().row_scales,
    };
    let weights = matrix.codes.as_ptr();
    // SAFETY: the units are those of a row, and that the matrix has one of these kernels, all rows of its parts and
    // codes aligned to words, was checked before.
    unsafe {
        match (matrix.precision, matrix.group) {
            (Precision::Int2, 16) => int2_by_16(&rows, weights, &layout),
            (Precision::Int2, _) => int2_by_32(&rows, weights, &layout),
            (Precision::Int3, 16) => int3_by_16(&rows, weights, &layout),
            (Precision::Int3, _) => int3_by_32(&rows, weights, &layout),
            (Precision::Int4, 16) => int4_by_16(&rows, weights, &layout),
            (Precision::Int4, _) => int4_by_64(&rows, weights, &layout),
            (Precision::Int5, _) => int5_by_32(&rows, weights, &layout),
            _ => int6_by_32(&rows, weights, &layout),
        }
    }
    true
}
