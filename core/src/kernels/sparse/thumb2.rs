//! For cores with Thumb-2: five instructions per term and row.

use core::arch::asm;

/// r12 = `$base` + low half of `$half`.
#[cfg(arm_dsp)]
macro_rules! add_half {
    ($base:literal, $half:literal) => {
        concat!("uxtah r12, ", $base, ", ", $half, "\n")
    };
}

/// The same without the DSP extension, through lr, which is free there.
#[cfg(not(arm_dsp))]
macro_rules! add_half {
    ($base:literal, $half:literal) => {
        concat!("uxth lr, ", $half, "\nadd r12, ", $base, ", lr\n")
    };
}

/// Adds a row's part of a term to `$part`. r10: factor, r11: the term's second word.
macro_rules! term {
    ($place:literal, $part:literal) => {
        concat!(
            "ldrb lr, [r12",
            $place,
            "]\n",
            "eor lr, lr, r11, lsr #16\n",
            "and lr, lr, r11, lsr #24\n",
            "mla ",
            $part,
            ", lr, r10, ",
            $part,
            "\n",
        )
    };
}

/// Multiplies a row's part of a group by its scale, whose lowest bit is bit r11.
macro_rules! scaled {
    ($place:literal, $part:literal) => {
        concat!(
            "ldrb lr, [r12",
            $place,
            "]\n",
            "lsr lr, lr, r11\n",
            "and lr, lr, #15\n",
            "mul ",
            $part,
            ", lr, ",
            $part,
            "\n",
        )
    };
}

/// Sums of all rows.
///
/// # Safety
///
/// `block` points to the arguments that `thumb::sums` prepares: codes and scales of as many rows as
/// there are outputs, a nonzero multiple of four, and a list that is not empty and made for such
/// rows.
#[inline(never)]
pub(super) unsafe fn run(block: *const usize) {
    // SAFETY: reads the bytes that the list's terms name in each of four rows, and writes the
    // outputs of as many; the caller vouches for them. r6 and r7, which cannot be operands, are
    // saved and restored. r0: next term, r1: codes of the four rows, r2: bytes per row, r3: three
    // times that; r4, r5, r8, r9: parts; r6: outputs, r7: second word of the group's header, with
    // the number of terms left as its highest byte.
    unsafe {
        asm!(
            "push {{r6, r7}}",
            "ldm r0, {{r1, r2, r3, r4, r5, r8, r9, r11}}",
            "push {{r1, r2, r3, r4, r5}}",
            "mov r6, r8",
            "mov r1, r9",
            "mov r2, r11",
            "add r3, r2, r2, lsl #1",
            // Four rows.
            "2:",
            "ldr r0, [sp, #8]",
            "mov r4, #0",
            "strd r4, r4, [r6]",
            "strd r4, r4, [r6, #8]",
            // A group.
            "3:",
            "ldrd r4, r7, [r0], #8",
            "mov r5, r4",
            "mov r8, r4",
            "mov r9, r4",
            "4:",
            "ldrd r10, r11, [r0], #8",
            add_half!("r1", "r11"),
            term!("", "r4"),
            term!(", r2", "r5"),
            term!(", r2, lsl #1", "r8"),
            term!(", r3", "r9"),
            "sub r7, r7, #0x1000000",
            "cmp r7, #0x1000000",
            "bhs 4b",
            "ldrd r12, r10, [sp]",
            add_half!("r12", "r7"),
            "lsr r11, r7, #16",
            scaled!("", "r4"),
            scaled!(", r10", "r5"),
            scaled!(", r10, lsl #1", "r8"),
            "add r12, r12, r10",
            scaled!(", r10, lsl #1", "r9"),
            "ldm r6, {{r10, r11, r12, lr}}",
            "add r10, r10, r4",
            "add r11, r11, r5",
            "add r12, r12, r8",
            "add lr, lr, r9",
            "stm r6, {{r10, r11, r12, lr}}",
            "ldr r12, [sp, #12]",
            "cmp r0, r12",
            "blo 3b",
            "ldrd r12, r10, [sp]",
            "add r12, r12, r10, lsl #2",
            "str r12, [sp]",
            "add r1, r1, r2, lsl #2",
            "add r6, r6, #16",
            "ldr r12, [sp, #16]",
            "cmp r6, r12",
            "blo 2b",
            "add sp, sp, #20",
            "pop {{r6, r7}}",
            inout("r0") block => _,
            out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _,
            out("r9") _, out("r10") _, out("r11") _, out("r12") _, out("lr") _,
        );
    }
}
