//! Rows for Cortex-M cores with the DSP extension: the arithmetic of [`super::dsp`] without what a compiler
//! moves about between two words, for which it lacks registers.
//!
//! Registers: r0 what stands before coefficients, r1 to r4 coefficients, r5 scratch, r6 a word as stored, r7 words of
//! codes, r8 more of them or the mask of a code, r9 the sum of a group, r10 of the row, r11 the vector, r12 the upper
//! plane, lr a word of the lower one. On the stack scales, the lower plane and the end of the vector.

use core::arch::asm;

use super::Unit;

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
        concat!("ldr r0, [sp, #4]\n", $load, "\nstr r0, [sp, #4]\n")
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

/// Defines a row of groups. `$mask` is what is in r8, if anything.
macro_rules! row {
    ($name:ident, $mask:expr, $group:expr) => {
        /// Sum of a row.
        ///
        /// # Safety
        ///
        /// The planes and scales must be those of a row with the groups of `units`, of which there must be at least
        /// one, and of the precision and size that the name says.
        #[inline(always)]
        unsafe fn $name(units: &[Unit], scales: *const u8, upper: *const u32, lower: *const u32) -> i32 {
            let range = units.as_ptr_range();
            let sum;
            // SAFETY: every group reads its units and its part of both planes, and the scale at the place that its
            // last unit names; the loop ends with the units. The caller vouches for these. Planes are aligned to what is
            // loaded. r6 and r7, which cannot be named as operands, are put back.
            unsafe {
                asm!(
                    "push {{r0, r1, r2, r6, r7}}",
                    "mov r10, #0",
                    "2:",
                    $group,
                    // From the scale's place, eight times that of its byte, to the scale.
                    "ldr r1, [sp]",
                    "ldr r2, [sp, #8]",
                    "add r1, r1, r0, lsr #3",
                    "ldrb r1, [r1]",
                    "and r0, r0, #7",
                    "lsr r1, r1, r0",
                    "and r1, r1, #15",
                    "mla r10, r9, r1, r10",
                    "cmp r11, r2",
                    "bne 2b",
                    "pop {{r0, r1, r2, r6, r7}}",
                    in("r0") scales,
                    in("r1") lower,
                    in("r2") range.end,
                    out("r3") _, out("r4") _, out("r5") _,
                    inout("r8") $mask => _,
                    out("r9") _,
                    out("r10") sum,
                    inout("r11") range.start => _,
                    inout("r12") upper => _,
                    out("lr") _,
                );
            }
            sum
        }
    };
}

row!(int2_by_16, 0x0003_0003, int2!(0));
row!(int2_by_32, 0x0003_0003, concat!(int2!(0), int2!(1)));
row!(
    int3_by_16,
    0x0007_0007,
    concat!(lower!("ldrh lr, [r0], #2\norr lr, lr, lr, lsl #15"), int3!(0))
);
row!(int3_by_32, 0x0007_0007, concat!(lower!("ldr lr, [r0], #4"), int3!(0), int3!(1)));
row!(int4_by_16, 0x000f_000f, concat!(int4!(0, "0"), "add r12, r12, #4\n"));
row!(
    int4_by_64,
    0x000f_000f,
    concat!(int4!(0, "12"), int4!(1, "12"), int4!(1, "12"), int4!(1, "12"), "add r12, r12, #16\n")
);
row!(
    int5_by_32,
    0,
    concat!(
        lower!("ldr lr, [r0], #4"),
        joined!(0, 1),
        "ror lr, lr, #31\n",
        joined!(1, 1),
        "add r12, r12, #8\n"
    )
);
row!(
    int6_by_32,
    0,
    concat!(
        lower!("ldr lr, [r0], #4"),
        joined!(0, 2),
        lower!("ldr lr, [r0], #4"),
        joined!(1, 2),
        "add r12, r12, #8\n"
    )
);

/// Sum of a row of `BITS` bits with `UNITS` units to a group.
///
/// # Panics
///
/// Where a part of the row is shorter than `units` ask for.
#[inline(always)]
pub(super) fn row<const BITS: u32, const UNITS: usize>(
    units: &[Unit],
    scales: &[u8],
    upper: &[u32],
    lower: &[u32],
) -> i32 {
    let (scales, upper, lower) = (scales.as_ptr(), upper.as_ptr(), lower.as_ptr());
    // SAFETY: whole groups, and parts as long as they, were counted where the rows were cut.
    unsafe {
        match (BITS, UNITS) {
            (2, 1) => int2_by_16(units, scales, upper, lower),
            (2, _) => int2_by_32(units, scales, upper, lower),
            (3, 1) => int3_by_16(units, scales, upper, lower),
            (3, _) => int3_by_32(units, scales, upper, lower),
            (4, 1) => int4_by_16(units, scales, upper, lower),
            (4, _) => int4_by_64(units, scales, upper, lower),
            (5, _) => int5_by_32(units, scales, upper, lower),
            _ => int6_by_32(units, scales, upper, lower),
        }
    }
}
