//! What rows of either precision have in common: their end, where a sum becomes an output.

use crate::blob::Tensor;
use crate::numeric::{RESIDUAL_FRAC, Scale};

/// What the end of a row needs, in the order of the registers that it is loaded to: r0 to r9, r11.
#[repr(C)]
pub(super) struct Rows {
    /// Next output.
    out: *mut i32,
    /// Its bias.
    biases: *const u8,
    /// Its scales.
    scales: *const u8,
    /// Mantissa of the vector's scale.
    mantissa: u32,
    /// Half of what is shifted out, less the 32 bits that are dropped before.
    half: u32,
    /// Bits that are shifted out after those.
    shift: u32,
    /// What one unit of a bias is in an output.
    bias_unit: u32,
    /// Bits that sums are raised by.
    raise: u32,
    /// What the kernel keeps in r8.
    pub(super) own: u32,
    /// End of the outputs.
    end: *mut i32,
    /// Coefficients of the vector.
    pub(super) coefficients: *const u32,
}

impl Rows {
    /// Outputs are the sums alone.
    pub(super) fn raw(matrix: &Tensor<'_>, out: &mut [i32]) -> Self {
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

    /// Outputs as [`super::portable`] rounds them, from sums below `bound` with `fraction` bits more than it
    /// sums. `None` where they could saturate or are shifted beyond what `finish!` can.
    ///
    /// A sum times both mantissas is below 2^62. With the 32 bits dropped and at least one shifted out, an
    /// output before its bias is below 2^29, and so is the bias.
    #[inline(never)]
    pub(super) fn new(
        matrix: &Tensor<'_>,
        scale: Scale,
        (fraction, bound): (u32, u32),
        out: &mut [i32],
    ) -> Option<Self> {
        let raise = bound.leading_zeros().saturating_sub(1);
        let shift = matrix.exponent - scale.exponent as i32 - RESIDUAL_FRAC as i32;
        let shift = shift + (fraction + raise) as i32 - 32;
        // Of a vector of zeros nothing is left to shift.
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

/// Puts [`Rows`] at r0 on the stack and into the registers of a row's end.
macro_rules! load {
    () => {
        "ldm r0, {{r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r11}}
        push {{r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r11}}"
    };
}

/// `load!` with r6 and r7, which cannot be named as operands, saved above.
macro_rules! begin {
    () => {
        concat!("push {{r6, r7}}\n", load!())
    };
}

/// The end of a row with its sum in r10: sum times mantissas, rounded, plus the bias. `$mantissa` loads the
/// row's mantissa to lr and moves r2 to the scales of the next one. Leaves the registers as `begin!` does,
/// and "equal" after the last row.
macro_rules! finish {
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

/// As `finish!`, but the sum itself is the output.
macro_rules! keep {
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

/// Takes what `begin!` put on the stack off it.
macro_rules! end {
    () => {
        "add sp, sp, #44
        pop {{r6, r7}}"
    };
}
