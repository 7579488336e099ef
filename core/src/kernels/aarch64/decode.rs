//! Decoding of grouped codes with NEON, sixteen inputs at a time.

use core::arch::aarch64::*;

use crate::blob::{Plane, Precision, Tensor};
use crate::kernels::batched;
use crate::kernels::portable::group_scale;

/// Inputs of a register of bytes.
pub(super) const SIXTEEN: usize = 16;

/// A grouped storage.
pub(super) trait Storage {
    /// Which.
    const PRECISION: Precision;
    /// The signed plane.
    const HIGH: Plane = Self::PRECISION.planes()[0];
    /// Bits of the plane below it; none for one plane.
    const LOW_BITS: usize = match Self::PRECISION.planes() {
        [_, low] => low.bits as usize,
        _ => 0,
    };
    /// What is added to codes so that they are not negative: at most 32.
    const OFFSET: u32 = 1 << (Self::PRECISION.bits() - 1);
    /// Turns the signed plane's bits into those of offset codes: flips the signs.
    const FLIPS: u16 = {
        let signs = if Self::HIGH.bits == 4 { 0x88 } else { 0xaa };
        let [even, odd] = Self::HIGH.offsets;
        u16::from_le_bytes([even ^ signs, odd ^ signs])
    };
}

macro_rules! storages {
    ($($name:ident),*) => {$(
        pub(super) struct $name;

        impl Storage for $name {
            const PRECISION: Precision = Precision::$name;
        }
    )*};
}
storages!(Int2, Int3, Int4, Int5, Int6);

/// Calls a function that is generic over a storage, its group and more, for a matrix that
/// [`fits`].
macro_rules! with_storage {
    ($matrix:expr, $function:ident $(, $more:ty)*; $($argument:expr),*) => {
        with_storage!(@groups $matrix, $function [$($more),*] ($($argument),*)
            Int2 Int3 Int4 Int5 Int6)
    };
    (@groups $matrix:expr, $function:ident $more:tt $arguments:tt $($name:ident)*) => {
        match ($matrix.precision, $matrix.group) {
            $(
                (crate::blob::Precision::$name, 16) => {
                    with_storage!(@call $function $name 16 $more $arguments)
                }
                (crate::blob::Precision::$name, 32) => {
                    with_storage!(@call $function $name 32 $more $arguments)
                }
                (crate::blob::Precision::$name, 64) => {
                    with_storage!(@call $function $name 64 $more $arguments)
                }
            )*
            _ => unreachable!("the matrix fits"),
        }
    };
    (@call $function:ident $name:ident $group:literal [$($more:ty),*] ($($argument:expr),*)) => {
        $function::<crate::kernels::aarch64::decode::$name, $group $(, $more)*>($($argument),*)
    };
}
pub(super) use with_storage;

/// Whether a matrix has groups of 16, 32 or 64 inputs that divide the row.
#[inline(always)]
pub(super) fn fits(matrix: &Tensor<'_>) -> bool {
    let Tensor { precision, group, cols, .. } = *matrix;
    precision.is_grouped() && matches!(group, 16 | 32 | 64) && cols.is_multiple_of(group)
}

/// Where the planes of some group of a row begin.
#[derive(Clone, Copy)]
pub(super) struct Planes {
    high: *const u8,
    low: *const u8,
}

impl Planes {
    /// Those of the first group of a row of `cols` codes.
    ///
    /// # Safety
    ///
    /// The row has as many bytes as a storage `S` of groups that divide `cols` gives it.
    #[inline(always)]
    pub(super) unsafe fn first<S: Storage>(row: *const u8, cols: usize) -> Self {
        // SAFETY: the signed plane is at most the row.
        Self { high: row, low: unsafe { row.add(cols * S::HIGH.bits as usize / 8) } }
    }

    /// Those `inputs` inputs later, whole groups.
    ///
    /// # Safety
    ///
    /// The row has these inputs.
    #[inline(always)]
    pub(super) unsafe fn later<S: Storage>(self, inputs: usize) -> Self {
        // SAFETY: both are within the row or at its end, as the caller says.
        unsafe {
            Self {
                high: self.high.add(inputs * S::HIGH.bits as usize / 8),
                low: self.low.add(inputs * S::LOW_BITS / 8),
            }
        }
    }

