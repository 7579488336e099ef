//! Rows for Cortex-M cores with the DSP extension: the arithmetic of [`crate::kernels::planes::Dsp`] without what a compiler
//! moves about between two words, for which it lacks registers.
//!
//! Registers: r0 what stands before coefficients, r1 to r4 coefficients, r5 scratch, r6 a word as stored, r7 words of
//! codes, r8 the mask of a code or a word of the lower plane, r9 the sum of a group, r10 of the row, r11 the vector, r12 the upper
//! plane, lr the lower one or a word of it.

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

/// Products of the bytes of r7 with a pair of coefficients each.
macro_rules! bytes {
    ($a:literal, $b:literal) => {
        concat!(
            "sxtb16 r5, r7\n",
            "smlad r9, r5, ",
            $a,
            ", r9\n",
            "sxtb16 r5, r7, ror #8\n",
            "smlad r9, r5, ",
            $b,
            ", r9\n",
        )
    };
}

/// Joins the nibbles of r6 with lower bits, of which r8 has those of even nibbles lowest and those of odd ones four bits
/// further, to bytes whose uppermost bits are the code; their products.
macro_rules! join {
    (1) => {
        join!(@ "#0x01010101", "lsl #3", "#0x10101010", "lsr #1")
    };
    (2) => {
        join!(@ "#0x03030303", "lsl #2", "#0x30303030", "lsr #2")
    };
    (@ $even:literal, $up:literal, $odd:literal, $down:literal) => {
        concat!(
            "lsl r7, r6, #4\n",
            "and r7, r7, #0xf0f0f0f0\n",
            "and r5, r8, ", $even, "\n",
            "orr r7, r7, r5, ", $up, "\n",
            bytes!("r1", "r2"),
            "and r7, r6, #0xf0f0f0f0\n",
            "and r5, r8, ", $odd, "\n",
            "orr r7, r7, r5, ", $down, "\n",
            bytes!("r3", "r4"),
        )
    };
}

/// Where the lower plane is waits on the stack: notes it at the start of a row, takes its next bytes to lr.
macro_rules! lower {
    () => {
        "ldr r0, [sp, #48]\nadd r0, r0, r12\nstr r0, [sp, #44]"
    };
    ($load:literal) => {
        concat!("ldr r0, [sp, #44]\n", $load, "\nstr r0, [sp, #44]\n")
    };
}

/// After a row its lower plane ends where the next row's upper one begins.
macro_rules! upper {
    () => {
        "ldr r12, [sp, #44]"
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
    ($bits:tt) => {
        concat!(
            "ldr r6, [r12], #4\n",
            coefficients!(),
            join!($bits),
            "ldr r6, [r12, #4]\n",
            "ror r8, r8, #2\n",
            coefficients!(),
            join!($bits),
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
                    $end,
                    finish!("ldrh lr, [r2]\nldr r7, [sp, #52]\nadd r2, r2, r7"),
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
}

rows!(int2_by_16, "", int2!(0), "");
rows!(int2_by_32, "", concat!(int2!(0), int2!(1)), "");
rows!(
    int3_by_16,
    lower!(),
    concat!(lower!("ldrh lr, [r0], #2\norr lr, lr, lr, lsl #15"), int3!(0)),
    upper!()
);
rows!(int3_by_32, lower!(), concat!(lower!("ldr lr, [r0], #4"), int3!(0), int3!(1)), upper!());
rows!(int4_by_16, "", concat!(int4!(0, "0"), "add r12, r12, #4\n"), "");
rows!(
    int4_by_64,
    "",
    concat!(int4!(0, "12"), int4!(1, "12"), int4!(1, "12"), int4!(1, "12"), "add r12, r12, #16\n"),
    ""
);
rows!(
    int5_by_32,
    "ldr r0, [sp, #48]\nadd lr, r12, r0",
    concat!(
        "mov r9, #0\n",
        "ldr r8, [lr], #4\n",
        joined!(1),
        "ror r8, r8, #31\n",
        joined!(1),
        "add r12, r12, #8\n"
    ),
    "mov r12, lr"
);
rows!(
    int6_by_32,
    "ldr r0, [sp, #48]\nadd lr, r12, r0",
    concat!(
        "mov r9, #0\n",
        "ldr r8, [lr], #4\n",
        joined!(2),
        "ldr r8, [lr], #4\n",
        joined!(2),
        "add r12, r12, #8\n"
    ),
    "mov r12, lr"
);

/// Sizes of parts of a row, in bytes.
struct Planes {
    upper: usize,
    scales: usize,
}

/// See [`crate::kernels::planes::Pairs::multiply`]. It can unless [`Rows::new`] cannot.
///
/// # Safety
///
/// That of the other.
#[inline(always)]
pub(in crate::kernels) unsafe fn multiply(
    matrix: &Tensor<'_>,
    scale: Scale,
    units: &[Unit],
    out: &mut [i32],
) -> bool {
    let bits = matrix.precision.bits() as u32;
    // Bytes have their code uppermost. Sums of 512 inputs are below 2^28.
    let fraction = if bits > 4 { 8 - bits } else { 0 };
    let bound = (matrix.cols as u32 * 15 * matrix.max_code) << (bits - 1 + fraction);
    let Some(mut rows) = Rows::new(matrix, scale, (fraction, bound), out) else { return false };
    debug_assert!(units.len() * UNIT == matrix.cols && out.len() == matrix.rows);
    rows.coefficients = units.as_ptr().cast();
    rows.own = ((1 << bits) - 1) * 0x0001_0001;
    let layout = Planes {
        upper: units.len() * if bits < 4 { 4 } else { 8 },
        scales: matrix.layout().row_scales,
    };
    let weights = matrix.codes.as_ptr();
    // SAFETY: as the caller says, the units are those of a row, and the matrix has one of these kernels, all rows of
    // its parts, and codes aligned to words.
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
