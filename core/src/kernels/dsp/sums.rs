//! Requantization of sums that [`crate::kernels::sparse`] has computed.

use core::arch::asm;

use super::row::{Rows, requantize_portably};
use crate::blob::Tensor;
use crate::numeric::Scale;

/// Requantizes sums in place: `fraction` bits above the portable kernel's, all below `bound`.
///
/// # Safety
///
/// There are scales and biases of as many rows as outputs, more than none.
#[inline(always)]
pub(in crate::kernels) unsafe fn requantize_sums(
    matrix: &Tensor<'_>,
    scale: Scale,
    (fraction, bound): (u32, u32),
    out: &mut [i32],
) {
    let Some(mut rows) = Rows::new(matrix, scale, (fraction, bound), out) else {
        return requantize_portably(matrix, scale, fraction, out);
    };
    rows.own = matrix.layout().row_scales as u32;
    // SAFETY: as the caller says.
    unsafe { requantize_rows(&rows) };
}

/// Requantizes sums in place.
///
/// # Safety
///
/// There are biases, and scales of `rows.own` bytes each, of as many rows as there are outputs,
/// more than none.
#[inline(never)]
unsafe fn requantize_rows(rows: &Rows) {
    // SAFETY: each row reads its scale and bias and writes its output; the caller vouches for all
    // three. Of the registers that cannot be operands, r6 and r7 are saved and restored.
    unsafe {
        asm!(
            begin!(),
            "2:",
            "ldr r10, [r0]",
            requantize_row!("ldrh lr, [r2]\nadd r2, r2, r8"),
            "bne 2b",
            end!(),
            inout("r0") core::ptr::from_ref(rows) => _,
            out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _,
            out("r9") _, out("r10") _, out("r11") _, out("lr") _,
        );
    }
}
