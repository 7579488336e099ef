//! Codes of scaled elements, four at a time: 4.25 instructions each, or 5 as bytes.

use core::arch::asm;

/// Half of what [`write`] and [`write_narrow`] shift out.
const HALF: u32 = 1 << 21;

/// The loop over all elements, four at a time in `a` to `d`, which `$store` packs and writes.
///
/// # Safety
///
/// Each of the n / 4 rounds, of which there is at least one, reads four elements and writes four
/// codes: there are n of both.
macro_rules! write_all {
    ($x:ident, $shift:ident, $reciprocal:ident, $codes:ident, $store:expr) => {
        asm!(
            "2:",
            "ldrd {a}, {b}, [{x}], #8",
            "ldrd {c}, {d}, [{x}], #8",
            "asr {a}, {a}, {shift}",
            "asr {b}, {b}, {shift}",
            "asr {c}, {c}, {shift}",
            "asr {d}, {d}, {shift}",
            "mla {a}, {a}, {reciprocal}, {half}",
            "mla {b}, {b}, {reciprocal}, {half}",
            "mla {c}, {c}, {reciprocal}, {half}",
            "mla {d}, {d}, {reciprocal}, {half}",
            $store,
            "cmp {x}, {end}",
            "bne 2b",
            x = inout(reg) $x.as_ptr() => _,
            codes = inout(reg) $codes.as_mut_ptr() => _,
            end = in(reg) $x.as_ptr_range().end,
            shift = in(reg) $shift,
            reciprocal = in(reg) $reciprocal,
            half = in(reg) HALF,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            options(nostack),
        )
    };
}

/// Writes `((x >> shift) · reciprocal + 2^21) >> 22`, as `kernels::codes` defines it; false, having
/// written nothing, for another number of elements than a multiple of four or codes that are not
/// aligned to words.
///
/// Shapes: `x` and `codes` are `[n]`. A product is at most 255 · 2^22.
#[inline(always)]
pub(in crate::kernels) fn write(x: &[i32], shift: u32, reciprocal: u32, codes: &mut [i16]) -> bool {
    let complete = complete(x, codes);
    if complete {
        // SAFETY: both slices have n elements, a multiple of four and not none, and `codes` is
        // aligned to words.
        unsafe {
            write_all!(
                x,
                shift,
                reciprocal,
                codes,
                "asr {b}, {b}, #6
                pkhtb {a}, {b}, {a}, asr #22
                asr {d}, {d}, #6
                pkhtb {c}, {d}, {c}, asr #22
                strd {a}, {c}, [{codes}], #8"
            );
        }
    }
    complete
}

/// [`write`] to bytes, of products of at most 127 · 2^22 in magnitude.
#[inline(always)]
pub(in crate::kernels) fn write_narrow(
    x: &[i32],
    shift: u32,
    reciprocal: u32,
    codes: &mut [i8],
) -> bool {
    let complete = complete(x, codes);
    if complete {
        // SAFETY: as in `write`. Bytes 0 and 2 are packed, then bytes 1 and 3.
        unsafe {
            write_all!(
                x,
                shift,
                reciprocal,
                codes,
                "asr {c}, {c}, #6
                pkhtb {a}, {c}, {a}, asr #22
                asr {d}, {d}, #6
                pkhtb {b}, {d}, {b}, asr #22
                uxtb16 {a}, {a}
                uxtb16 {b}, {b}
                orr {a}, {a}, {b}, lsl #8
                str {a}, [{codes}], #4"
            );
        }
    }
    complete
}

/// Writes the codes of elements relative to a mean, as `kernels::codes` defines them, and returns
/// the sum of squares; `None` where [`write`] returns false.
///
/// Shapes: `x` and `codes` are `[n]`.
#[inline(always)]
pub(in crate::kernels) fn write_centered(
    x: &[i32],
    mean: i32,
    shift: u32,
    reciprocal: u32,
    codes: &mut [i16],
) -> Option<i64> {
    // SAFETY: both slices have n elements, a multiple of four and not none, and `codes` is aligned
    // to words.
    complete(x, codes).then(|| unsafe { write_all_centered(x, mean, shift, reciprocal, codes) })
}

/// # Safety
///
/// Both slices have n elements, a multiple of four and not none, and `codes` is aligned to words.
#[inline(never)]
unsafe fn write_all_centered(
    x: &[i32],
    mean: i32,
    shift: u32,
    reciprocal: u32,
    codes: &mut [i16],
) -> i64 {
    let (low, high): (u32, i32);
    // SAFETY: each of the n / 4 rounds, of which there is at least one, reads four elements and
    // writes four codes. r6, which cannot be an operand, is saved and restored.
    unsafe {
        asm!(
            "push {{r6, r7}}",
            "2:",
            "ldrd r11, r12, [r0], #8",
            "ldrd lr, r6, [r0], #8",
            "qsub r11, r11, r3",
            "qsub r12, r12, r3",
            "qsub lr, lr, r3",
            "qsub r6, r6, r3",
            "asr r11, r11, r4",
            "asr r12, r12, r4",
            "asr lr, lr, r4",
            "asr r6, r6, r4",
            "smlal r9, r10, r11, r11",
            "smlal r9, r10, r12, r12",
            "smlal r9, r10, lr, lr",
            "smlal r9, r10, r6, r6",
            "mla r11, r11, r5, r8",
            "mla r12, r12, r5, r8",
            "mla lr, lr, r5, r8",
            "mla r6, r6, r5, r8",
            "asr r12, r12, #6",
            "pkhtb r11, r12, r11, asr #22",
            "asr r6, r6, #6",
            "pkhtb lr, r6, lr, asr #22",
            "strd r11, lr, [r2], #8",
            "cmp r0, r1",
            "bne 2b",
            "pop {{r6, r7}}",
            inout("r0") x.as_ptr() => _,
            in("r1") x.as_ptr_range().end,
            inout("r2") codes.as_mut_ptr() => _,
            in("r3") mean,
            in("r4") shift,
            in("r5") reciprocal,
            in("r8") HALF,
            inout("r9") 0u32 => low,
            inout("r10") 0i32 => high,
            out("r11") _, out("r12") _, out("lr") _,
        );
    }
    (high as i64) << 32 | low as i64
}

/// Whether elements and codes are as many, a multiple of four, and the codes aligned to words.
#[inline(always)]
fn complete<C>(x: &[i32], codes: &[C]) -> bool {
    let aligned = codes.as_ptr().addr().is_multiple_of(4);
    !x.is_empty() && x.len().is_multiple_of(4) && codes.len() == x.len() && aligned
}
