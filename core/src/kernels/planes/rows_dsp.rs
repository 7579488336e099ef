//! Rows for Cortex-M cores with the DSP extension: the arithmetic of [`super::smlad`] in assembly,
//! since compilers run out of registers and spill between two words.
//!
//! Registers: r0 word before the coefficients, r1 to r4 coefficients, r5 scratch, r6 word as
//! stored, r7 words of codes, r8 mask of a code or word of the lower plane, r9 sum of a group, r10
//! sum of the row, r11 vector, r12 upper plane, lr lower plane or a word of it.

use core::arch::asm;

use super::units::{LAST, UNIT, Unit};
use crate::blob::{Precision, Tensor};
use crate::kernels::dsp::row::Rows;
use crate::numeric::Scale;

/// Loads the next four coefficients and the word before them.
macro_rules! coefficients {
    () => {
        "ldm r11!, {{r0, r1, r2, r3, r4}}\n"
    };
}

/// The first coefficients of a unit; the word before them is the initial value of its sum.
macro_rules! first {
    (0) => {
        concat!(coefficients!(), "mov r9, r0\n")
    };
    (1) => {
        concat!(coefficients!(), "add r9, r9, r0\n")
    };
}

/// Products with the eight codes of a word, at bit 0, 1 or 2 of their nibbles; r8 is the mask of a
/// code.
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

/// Products with the bytes of r7, two for each pair of coefficients.
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

/// Joins the nibbles of r6 with lower bits to bytes with the code in their top bits, and multiplies
/// those. r8 has the lower bits of even nibbles lowest, those of odd nibbles four bits higher.
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

/// The address in the lower plane is kept on the stack: stored at the start of a row, its next
/// bytes loaded into lr.
macro_rules! lower {
    () => {
        "ldr r0, [sp, #48]\nadd r0, r0, r12\nstr r0, [sp, #44]"
    };
    ($load:literal) => {
        concat!("ldr r0, [sp, #44]\n", $load, "\nstr r0, [sp, #44]\n")
    };
}

/// A row's lower plane ends where the upper plane of the next row begins.
macro_rules! upper {
    () => {
        "ldr r12, [sp, #44]"
    };
}

/// Units by precision; `$unit` is 0 for the first of a group.
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

/// The 1-bit fields are in the places of `words::ones`, and are shifted for the next unit.
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

/// `$ahead` is the distance of the second word from the end of the first.
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

/// Defines a function that runs all rows: `$begin`, `$group` for each group, `$end`.
macro_rules! rows {
    ($name:ident, $begin:expr, $group:expr, $end:expr) => {
        /// # Safety
        ///
        /// `weights` must be the aligned codes of as many rows as there are outputs, of the
        /// precision and groups that the name says; scales, biases and `layout` theirs; the
        /// coefficients the units of such a row.
        #[inline(never)]
        unsafe fn $name(rows: &Rows, weights: *const u8, layout: &Planes) {
            // SAFETY: each group reads its units, its part of both planes, and the scale at the
            // place in its last unit, which ends the row if marked; each row reads its scale and
            // bias and writes its output. The caller vouches for all of these. r6 and r7, which
            // cannot be operands, are saved and restored. On the stack above what `load!` pushes:
            // the address in the lower plane, at 44, the bytes of an upper plane, at 48, and of a
            // row's scales, at 52.
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
                    requantize_row!("ldrh lr, [r2]\nldr r7, [sp, #52]\nadd r2, r2, r7"),
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

/// See [`super::units::Pairs::multiply`]; returns false where [`Rows::new`] has no constants.
///
/// # Safety
///
/// As there.
#[inline(always)]
pub(super) unsafe fn multiply(
    matrix: &Tensor<'_>,
    scale: Scale,
    units: &[Unit],
    out: &mut [i32],
) -> bool {
    let bits = matrix.precision.bits() as u32;
    // Bytes hold the code in their top bits. Sums of 512 inputs are below 2^28.
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
    // SAFETY: by the caller's promise the units are those of a row, and the matrix has one of these
    // storages, all rows of its parts, and codes aligned to words.
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