    /// Codes of inputs 16 · `t` to 16 · `t` + 15 of the group, plus the storage's offset.
    ///
    /// # Safety
    ///
    /// The row has the group, of `GROUP` inputs.
    #[inline(always)]
    pub(super) unsafe fn sixteen<S: Storage, const GROUP: usize>(self, t: usize) -> uint8x16_t {
        let bits = S::HIGH.bits as usize;
        // SAFETY: the bytes of the group, as the caller says.
        unsafe {
            let high = load(self.high, GROUP * bits / 8, t);
            let high = veorq_u8(high, vreinterpretq_u8_u16(vdupq_n_u16(S::FLIPS)));
            let high = fields(high, bits, GROUP * bits / 8, t);
            if S::LOW_BITS == 0 {
                return high;
            }
            let low = load(self.low, GROUP * S::LOW_BITS / 8, t);
            let low = fields(low, S::LOW_BITS, GROUP * S::LOW_BITS / 8, t);
            if S::LOW_BITS == 1 { vsliq_n_u8::<1>(low, high) } else { vsliq_n_u8::<2>(low, high) }
        }
    }
}

/// The bytes of a plane that sixteen inputs share, again and again if they are few.
///
/// # Safety
///
/// The group's `bytes` bytes are readable.
#[inline(always)]
unsafe fn load(group: *const u8, bytes: usize, t: usize) -> uint8x16_t {
    // SAFETY: as the caller says; no read needs alignment.
    unsafe {
        match bytes {
            2 => vreinterpretq_u8_u16(vdupq_n_u16(group.cast::<u16>().read_unaligned())),
            4 => vreinterpretq_u8_u32(vdupq_n_u32(group.cast::<u32>().read_unaligned())),
            8 => vreinterpretq_u8_u64(vdupq_n_u64(group.cast::<u64>().read_unaligned())),
            _ => vld1q_u8(group.add(SIXTEEN * t % bytes)),
        }
    }
}

/// The bits of each input, whose place depends on its lane of `bytes` inputs.
#[inline(always)]
fn fields(loaded: uint8x16_t, bits: usize, bytes: usize, t: usize) -> uint8x16_t {
    let (first, last) = (SIXTEEN * t / bytes, (SIXTEEN * t + SIXTEEN - 1) / bytes);
    // SAFETY: NEON is part of the target, and the whole array is loaded.
    unsafe {
        let shifted = match bits * first {
            _ if first != last => {
                let mut places = [0i8; SIXTEEN];
                for (j, place) in places.iter_mut().enumerate() {
                    *place = -((bits * ((SIXTEEN * t + j) / bytes)) as i8);
                }
                vshlq_u8(loaded, vld1q_s8(places.as_ptr()))
            }
            0 => loaded,
            1 => vshrq_n_u8::<1>(loaded),
            2 => vshrq_n_u8::<2>(loaded),
            3 => vshrq_n_u8::<3>(loaded),
            4 => vshrq_n_u8::<4>(loaded),
            5 => vshrq_n_u8::<5>(loaded),
            6 => vshrq_n_u8::<6>(loaded),
            _ => vshrq_n_u8::<7>(loaded),
        };
        if first == last && bits * (last + 1) == 8 {
            return shifted;
        }
        vandq_u8(shifted, vdupq_n_u8((1 << bits) - 1))
    }
}

/// As [`batched::decode`]: weights times their groups' scales. Storages that do not fit are decoded
/// portably.
#[inline]
pub(super) fn decode(matrix: &Tensor<'_>, scales: &[u8], row: &[u8], weights: &mut [i16]) {
    if !fits(matrix) || row.len() != matrix.layout().row_codes || weights.len() != matrix.cols {
        return batched::decode(matrix, scales, row, weights);
    }
    with_storage!(matrix, decode_groups; scales, row, weights)
}

/// A row of as many codes as there are weights.
fn decode_groups<S: Storage, const GROUP: usize>(scales: &[u8], row: &[u8], weights: &mut [i16]) {
    assert!(row.len() * 8 == weights.len() * S::PRECISION.bits() as usize);
    // SAFETY: by the assertion the row has the bytes of its groups, all of which divide it.
    let planes = unsafe { Planes::first::<S>(row.as_ptr(), weights.len()) };
    for (g, weights) in weights.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
        // SAFETY: one group for each of the weights; the weights have the lanes that are stored.
        unsafe {
            let planes = planes.later::<S>(g * GROUP);
            let scale = vdup_n_s8(group_scale(scales, g) as i8);
            for (t, weights) in weights.as_chunks_mut::<SIXTEEN>().0.iter_mut().enumerate() {
                let codes = vsubq_u8(planes.sixteen::<S, GROUP>(t), vdupq_n_u8(S::OFFSET as u8));
                let codes = vreinterpretq_s8_u8(codes);
                vst1q_s16(weights.as_mut_ptr(), vmull_s8(vget_low_s8(codes), scale));
                let high = vmull_s8(vget_high_s8(codes), scale);
                vst1q_s16(weights.as_mut_ptr().add(8), high);
            }
        }
    }
}
