//! Instruction counts from the SysTick timer.

use core::sync::atomic::{AtomicU32, Ordering};

use cortex_m::peripheral::SYST;
use cortex_m::peripheral::syst::SystClkSource;

use crate::board;

/// Period of the 24-bit down-counter.
const PERIOD: u32 = 1 << 24;

static WRAPS: AtomicU32 = AtomicU32::new(0);

/// The timer, running.
pub struct Meter(());

impl Meter {
    /// Starts the timer.
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(PERIOD - 1);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        Self(())
    }

    /// Instructions since the start, in steps of a tick.
    pub fn instructions(&self) -> u64 {
        loop {
            let wraps = WRAPS.load(Ordering::Relaxed);
            let left = SYST::get_current();
            if wraps == WRAPS.load(Ordering::Relaxed) {
                // The interrupt fires when the count reaches 0, so a period runs from 0 to 1.
                let ticks = PERIOD.wrapping_sub(left) % PERIOD;
                let ticks = u64::from(wraps) * u64::from(PERIOD) + u64::from(ticks);
                return ticks * board::INSTRUCTIONS_IN_8_TICKS / 8;
            }
        }
    }
}

#[cortex_m_rt::exception]
fn SysTick() {
    // Only this handler writes, so the update need not be atomic (a Cortex-M0 has no atomic
    // read-modify-write).
    WRAPS.store(WRAPS.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}
