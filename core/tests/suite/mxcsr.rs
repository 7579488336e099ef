//! Detects subnormal floats through the x86 control register MXCSR.

use core::arch::asm;
use core::fmt::Debug;

/// Exception flags of MXCSR: subnormal operand, underflow.
const FLAGS: u32 = 1 << 1 | 1 << 4;
/// Mode bits of MXCSR: denormals-are-zero, flush-to-zero.
const ZEROS: u32 = 1 << 6 | 1 << 15;

/// Runs `work` with these additional bits of MXCSR set; returns the flags that it raised.
///
/// Tests only: Rust does not specify floats with a non-default MXCSR. The call of `work` is not
/// inlined, so that no float operation is moved across it.
fn with_mxcsr(bits: u32, work: &mut dyn FnMut()) -> u32 {
    let (mut before, mut after) = (0u32, 0u32);
    // SAFETY: stores the register to a `u32`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack)) };
    let set = before & !FLAGS | bits;
    // SAFETY: changes only flags and the handling of subnormals; exceptions stay masked.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const set, options(nostack)) };
    core::hint::black_box(work)();
    // SAFETY: as above; restores the previous value.
    unsafe {
        asm!("stmxcsr [{}]", "ldmxcsr [{}]", in(reg) &raw mut after, in(reg) &raw const before,
            options(nostack));
    }
    after & FLAGS
}

/// Runs `work` with and without flushing of subnormals. The results must be equal, and no flag
/// raised.
pub(crate) fn in_every_setting<T: Default + Debug + PartialEq>(
    name: &str,
    work: &dyn Fn() -> T,
) -> T {
    let results = [0, ZEROS].map(|bits| {
        let mut result = T::default();
        let flags = with_mxcsr(bits, &mut || result = work());
        assert_eq!(flags, 0, "{name}: a float operation met a subnormal");
        result
    });
    let [usual, zeros] = results;
    assert_eq!(usual, zeros, "{name}: subnormals are taken for zero");
    usual
}
