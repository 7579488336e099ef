//! A vector's codes in other formats.

use alloc::vec::Vec;
use core::arch::aarch64::*;

use super::decode::SIXTEEN;

/// Elements padded with zeros.
#[inline(always)]
pub(super) fn padded<T: Copy + Default, const N: usize>(rest: &[T]) -> [T; N] {
    let mut padded = [T::default(); N];
    padded[..rest.len()].copy_from_slice(rest);
    padded
}

/// Sixteen codes as bytes, and lane j of their sums: code j plus code j + 8.
#[inline(always)]
pub(super) fn narrow(codes: &[i16; SIXTEEN], bytes: &mut [u8; SIXTEEN]) -> int16x8_t {
    // SAFETY: NEON is part of the target, and all that is loaded and stored is within the arrays.
    unsafe {
        let low = vld1q_s16(codes.as_ptr());
        let high = vld1q_s16(codes.as_ptr().add(8));
        vst1q_u8(bytes.as_mut_ptr(), vreinterpretq_u8_s8(vmovn_high_s16(vmovn_s16(low), high)));
        vaddq_s16(low, high)
    }
}

/// Codes as bytes, padded to whole registers, and their sum.
pub(super) fn to_bytes(codes: &[i16]) -> (Vec<[u8; SIXTEEN]>, i32) {
    let mut bytes = alloc::vec![[0; SIXTEEN]; codes.len().div_ceil(SIXTEEN)];
    let (sixteens, rest) = codes.as_chunks();
    // SAFETY: NEON is part of the target.
    let mut sums = unsafe { vdupq_n_s32(0) };
    let mut add = |codes: &[i16; SIXTEEN], bytes: &mut [u8; SIXTEEN]| {
        let both = narrow(codes, bytes);
        // SAFETY: as above.
        sums = unsafe { vpadalq_s16(sums, both) };
    };
    for (codes, bytes) in sixteens.iter().zip(&mut bytes) {
        add(codes, bytes);
    }
    if !rest.is_empty()
        && let Some(last) = bytes.last_mut()
    {
        add(&padded(rest), last);
    }
    // SAFETY: as above.
    (bytes, unsafe { vaddvq_s32(sums) })
}

/// Eight codes as floats.
#[inline(always)]
pub(super) fn floats(codes: &[i16; 8]) -> [float32x4_t; 2] {
    // SAFETY: NEON is part of the target, and the whole array is loaded.
    unsafe {
        let codes = vld1q_s16(codes.as_ptr());
        let low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(codes)));
        [low, vcvtq_f32_s32(vmovl_high_s16(codes))]
    }
}
