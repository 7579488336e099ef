//! Registers of 512 bits: loads, stores and dot products that the kernels with AVX-512 VNNI share.

use core::arch::x86_64::*;

/// Bytes of a register.
pub(super) const BYTES: usize = 64;

/// Adds products of weights and codes to the lanes, the unsigned factor first, without saturation.
#[inline]
#[target_feature(enable = "avx512vnni")]
pub(super) fn dot<const RELU: bool>(sums: __m512i, weights: __m512i, codes: __m512i) -> __m512i {
    if RELU {
        _mm512_dpbusd_epi32(sums, codes, weights)
    } else {
        _mm512_dpbusd_epi32(sums, weights, codes)
    }
}

/// A mask of the first `count` bytes of a register, at most all.
#[inline(always)]
pub(super) fn first_bytes(count: usize) -> __mmask64 {
    __mmask64::MAX >> (BYTES - count.clamp(1, BYTES))
}

/// Loads 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T: bytemuck::NoUninit, const N: usize>(values: &[T; N]) -> __m512i {
    const { assert!(size_of::<[T; N]>() == BYTES) };
    // SAFETY: the array has as many bytes as are read, and the load needs no alignment.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

/// Stores 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn set<T: bytemuck::Pod, const N: usize>(values: &mut [T; N], lanes: __m512i) {
    const { assert!(size_of::<[T; N]>() == BYTES) };
    // SAFETY: the array has as many bytes as are written, all of which it may hold; the store needs
    // no alignment.
    unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), lanes) };
}
