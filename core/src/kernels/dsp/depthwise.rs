//! The taps of a convolution: two products per instruction.

use core::arch::asm;

use super::vector::pair;
use crate::blob::TAPS;

/// Sums of INT8 weights, as `kernels::depthwise` defines them; false for weights that are not
/// aligned to words, or other shapes than these.
///
/// Shapes: `weights` is `[C, 4]`, `before` is `[3, C]`, `last` and `sums` are `[C]`; C is even.
#[inline(always)]
pub(in crate::kernels) fn sums(
    weights: &[u8],
    before: &[i8],
    last: &[i8],
    [f0, f1, f2, f3]: [i32; TAPS],
    sums: &mut [i32],
) -> bool {
    let channels = sums.len();
    let complete = channels > 0
        && channels.is_multiple_of(2)
        && before.len() == (TAPS - 1) * channels
        && last.len() == channels
        && weights.len() == TAPS * channels
        && weights.as_ptr().addr().is_multiple_of(4);
    if complete {
        // SAFETY: the slices have the lengths of as many channels, and the weights are aligned.
        unsafe {
            run(weights, before, last, [pair(f0, f1), f2 as u32, f3 as u32], sums);
        }
    }
    complete
}

/// The sum of a channel. The products of codes and factors are below 2^22, so that their bits 8 to
/// 23 are a signed number; two of them are computed 8 bits further up.
///
/// Registers: r0 weights, r1 positions before, r2 last position, r3 sums, r4 channels, r5 end of
/// the last position, r8 the first two factors, r9 and r10 the others, r6, r11, r12 and lr scratch.
macro_rules! channel {
    () => {
        "ldrsb r11, [r1, r4]
        ldrsb r12, [r1, r4, lsl #1]
        ldrsb r6, [r1], #1
        ldrsb lr, [r2], #1
        mul r12, r12, r9
        mul lr, lr, r10
        smulbb r6, r6, r8
        smulbt r11, r11, r8
        pkhtb r6, r12, r6, asr #8
        pkhtb r11, lr, r11, asr #8
        ldr r12, [r0], #4
        eor r12, r12, #0x00800080
        sxtb16 lr, r12
        sxtb16 r12, r12, ror #8
        smuad r6, r6, lr
        smlad r6, r11, r12, r6
        str r6, [r3], #4\n"
    };
}

/// # Safety
///
/// `sums` is `[C]`, not empty and of even length, `last` is `[C]`, `before` is `[3, C]`, and
/// `weights` is `[C, 4]`, aligned to words.
#[inline(never)]
unsafe fn run(
    weights: &[u8],
    before: &[i8],
    last: &[i8],
    [f01, f2, f3]: [u32; 3],
    sums: &mut [i32],
) {
    // SAFETY: each of the C / 2 rounds, of which there is at least one, reads two codes of each
    // position and two words of weights, which are stored with an offset of 128 in codes 0 and 2,
    // and writes two sums; the caller vouches for their number. r6, which cannot be an operand, is
    // saved and restored.
    unsafe {
        asm!(
            "push {{r6, r7}}",
            "2:",
            channel!(),
            channel!(),
            "cmp r2, r5",
            "bne 2b",
            "pop {{r6, r7}}",
            inout("r0") weights.as_ptr() => _,
            inout("r1") before.as_ptr() => _,
            inout("r2") last.as_ptr() => _,
            inout("r3") sums.as_mut_ptr() => _,
            in("r4") sums.len(),
            in("r5") last.as_ptr_range().end,
            in("r8") f01,
            in("r9") f2 << 8,
            in("r10") f3 << 8,
            out("r11") _, out("r12") _, out("lr") _,
        );
    }
}
