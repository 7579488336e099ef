//! What the processor is told to do with subnormal floats, and whether it met any.

use core::arch::asm;
use core::fmt::Debug;

/// Bits of MXCSR: an operand was subnormal, a result was and was rounded.
const FLAGS: u32 = 1 << 1 | 1 << 4;
/// Subnormal operands, and results, are taken for zero.
const ZEROS: u32 = 1 << 6 | 1 << 15;

/// Runs `work` with these bits of MXCSR set besides those that are; returns which flags it raised.
///
/// Rust promises nothing of floats in such a setting, and so it is for tests alone: `work` is a
/// call that is not inlined, so that no float operation is moved out of it.
fn with_mxcsr(bits: u32, work: &mut dyn FnMut()) -> u32 {
    let (mut before, mut after) = (0u32, 0u32);
    // SAFETY: the register is stored to a number of 32 bits.
    unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack)) };
    let set = before & !FLAGS | bits;
    // SAFETY: the bits are those that were set, but for flags and how subnormals are taken;
    // exceptions stay masked.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const set, options(nostack)) };
    core::hint::black_box(work)();
    // SAFETY: as above, and back to what was set before.
    unsafe {
        asm!("stmxcsr [{}]", "ldmxcsr [{}]", in(reg) &raw mut after, in(reg) &raw const before,
            options(nostack));
    }
    after & FLAGS
}

/// The results of `work`, which must be the same in every setting and raise no flag in the usual
/// one.
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
