//! The loops over rows for ARMv6-M (Cortex-M0, M0+): eight low registers are too few for compilers.
//!
//! Registers of both: r0 words of weights, r1 prepared vector, r4 word, r5 scratch, r8 sum, r12 end
//! of the row's words. What the start and the end of a row need is in the stack frame.
#![allow(unsafe_code)]

use core::arch::naked_asm;

use super::layout::{Prepared, chunk_words};
use crate::blob::Tensor;
use crate::kernels::shapes::{BLOCK, LONGEST};

/// Bytes of the mantissa at the start of a row's scales.
const MANTISSA: usize = 2;

/// Arguments of the loops. The assembly depends on the order of the fields.
#[repr(C)]
struct Rows {
    words: *const u32,
    scales: *const u8,
    out: *mut i32,
    out_end: *const i32,
    vector: *const u32,
    /// Bytes of a row's words, of INT4 those of its pairs of groups.
    row_bytes: usize,
}

impl Rows {
    /// # Panics
    ///
    /// If there are no rows, or fewer words or scales than the rows have.
    fn new<V>(matrix: &Tensor<'_>, words: &[u32], vector: *const V, out: &mut [i32]) -> Self {
        let layout = matrix.layout();
        assert!(!out.is_empty() && layout.row_codes > 0 && layout.row_codes.is_multiple_of(4));
        assert!(words.len() >= out.len() * (layout.row_codes / 4));
        assert!(matrix.scales.len() >= out.len() * layout.row_scales);
        let out = out.as_mut_ptr_range();
        Self {
            words: words.as_ptr(),
            scales: matrix.scales.as_ptr(),
            out: out.start,
            out_end: out.end,
            vector: vector.cast(),
            row_bytes: layout.row_codes,
        }
    }
}

/// Sums of all rows of INT4 in groups of 32, at least two a row. Shapes: `words` are the codes of
/// `matrix`, `prepared` are the chunks of its columns, `out` is `[rows]`.
pub(super) fn int4<const W: usize>(
    matrix: &Tensor<'_>,
    words: &[u32],
    prepared: &[u32],
    out: &mut [i32],
) {
    assert!(matrix.cols.is_multiple_of(BLOCK) && matrix.cols >= 2 * BLOCK);
    assert!(prepared.len() == matrix.cols / (8 * W) * chunk_words(W));
    let mut rows = Rows::new(matrix, words, prepared.as_ptr(), out);
    let odd = !matrix.cols.is_multiple_of(2 * BLOCK);
    if odd {
        rows.row_bytes -= BLOCK / 2;
    }
    // SAFETY: the pointers are to as many rows as there are outputs, and to a vector of a row's
    // length in chunks of the function's size; a row has one pair of groups or more, and one group
    // more if the number is odd.
    unsafe {
        match (W, odd) {
            (4, false) => int4_by_groups(&rows),
            (4, true) => odd_int4_by_groups(&rows),
            (_, false) => int4_by_halves(&rows),
            (_, true) => odd_int4_by_halves(&rows),
        }
    }
}

/// Sums of all rows of INT8, a multiple of 32 inputs long. Shapes as in [`int4`].
pub(super) fn int8(matrix: &Tensor<'_>, words: &[u32], vector: &Prepared, out: &mut [i32]) {
    assert!(matrix.cols.is_multiple_of(32) && matrix.cols <= LONGEST);
    let rows = Rows::new(matrix, words, vector, out);
    // SAFETY: the pointers are to as many rows as there are outputs, and to a vector at least as
    // long as a row, which has whole rounds of the loop.
    unsafe { int8_rows(&rows) }
}

