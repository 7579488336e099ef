//! Cortex-M: the SysTick timer.

use core::arch::asm;

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{Peripherals, SYST};

pub(super) const BLOB: usize = 0x0010_0000;

/// With `-icount shift=0` an instruction takes a nanosecond of virtual time, so a tick of 25 MHz
/// (mps2) is forty of them and one of 16 MHz (microbit, the machine with an ARMv6-M core) 62.5.
/// [`super::start`] validates this.
const INSTRUCTIONS_IN_8_TICKS: u64 = if cfg!(microbit) { 500 } else { 320 };
/// Period of the 24-bit down-counter.
const MASK: u32 = (1 << 24) - 1;

/// Starts the counter.
pub(super) fn start() {
    let Some(peripherals) = Peripherals::take() else { return };
    let mut timer = peripherals.SYST;
    timer.set_clock_source(SystClkSource::Core);
    timer.set_reload(MASK);
    timer.clear_current();
    timer.enable_counter();
}

/// A point in the run.
#[derive(Clone, Copy)]
pub struct Moment(u32);

impl Moment {
    /// This one.
    #[inline(always)]
    pub fn now() -> Self {
        Self(SYST::get_current())
    }

    /// Instructions from this moment to a later one, exact to a tick; must be fewer than 2^24
    /// ticks.
    pub fn instructions_until(self, later: Self) -> u64 {
        u64::from(self.0.wrapping_sub(later.0) & MASK) * INSTRUCTIONS_IN_8_TICKS / 8
    }
}

unsafe extern "C" {
    static _stack_start: u32;
}

/// Top of the stack.
pub(super) fn stack_top() -> usize {
    &raw const _stack_start as usize
}

#[cortex_m_rt::exception]
unsafe fn HardFault(frame: &cortex_m_rt::ExceptionFrame) -> ! {
    semihosting::println!("hard fault at {:#010x}", frame.pc());
    super::exit(134)
}

/// A loop of two instructions per round.
pub(super) fn rounds(count: u32) {
    // SAFETY: counts a register down.
    unsafe { asm!("2: subs {0}, #1", "bne 2b", inout(reg) count => _, options(nomem, nostack)) }
}
