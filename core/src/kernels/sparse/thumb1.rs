//! For cores with Thumb-1 (Cortex-M0, M0+): eight instructions per term and row.

use core::arch::naked_asm;

/// Adds a row's part of a term to `$part`. r1: address of the row's byte, advanced to the next row;
/// r2: factor, r3: flip, r4: mask.
macro_rules! term {
    ($part:literal) => {
        concat!(
            "ldrb r5, [r1]\n",
            "add r1, r12\n",
            "eors r5, r3\n",
            "ands r5, r4\n",
            "muls r5, r2, r5\n",
            "add ",
            $part,
            ", r5\n",
        )
    };
}

/// Adds a row's part of a group, times its scale, to the output at r7. r1: address of the scale's
/// byte, advanced to the next row; r2: 15, r3: lowest bit of the scale.
macro_rules! add_scaled {
    ($part:literal, $out:literal) => {
        concat!(
            "ldrb r5, [r1]\n",
            "adds r1, r1, r4\n",
            "lsrs r5, r3\n",
            "ands r5, r2\n",
            "mov r6, ",
            $part,
            "\n",
            "muls r5, r6, r5\n",
            "ldr r6, [r7, #",
            $out,
            "]\n",
            "adds r5, r5, r6\n",
            "str r5, [r7, #",
            $out,
            "]\n",
        )
    };
}

/// Sums of all rows. r0: next term, r6: codes of the four rows, r12: bytes per row, r8 to r11:
/// parts, lr: end of the group's terms. On the stack: the first six fields of the block, which
/// advance from row to row, and the second word of the group's header.
///
/// # Safety
///
/// `block` points to the arguments that `thumb::sums` prepares: codes and scales of as many rows as
/// there are outputs, a nonzero multiple of four, and a list that is not empty and made for such
/// rows.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn run(block: *const usize) {
    naked_asm!(
        save_registers!(),
        "sub sp, #28
        ldm r0!, {{r1, r2, r3, r4, r5, r7}}
        mov r6, sp
        stm r6!, {{r1, r2, r3, r4, r5, r7}}
        ldm r0!, {{r6, r7}}
        mov r12, r7",
        // Four rows.
        "2:
        ldr r0, [sp, #8]
        ldr r7, [sp, #20]
        movs r5, #0
        str r5, [r7]
        str r5, [r7, #4]
        str r5, [r7, #8]
        str r5, [r7, #12]",
        // A group.
        "3:
        ldm r0!, {{r2, r3}}
        str r3, [sp, #24]
        mov r8, r2
        mov r9, r2
        mov r10, r2
        mov r11, r2
        lsrs r3, r3, #24
        lsls r3, r3, #3
        adds r3, r3, r0
        mov lr, r3",
        "4:
        ldm r0!, {{r2, r3}}
        uxth r1, r3
        adds r1, r1, r6
        lsrs r4, r3, #24
        lsrs r3, r3, #16",
        term!("r8"),
        term!("r9"),
        term!("r10"),
        term!("r11"),
        "cmp r0, lr
        bne 4b
        mov lr, r6
        ldr r7, [sp, #20]
        ldr r3, [sp, #24]
        ldr r1, [sp]
        ldr r4, [sp, #4]
        uxth r2, r3
        adds r1, r1, r2
        lsls r3, r3, #8
        lsrs r3, r3, #24
        movs r2, #15",
        add_scaled!("r8", "0"),
        add_scaled!("r9", "4"),
        add_scaled!("r10", "8"),
        add_scaled!("r11", "12"),
        "mov r6, lr
        ldr r5, [sp, #12]
        cmp r0, r5
        blo 3b
        mov r5, r12
        lsls r5, r5, #2
        adds r6, r6, r5
        ldr r1, [sp]
        lsls r4, r4, #2
        adds r1, r1, r4
        str r1, [sp]
        adds r7, #16
        str r7, [sp, #20]
        ldr r5, [sp, #16]
        cmp r7, r5
        bhs 5f
        b 2b",
        "5:
        add sp, #28",
        return_with_registers!(),
    )
}
