//! The end of a row, where its sum is requantized: constants and assembly, shared by all kernels
//! with DSP.

use crate::blob::{Tensor, pair_u16};
use crate::kernels::portable;
use crate::numeric::{RESIDUAL_FRAC, Scale};

/// What the end of a row needs, in the order of the registers it is loaded into: r0 to r9, r11.
#[repr(C)]
pub(in crate::kernels) struct Rows {
    /// Next output.
    out: *mut i32,
    /// Its bias.
    biases: *const u8,
    /// Its scales.
    scales: *const u8,
    /// Mantissa of the vector's scale.
    mantissa: u32,
    /// Half of what is shifted out after the low 32 bits are dropped.
    half: u32,
    /// Bits that are shifted out after those.
    shift: u32,
    /// One unit of a bias, in an output.
    bias_unit: u32,
    /// Bits by which sums are shifted left.
    raise: u32,
    /// The kernel's own constant, in r8.
    pub(in crate::kernels) own: u32,
    /// End of the outputs.
    end: *mut i32,
    /// Coefficients of the vector.
    pub(in crate::kernels) coefficients: *const u32,
}

impl Rows {
    /// For outputs that are the sums themselves.
    pub(in crate::kernels) fn raw(matrix: &Tensor<'_>, out: &mut [i32]) -> Self {
        let range = out.as_mut_ptr_range();
        Self {
            out: range.start,
            biases: matrix.biases.as_ptr(),
            scales: matrix.scales.as_ptr(),
            mantissa: 0,
            half: 0,
            shift: 0,
            bias_unit: 0,
            raise: 0,
            own: 0,
            end: range.end,
            coefficients: core::ptr::null(),
        }
    }

    /// For outputs as [`portable::requantize`] rounds them, from sums below `bound`, `fraction`
    /// bits above the portable kernel's. `None` where an output could saturate or the shift is not
    /// one that `requantize_row!` can do.
    ///
    /// A sum times both mantissas is below 2^62. With the low 32 bits dropped and at least one
    /// shifted out, an output before its bias is below 2^29, and so is the bias.
    #[inline(never)]
    pub(in crate::kernels) fn new(
        matrix: &Tensor<'_>,
        scale: Scale,
        (fraction, bound): (u32, u32),
        out: &mut [i32],
    ) -> Option<Self> {
        let raise = bound.leading_zeros().saturating_sub(1);
        let shift = matrix.exponent - scale.exponent as i32 - RESIDUAL_FRAC as i32;
        let shift = shift + (fraction + raise) as i32 - 32;
        // A zero vector has any shift.
        let shift = if scale.mantissa == 0 { 1 } else { shift };
        let bias_shift = RESIDUAL_FRAC - matrix.bias_exponent;
        if !(1..=31).contains(&shift) || bias_shift > 14 {
            return None;
        }
        Some(Self {
            mantissa: scale.mantissa as u32,
            half: 1 << (shift - 1),
            shift: shift as u32,
            bias_unit: 1 << bias_shift,
            raise,
            ..Self::raw(matrix, out)
        })
    }
}

/// Requantizes sums in place that are `fraction` bits above the portable kernel's, whatever the
/// scales are.
#[inline(never)]
pub(super) fn requantize_portably(
    matrix: &Tensor<'_>,
    scale: Scale,
    fraction: u32,
    out: &mut [i32],
) {
    let scales = matrix.scales.chunks_exact(matrix.layout().row_scales);
    for (row, (out, scales)) in out.iter_mut().zip(scales).enumerate() {
        *out = portable::requantize(matrix, row, *out >> fraction, pair_u16(scales, 0), scale);
    }
}

/// Pushes the [`Rows`] at r0 and loads them into the registers of a row's end.
macro_rules! load {
    () => {
        "ldm r0, {{r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r11}}
        push {{r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r11}}"
    };
}

/// `load!` after saving r6 and r7, which cannot be operands.
macro_rules! begin {
    () => {
        concat!("push {{r6, r7}}\n", load!())
    };
}

/// Requantizes the sum in r10: times both mantissas, rounded, plus the bias. `$mantissa` loads the
/// row's mantissa into lr and moves r2 to the scales of the next row. Leaves the registers as
/// `begin!` does, and the flags "equal" after the last row.
macro_rules! requantize_row {
    ($mantissa:expr) => {
        concat!(
            "ldm sp, {{r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r11}}\n",
            "lsl r10, r10, r7\n",
            $mantissa,
            "\n",
            "mul lr, lr, r3\n",
            "smmla r10, r10, lr, r4\n",
            "asr r10, r10, r5\n",
            "ldrsh lr, [r1], #2\n",
            "mla r10, lr, r6, r10\n",
            "str r10, [r0], #4\n",
            "stm sp, {{r0, r1, r2}}\n",
            "cmp r0, r9\n",
        )
    };
}

/// As `requantize_row!`, but stores the sum itself.
macro_rules! store_sum {
    ($mantissa:expr) => {
        concat!(
            "ldm sp, {{r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r11}}\n",
            $mantissa,
            "\n",
            "str r10, [r0], #4\n",
            "stm sp, {{r0, r1, r2}}\n",
            "cmp r0, r9\n",
        )
    };
}

/// Undoes `begin!`.
macro_rules! end {
    () => {
        "add sp, sp, #44
        pop {{r6, r7}}"
    };
}
