//! Conversions of halves, whose intrinsics are not stable. They are exact or round to nearest even,
//! whatever the processor does with subnormal floats.

use core::arch::aarch64::*;
use core::arch::asm;

use half::f16;

use crate::kernels::portable;
use crate::numeric::RESIDUAL_FRAC;

/// Eight finite halves as floats, exactly.
#[inline(always)]
pub(super) fn widen(halves: &[u8; 16]) -> [float32x4_t; 2] {
    let (low, high);
    // SAFETY: the whole array is loaded; the instructions are part of NEON and only compute.
    unsafe {
        let halves = vld1q_u8(halves.as_ptr());
        asm!("fcvtl {:v}.4s, {:v}.4h", out(vreg) low, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
        asm!("fcvtl2 {:v}.4s, {:v}.8h", out(vreg) high, in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags));
    }
    [low, high]
}

/// See [`crate::kernels::dispatch::to_halves`]: both conversions round to nearest even.
pub(in crate::kernels) fn to_halves(values: &[i32], halves: &mut [f16]) {
    for (values, halves) in values.chunks(4).zip(halves.chunks_mut(4)) {
        let (Some(four), 4) = (values.first_chunk::<4>(), halves.len()) else {
            portable::to_halves(values, halves);
            continue;
        };
        // SAFETY: four values are loaded and four halves stored, which are there; the instructions
        // are part of NEON.
        unsafe {
            let floats = vcvtq_n_f32_s32::<{ RESIDUAL_FRAC as i32 }>(vld1q_s32(four.as_ptr()));
            let converted: uint16x4_t;
            asm!("fcvtn {:v}.4h, {:v}.4s", out(vreg) converted, in(vreg) floats,
                options(pure, nomem, nostack, preserves_flags));
            vst1_u16(halves.as_mut_ptr().cast(), converted);
        }
    }
}