/// Saves the caller's registers and loads the fields of `Rows` into r0, r9 and a frame of four
/// words: outputs, their end, the vector, bytes per row.
macro_rules! enter {
    () => {
        concat!(
            save_registers!(),
            "sub sp, #16
            ldm r0!, {{r1, r2, r3, r4, r5, r6}}
            mov r0, r1
            mov r9, r2
            str r3, [sp, #0]
            str r4, [sp, #4]
            str r5, [sp, #8]
            str r6, [sp, #12]"
        )
    };
}

/// Starts a row: start of the vector, end of the row.
macro_rules! begin_row {
    () => {
        "ldr r1, [sp, #8]
        ldr r5, [sp, #12]
        adds r5, r5, r0
        mov r12, r5"
    };
}

/// Stores r4, the row's sum. Returns after the last row, else continues at label 2.
macro_rules! end_row {
    () => {
        concat!(
            "ldr r5, [sp, #0]
            stm r5!, {{r4}}
            str r5, [sp, #0]
            ldr r4, [sp, #4]
            cmp r5, r4
            beq 5f
            b 2b
            5:
            add sp, #16",
            return_with_registers!()
        )
    };
}

/// Adds the products of eight inputs of INT4 to r8, except the last pair, which `$last` adds from
/// r4. r2: mask, r3: sign bits.
macro_rules! nibbles {
    ($last:literal) => {
        concat!(
            "ldm r0!, {{r4}}
            eors r4, r3
            ldm r1!, {{r6, r7}}
            lsrs r5, r4, #8
            ands r5, r2
            muls r5, r6, r5
            add r8, r5
            lsrs r5, r4, #4
            ands r5, r2
            muls r5, r7, r5
            add r8, r5
            ldm r1!, {{r6, r7}}
            lsrs r5, r4, #12
            ands r5, r2
            muls r5, r6, r5
            add r8, r5
            muls r4, r7, r4
            ",
            $last,
            "\n"
        )
    };
}

/// The dot product of a chunk of INT4, in r4.
macro_rules! chunk {
    (4) => {
        concat!(chunk!(@begin), chunk!(@word), chunk!(@word), chunk!(@word), chunk!(@end))
    };
    (2) => {
        concat!(chunk!(@begin), chunk!(@word), chunk!(@end))
    };
    (@begin) => {
        "ldm r1!, {{r5}}\n mov r8, r5\n"
    };
    (@word) => {
        nibbles!("add r8, r4")
    };
    (@end) => {
        nibbles!("add r4, r8\n asrs r4, r4, #16")
    };
}

/// The dot product of a group of INT4, in r4.
macro_rules! group {
    (4) => {
        chunk!(4)
    };
    (2) => {
        concat!(chunk!(2), "mov lr, r4\n", chunk!(2), "add r4, lr\n")
    };
}

/// The last group of an odd number; its scale is the low half of a byte.
macro_rules! last_group {
    (even, $words:tt) => {
        ""
    };
    (odd, $words:tt) => {
        concat!(
            group!($words),
            "mov r5, r9
            ldrb r6, [r5]
            adds r5, #1
            mov r9, r5
            lsls r6, r6, #28
            lsrs r6, r6, #28
            muls r4, r6, r4
            add r10, r4"
        )
    };
}

/// More registers of INT4: r2 mask, r3 sign bits, r6 and r7 multipliers, r9 scales, r10 sum of the
/// row, r11 sum of a group.
macro_rules! int4_rows {
    ($number:tt, $words:tt) => {
        naked_asm!(
            enter!(),
            "ldr r2, =0x000f000f
            ldr r3, =0x80008000",
            "2:",
            begin_row!(),
            "mov r5, r9
            adds r5, #{mantissa}
            mov r9, r5
            movs r5, #0
            mov r10, r5",
            "3:",
            group!($words),
            "mov r11, r4",
            group!($words),
            // The byte with both scales.
            "mov r5, r9
            ldrb r6, [r5]
            adds r5, #1
            mov r9, r5
            lsrs r7, r6, #4
            muls r4, r7, r4
            lsls r6, r6, #28
            lsrs r6, r6, #28
            mov r7, r11
            muls r6, r7, r6
            adds r4, r6
            add r10, r4
            cmp r0, r12
            beq 4f
            b 3b",
            "4:",
            last_group!($number, $words),
            "mov r4, r10",
            end_row!(),
            ".pool",
            mantissa = const MANTISSA,
        )
    };
}

/// # Safety
///
/// The fields must point to rows with an even number of groups each, as many as there are outputs,
/// and to the chunks of a row, which are groups.
#[unsafe(naked)]
unsafe extern "C" fn int4_by_groups(rows: &Rows) {
    int4_rows!(even, 4)
}

/// # Safety
///
/// As [`int4_by_groups`], with an odd number of groups above one.
#[unsafe(naked)]
unsafe extern "C" fn odd_int4_by_groups(rows: &Rows) {
    int4_rows!(odd, 4)
}

/// # Safety
///
/// As [`int4_by_groups`], with chunks that are half groups.
#[unsafe(naked)]
unsafe extern "C" fn int4_by_halves(rows: &Rows) {
    int4_rows!(even, 2)
}

/// # Safety
///
/// As [`odd_int4_by_groups`], with chunks that are half groups.
#[unsafe(naked)]
unsafe extern "C" fn odd_int4_by_halves(rows: &Rows) {
    int4_rows!(odd, 2)
}

/// Adds the products of eight inputs of INT8 to r8. r2: sign bits; r3, r6 and r7: multipliers.
macro_rules! bytes {
    () => {
        "ldm r0!, {{r4}}
        eors r4, r2
        ldm r1!, {{r3, r6, r7}}
        lsrs r5, r4, #8
        muls r5, r3, r5
        add r8, r5
        lsrs r5, r4, #16
        muls r5, r6, r5
        add r8, r5
        lsrs r5, r4, #24
        muls r5, r7, r5
        add r8, r5
        ldm r1!, {{r3, r6, r7}}
        muls r4, r3, r4
        add r8, r4
        ldm r0!, {{r4}}
        eors r4, r2
        lsrs r5, r4, #8
        muls r5, r6, r5
        add r8, r5
        lsrs r5, r4, #16
        muls r5, r7, r5
        add r8, r5
        ldm r1!, {{r6, r7}}
        lsrs r5, r4, #24
        muls r5, r6, r5
        add r8, r5
        muls r4, r7, r4
        add r8, r4"
    };
}

/// # Safety
///
/// The fields must point to rows of a multiple of 32 bytes each, as many as there are outputs, and
/// to a prepared vector at least as long as a row.
#[unsafe(naked)]
unsafe extern "C" fn int8_rows(rows: &Rows) {
    naked_asm!(
        enter!(),
        "ldr r2, =0x80008000",
        "2:",
        begin_row!(),
        "ldm r1!, {{r5}}
        mov r8, r5",
        "3:",
        bytes!(),
        bytes!(),
        bytes!(),
        bytes!(),
        "cmp r0, r12
        bne 3b
        mov r4, r8",
        end_row!(),
        ".pool",
    )
}
