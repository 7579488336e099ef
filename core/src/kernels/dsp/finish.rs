//! The end of rows whose sums [`crate::kernels::sparse`] has.

use core::arch::asm;

use super::keep_outputs;
use super::row::Rows;
use crate::blob::Tensor;
use crate::numeric::Scale;

/// Turns sums with `fraction` bits more than the portable kernel's, all below `bound`, into outputs.
///
/// # Safety
///
/// There are scales and biases of as many rows as outputs, more than none.
#[inline(always)]
pub(in crate::kernels) unsafe fn finish(
    matrix: &Tensor<'_>,
    scale: Scale,
    (fraction, bound): (u32, u32),
    out: &mut [i32],
) {
    let Some(mut rows) = Rows::new(matrix, scale, (fraction, bound), out) else {
        return keep_outputs(matrix, scale, fraction, out);
    };
    rows.own = matrix.layout().row_scales as u32;
    // SAFETY: as the caller says.
    unsafe { outputs(&rows) };
}

/// Turns sums that are where outputs belong into outputs.
///
/// # Safety
///
/// There are biases, and scales of `rows.own` bytes each, of as many rows as there are outputs, more than none.
#[inline(never)]
unsafe fn outputs(rows: &Rows) {
    // SAFETY: every row's end reads the row's scale and bias and writes its output. The caller vouches for these.
    // Beside the registers named below r6 and r7, which cannot be, are used and put back.
    unsafe {
        asm!(
            begin!(),
            "2:",
            "ldr r10, [r0]",
            finish!("ldrh lr, [r2]\nadd r2, r2, r8"),
            "bne 2b",
            end!(),
            inout("r0") core::ptr::from_ref(rows) => _,
            out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _, out("r8") _,
            out("r9") _, out("r10") _, out("r11") _, out("lr") _,
        );
    }
}
