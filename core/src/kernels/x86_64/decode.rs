//! Decoding of grouped codes with AVX2.

use core::arch::x86_64::*;

use super::registers::load_i16 as load;
use crate::blob::{Plane, Tensor};
use crate::kernels::batched;
use crate::kernels::portable::{for_each_plane, group_scale};

/// Groups of 16, 32 or 64 inputs that divide the row; others are decoded portably.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn decode(matrix: &Tensor<'_>, scales: &[u8], row: &[u8], weights: &mut [i16]) {
    let group = matrix.group;
    if !matches!(group, 16 | 32 | 64) || !matrix.cols.is_multiple_of(group) {
        return batched::decode(matrix, scales, row, weights);
    }
    for_each_plane(matrix, row, |plane, packed| match (plane.bits, plane.bytes(group)) {
        (4, 8) => decode_plane::<4, 8>(plane, scales, packed, weights),
        (4, 16) => decode_plane::<4, 16>(plane, scales, packed, weights),
        (4, _) => decode_plane::<4, 32>(plane, scales, packed, weights),
        (2, 4) => decode_plane::<2, 4>(plane, scales, packed, weights),
        (2, 8) => decode_plane::<2, 8>(plane, scales, packed, weights),
        (2, _) => decode_plane::<2, 16>(plane, scales, packed, weights),
        (_, 2) => decode_plane::<1, 2>(plane, scales, packed, weights),
        (_, 4) => decode_plane::<1, 4>(plane, scales, packed, weights),
        (_, _) => decode_plane::<1, 8>(plane, scales, packed, weights),
    });
}

/// A plane with `BYTES` bytes per group: sixteen inputs are part of a lane or several lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn decode_plane<const BITS: usize, const BYTES: usize>(
    plane: &Plane,
    scales: &[u8],
    packed: &[u8],
    weights: &mut [i16],
) {
    let first = load(const { &lifts::<BITS, BYTES>() });
    let groups = packed.as_chunks::<BYTES>().0.iter();
    for (g, (bytes, weights)) in groups.zip(weights.chunks_exact_mut(BYTES * 8 / BITS)).enumerate()
    {
        let scale = (group_scale(scales, g) << plane.shift) as i16;
        for (t, weights) in weights.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let mut sixteen = [0; 16];
            for (j, byte) in sixteen.iter_mut().enumerate() {
                // A group has an even number of bytes.
                *byte = bytes[(16 * t + j) % BYTES] ^ plane.offsets[j % 2];
            }
            // Later lanes are higher by the bits of the lanes before.
            let before = _mm_cvtsi32_si128((16 * t / BYTES * BITS) as i32);
            let top = _mm256_mullo_epi16(load_bytes(&sixteen), _mm256_srl_epi16(first, before));
            put_fields::<BITS>(plane, top, scale, weights);
        }
    }
}

/// Factors that shift each lane of `BYTES` inputs to the top of 16 bits.
const fn lifts<const BITS: usize, const BYTES: usize>() -> [i16; 16] {
    let mut lifts = [0; 16];
    let mut j = 0;
    while j < 16 {
        lifts[j] = (1u16 << (16 - BITS - j / BYTES * BITS)) as i16;
        j += 1;
    }
    lifts
}

/// Multiplies the top `BITS` of 16 bits, signed or not, by the scale: the first plane of a row sets
/// the weights, a lower one adds to them.
#[inline]
#[target_feature(enable = "avx2")]
fn put_fields<const BITS: usize>(plane: &Plane, top: __m256i, scale: i16, weights: &mut [i16; 16]) {
    let drop = _mm_cvtsi32_si128(16 - BITS as i32);
    let scale = _mm256_set1_epi16(scale);
    let value = if plane.signed {
        _mm256_mullo_epi16(_mm256_sra_epi16(top, drop), scale)
    } else {
        _mm256_add_epi16(load(weights), _mm256_mullo_epi16(_mm256_srl_epi16(top, drop), scale))
    };
    // SAFETY: the 32 bytes of the array are writable, and the store needs no alignment.
    unsafe { _mm256_storeu_si256(weights.as_mut_ptr().cast(), value) };
}

/// Bytes as 16 bits each.
#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: the 16 bytes of the array are readable, and the load needs no alignment.
    _mm256_cvtepu8_epi16(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}
