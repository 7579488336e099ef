//! Detects subnormal floats through the control registers of x86-64 and AArch64.

use core::arch::asm;
use core::fmt::Debug;

/// Runs `work`, which takes subnormals for zero if `zeros`; returns the flags that it raised: of a
/// subnormal operand, and of a subnormal result.
///
/// Tests only: Rust does not specify floats in such a mode. The call of `work` is not inlined, so
/// that no float operation is moved across it.
#[cfg(target_arch = "x86_64")]
fn flags_of(zeros: bool, work: &mut dyn FnMut()) -> u64 {
    /// Exception flags of MXCSR: subnormal operand, underflow.
    const FLAGS: u32 = 1 << 1 | 1 << 4;
    /// Mode bits of MXCSR: denormals-are-zero, flush-to-zero.
    const ZEROS: u32 = 1 << 6 | 1 << 15;
    let (mut before, mut after) = (0u32, 0u32);
    // SAFETY: stores the register to a `u32`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack)) };
    let set = before & !FLAGS | if zeros { ZEROS } else { 0 };
    // SAFETY: changes only flags and the handling of subnormals; exceptions stay masked.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const set, options(nostack)) };
    core::hint::black_box(work)();
    // SAFETY: as above; restores the previous value.
    unsafe {
        asm!("stmxcsr [{}]", "ldmxcsr [{}]", in(reg) &raw mut after, in(reg) &raw const before,
            options(nostack));
    }
    u64::from(after & FLAGS)
}

/// The same. Operands raise a flag only where they are taken for zero.
#[cfg(target_arch = "aarch64")]
fn flags_of(zeros: bool, work: &mut dyn FnMut()) -> u64 {
    /// Exception flags of FPSR: subnormal operand, underflow.
    const FLAGS: u64 = 1 << 7 | 1 << 3;
    /// Mode bits of FPCR: flush-to-zero, also of halves.
    const ZEROS: u64 = 1 << 24 | 1 << 19;
    let (before, after): (u64, u64);
    // SAFETY: reads the mode, and clears the flags.
    unsafe { asm!("mrs {}, fpcr", "msr fpsr, xzr", out(reg) before, options(nostack)) };
    let set = before | if zeros { ZEROS } else { 0 };
    // SAFETY: changes only the handling of subnormals; exceptions stay masked.
    unsafe { asm!("msr fpcr, {}", in(reg) set, options(nostack)) };
    core::hint::black_box(work)();
    // SAFETY: as above; restores the previous value.
    unsafe {
        asm!("mrs {}, fpsr", "msr fpcr, {}", out(reg) after, in(reg) before, options(nostack));
    }
    after & FLAGS
}

/// Runs `work` with and without flushing of subnormals. The results must be equal, and no flag
/// raised.
pub(crate) fn in_every_setting<T: Default + Debug + PartialEq>(
    name: &str,
    work: &dyn Fn() -> T,
) -> T {
    let results = [false, true].map(|zeros| {
        let mut result = T::default();
        let flags = flags_of(zeros, &mut || result = work());
        assert_eq!(flags, 0, "{name}: a float operation met a subnormal");
        result
    });
    let [usual, zeros] = results;
    assert_eq!(usual, zeros, "{name}: subnormals are taken for zero");
    usual
}
