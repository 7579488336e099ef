//! The loops over rows for ARMv6-M (Cortex-M0, M0+), whose eight low registers compilers run out of.
//!
//! Registers of both: r0 words of weights, r1 the prepared vector, r4 a word, r5 scratch, r8 a sum, r12 where
//! the words of the row end. What a row begins and ends with is in the stack frame.
#![allow(unsafe_code)]

use core::arch::naked_asm;

use super::int4::stretch;
use super::int8::Prepared;
use crate::blob::Tensor;
use crate::kernels::planes::Unit;

/// Bytes of scales that a row of INT4 begins with: its mantissa.
const MANTISSA: usize = 2;

/// What the loops work on. The assembly knows the order of the fields.
#[repr(C)]
struct Rows {
    words: *const u32,
    scales: *const u8,
    out: *mut i32,
    out_end: *const i32,
    vector: *const u32,
    row_bytes: usize,
}

impl Rows {
    /// # Panics
    ///
    /// Where there are no rows, or fewer words or scales than they have.
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

/// Sums of all rows of INT4 in groups of 32, an even number a row. Shapes: `words` are the codes of `matrix`,
/// `prepared` are the stretches of its columns, `out` is `[rows]`.
pub(super) fn int4<const W: usize>(
    matrix: &Tensor<'_>,
    words: &[u32],
    prepared: &[u32],
    out: &mut [i32],
) {
    assert!(prepared.len() == matrix.cols / (8 * W) * stretch(W) && matrix.cols.is_multiple_of(64));
    let rows = Rows::new(matrix, words, prepared.as_ptr(), out);
    // SAFETY: the pointers are to as many rows as there are outputs, and to a vector of a row's length, whose
    // kind of stretch is what the function is for; a row is of whole pairs of groups.
    unsafe { if W == 4 { int4_by_groups(&rows) } else { int4_by_halves(&rows) } }
}

/// Sums of all rows of INT8, a multiple of 32 inputs long. Shapes as in [`int4`].
pub(super) fn int8(matrix: &Tensor<'_>, words: &[u32], vector: &Prepared, out: &mut [i32]) {
    assert!(matrix.cols.is_multiple_of(32) && matrix.cols <= super::LONGEST);
    let rows = Rows::new(matrix, words, vector, out);
    // SAFETY: the pointers are to as many rows as there are outputs, and to a vector at least as long as a row,
    // which is of whole rounds of the loop.
    unsafe { int8_rows(&rows) }
}

/// Saves the caller's registers and takes the fields of `Rows` to r0, r9 and a frame of four words: outputs,
/// their end, the vector, bytes of a row.
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

/// Begins a row: the vector from its start, the end of the row.
macro_rules! begin_row {
    () => {
        "ldr r1, [sp, #8]
        ldr r5, [sp, #12]
        adds r5, r5, r0
        mov r12, r5"
    };
}

/// Stores r4, the row's sum, and goes on at label 2 unless it was the last row; then returns.
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

/// Eight inputs of INT4: adds their products to r8, but for the last pair, which `$last` adds from r4. r2 is
/// the mask, r3 the sign bits.
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

/// A stretch of INT4 into r4.
macro_rules! stretch {
    (4) => {
        concat!(stretch!(@begin), stretch!(@word), stretch!(@word), stretch!(@word), stretch!(@end))
    };
    (2) => {
        concat!(stretch!(@begin), stretch!(@word), stretch!(@end))
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

/// A group of INT4 into r4.
macro_rules! group {
    (4) => {
        stretch!(4)
    };
    (2) => {
        concat!(stretch!(2), "mov lr, r4\n", stretch!(2), "add r4, lr\n")
    };
}

/// Further registers of INT4: r2 the mask, r3 the sign bits, r6 and r7 multipliers, r9 scales, r10 the row's
/// sum, r11 a group's.
macro_rules! int4_rows {
    ($words:tt) => {
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
            "mov r4, r10",
            end_row!(),
            ".pool",
            mantissa = const MANTISSA,
        )
    };
}

/// # Safety
///
/// The fields must point to whole rows of an even number of groups each, as many as there are outputs, and to
/// the stretches of a row, which are groups.
#[unsafe(naked)]
unsafe extern "C" fn int4_by_groups(rows: &Rows) {
    int4_rows!(4)
}

/// # Safety
///
/// As [`int4_by_groups`], with stretches that are halves of groups.
#[unsafe(naked)]
unsafe extern "C" fn int4_by_halves(rows: &Rows) {
    int4_rows!(2)
}

/// Eight inputs of INT8: adds their products to r8. r2 has the sign bits; r3, r6 and r7 are multipliers.
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
/// The fields must point to whole rows of a multiple of 32 bytes each, as many as there are outputs, and to a
/// prepared vector of at least a row's length.
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

/// Sum of a unit of [`crate::kernels::planes`] with two words of nibbles.
pub(in crate::kernels) fn nibbles(unit: &Unit, [first, second]: [u32; 2]) -> i32 {
    // SAFETY: the function reads the unit, whose words it counts on in their order.
    unsafe { unit_of_nibbles(unit, first, second) }
}

/// Eight nibbles of the word `$word`: adds their products to r4. r0 is where coefficients are read, r3 the mask,
/// r5 and r6 are coefficients, the first two loaded by `$load`.
macro_rules! unit_word {
    ($word:literal, $load:literal) => {
        concat!(
            $load,
            "\nmovs r7, ", $word, "\n",
            unit_word!(@pair "r5"),
            "lsrs r7, ", $word, ", #8\n",
            unit_word!(@pair "r6"),
            "ldm r0!, {{r5, r6}}\n",
            "lsrs r7, ", $word, ", #4\n",
            unit_word!(@pair "r5"),
            "lsrs r7, ", $word, ", #12\n",
            unit_word!(@pair "r6"),
        )
    };
    (@pair $coefficient:literal) => {
        concat!("ands r7, r3\nmuls r7, ", $coefficient, ", r7\nadds r4, r7\n")
    };
}

/// # Safety
///
/// Reads the words of the unit in the order of its fields.
#[unsafe(naked)]
unsafe extern "C" fn unit_of_nibbles(unit: &Unit, first: u32, second: u32) -> i32 {
    naked_asm!(
        "push {{r4, r5, r6, r7, lr}}",
        "ldr r3, =0x000f000f",
        unit_word!("r1", "ldm r0!, {{r4, r5, r6}}"),
        // Over the place of the scale.
        unit_word!("r2", "adds r0, #4\nldm r0!, {{r5, r6}}"),
        "asrs r0, r4, #16
        pop {{r4, r5, r6, r7, pc}}
        .pool",
    )
}
