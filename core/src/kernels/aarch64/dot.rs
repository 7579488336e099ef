//! Dot products of four bytes, whose intrinsics are not stable.

use core::arch::aarch64::*;
use core::arch::asm;

/// Adds to each lane the products of its four bytes, signed.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn sdot(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the instruction only computes, and the function is for processors that have it.
    unsafe {
        asm!("sdot {:v}.4s, {:v}.16b, {:v}.16b", inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}

/// As [`sdot`], of unsigned bytes.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn udot(mut sums: int32x4_t, a: uint8x16_t, b: uint8x16_t) -> int32x4_t {
    // SAFETY: as for `sdot`.
    unsafe {
        asm!("udot {:v}.4s, {:v}.16b, {:v}.16b", inout(vreg) sums, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}
