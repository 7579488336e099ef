//! The taps of a convolution: two products per instruction.

use core::arch::asm;

use super::vector::pair;
use crate::blob::TAPS;

/// Sums of INT8 weights, as `kernels::depthwise` defines them; false for weights that are not
/// aligned to words, or other shapes than these.
///
/// Shapes: `weights` is `[C, 4]`, `before` is `[3, C]`, `last` and `sums` are `[C]`.
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
        && before.len() == (TAPS - 1) * channels
        && last.len() == channels
        && weights.len() == TAPS * channels
        && weights.as_ptr().addr().is_multiple_of(4);
    if complete {
        // SAFETY: the slices have the lengths of as many channels, and the weights are aligned.
        unsafe {
            run(weights, before, last, [pair(f0, f2), pair(f1, f3)], sums);
        }
    }
    complete
}

/// # Safety
///
/// `sums` is `[C]`, not empty, `last` is `[C]`, `before` is `[3, C]`, and `weights` is `[C, 4]`,
/// aligned to words.
#[inline(never)]
unsafe fn run(weights: &[u8], before: &[i8], last: &[i8], [even, odd]: [u32; 2], sums: &mut [i32]) {
    // SAFETY: each of the C rounds, of which there is at least one, reads one code of each position
    // and one word of weights and writes one sum; the caller vouches for their number. The products
    // of codes and factors are below 2^22, so that their bits 8 to 23 are a signed number.
    unsafe {
        asm!(
            "2:",
            "ldrsb {q1}, [{before}, {channels}]",
            "ldrsb {q2}, [{before}, {channels}, lsl #1]",
            "ldrsb {q0}, [{before}], #1",
            "ldrsb {q3}, [{last}], #1",
            "smulbt {q2}, {q2}, {even}",
            "smulbt {q3}, {q3}, {odd}",
            "smulbb {q0}, {q0}, {even}",
            "smulbb {q1}, {q1}, {odd}",
            "lsl {q2}, {q2}, #8",
            "lsl {q3}, {q3}, #8",
            "pkhtb {q0}, {q2}, {q0}, asr #8",
            "pkhtb {q1}, {q3}, {q1}, asr #8",
            "ldr {q2}, [{weights}], #4",
            // Codes 0 and 2 are stored with an offset of 128.
            "eor {q2}, {q2}, #0x00800080",
            "sxtb16 {q3}, {q2}",
            "sxtb16 {q2}, {q2}, ror #8",
            "smuad {q0}, {q0}, {q3}",
            "smlad {q0}, {q1}, {q2}, {q0}",
            "str {q0}, [{sums}], #4",
            "cmp {last}, {end}",
            "bne 2b",
            before = inout(reg) before.as_ptr() => _,
            last = inout(reg) last.as_ptr() => _,
            weights = inout(reg) weights.as_ptr() => _,
            sums = inout(reg) sums.as_mut_ptr() => _,
            channels = in(reg) sums.len(),
            end = in(reg) last.as_ptr_range().end,
            even = in(reg) even,
            odd = in(reg) odd,
            q0 = out(reg) _, q1 = out(reg) _, q2 = out(reg) _, q3 = out(reg) _,
            options(nostack),
        );
    }
}
