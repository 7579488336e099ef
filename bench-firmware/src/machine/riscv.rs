//! RV32: the `minstret` counter of retired instructions.

use core::arch::asm;

pub(super) const BLOB: usize = 0x8010_0000;

/// Nothing to do: the counter always runs.
pub(super) fn start() {}

/// A point in the run.
#[derive(Clone, Copy)]
pub struct Moment(u32);

impl Moment {
    /// This one.
    #[inline(always)]
    pub fn now() -> Self {
        let count: u32;
        // SAFETY: reads a counter.
        unsafe { asm!("csrr {}, minstret", out(reg) count, options(nomem, nostack)) };
        Self(count)
    }

    /// Exact instructions from this moment to a later one; must be fewer than 2^32.
    pub fn instructions_until(self, later: Self) -> u64 {
        u64::from(later.0.wrapping_sub(self.0))
    }
}

unsafe extern "C" {
    static _stack_start: u32;
}

/// Top of the stack.
pub(super) fn stack_top() -> usize {
    &raw const _stack_start as usize
}

#[unsafe(export_name = "ExceptionHandler")]
fn exception(_: &riscv_rt::TrapFrame) -> ! {
    semihosting::println!("exception");
    super::exit(134)
}

/// A loop of two instructions per round.
pub(super) fn rounds(count: u32) {
    // SAFETY: counts a register down.
    unsafe {
        asm!("2: addi {0}, {0}, -1", "bnez {0}, 2b", inout(reg) count => _, options(nomem, nostack))
    }
}
