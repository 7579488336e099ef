//! Dot products of four bytes, whose intrinsics are not stable.

use core::arch::aarch64::*;
use core::arch::asm;

/// Proof that this processor has SDOT and UDOT.
#[derive(Clone, Copy)]
pub(super) struct DotProducts(());

impl DotProducts {
    /// # Safety
    ///
    /// The processor has the dot products of Armv8.2.
    #[inline(always)]
    pub(super) const unsafe fn promised() -> Self {
        Self(())
    }

    /// Adds to each lane the products of its four bytes, all signed, or all unsigned if `RELU`.
    #[inline(always)]
    pub(super) fn dot<const RELU: bool>(
        self,
        mut sums: int32x4_t,
        a: uint8x16_t,
        b: uint8x16_t,
    ) -> int32x4_t {
        // SAFETY: the instructions only compute, and `self` is proof that the processor has them.
        unsafe {
            if RELU {
                asm!(".arch_extension dotprod", "udot {:v}.4s, {:v}.16b, {:v}.16b",
                    inout(vreg) sums, in(vreg) a, in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags));
            } else {
                asm!(".arch_extension dotprod", "sdot {:v}.4s, {:v}.16b, {:v}.16b",
                    inout(vreg) sums, in(vreg) a, in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
        sums
    }

    /// As [`DotProducts::dot`], of the four bytes of lane `LANE` of `b` in every lane.
    #[inline(always)]
    pub(super) fn dot_by_lane<const RELU: bool, const LANE: usize>(
        self,
        mut sums: int32x4_t,
        a: uint8x16_t,
        b: uint8x16_t,
    ) -> int32x4_t {
        const { assert!(LANE < 4) };
        // SAFETY: as above.
        unsafe {
            if RELU {
                asm!(".arch_extension dotprod", "udot {:v}.4s, {:v}.16b, {:v}.4b[{lane}]",
                    inout(vreg) sums, in(vreg) a, in(vreg) b, lane = const LANE,
                    options(pure, nomem, nostack, preserves_flags));
            } else {
                asm!(".arch_extension dotprod", "sdot {:v}.4s, {:v}.16b, {:v}.4b[{lane}]",
                    inout(vreg) sums, in(vreg) a, in(vreg) b, lane = const LANE,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
        sums
    }
}
