//! The innermost loop for ARMv6-M (Cortex-M0, M0+).

use core::arch::naked_asm;

use super::units::Unit;

/// Sum of a unit with two words of nibbles.
pub(super) fn nibbles(unit: &Unit, [first, second]: [u32; 2]) -> i32 {
    // SAFETY: the function reads the words of the unit, in the order of its fields.
    unsafe { unit_of_nibbles(unit, first, second) }
}

/// Adds the products with the eight nibbles of `$word` to r4. r0: next coefficients, r3: mask, r5
/// and r6: coefficients, the first two loaded by `$load`.
macro_rules! unit_word {
    ($word:literal, $load:literal) => {
        concat!(
            $load,
            "\nmovs r7, ", $word, "\n",
            unit_word!(@pair "r5"),
            "lsrs r7, ", $word, ", #8\n",
            unit_word!(@pair "r6"),
            "ldm r0!, {{r5, r6}}\n",
            "lsrs r7, ", $word, ", #4\n",
            unit_word!(@pair "r5"),
            "lsrs r7, ", $word, ", #12\n",
            unit_word!(@pair "r6"),
        )
    };
    (@pair $coefficient:literal) => {
        concat!("ands r7, r3\nmuls r7, ", $coefficient, ", r7\nadds r4, r7\n")
    };
}

/// # Safety
///
/// Reads the words of the unit in the order of its fields.
#[unsafe(naked)]
unsafe extern "C" fn unit_of_nibbles(unit: &Unit, first: u32, second: u32) -> i32 {
    naked_asm!(
        "push {{r4, r5, r6, r7, lr}}",
        "ldr r3, =0x000f000f",
        unit_word!("r1", "ldm r0!, {{r4, r5, r6}}"),
        // Skips the place of the scale.
        unit_word!("r2", "adds r0, #4\nldm r0!, {{r5, r6}}"),
        "asrs r0, r4, #16
        pop {{r4, r5, r6, r7, pc}}
        .pool",
    )
}
