//! QEMU's `microbit`: a Cortex-M0 at 16 MHz, with more memory than the chip (4 MB of flash, 1 MB of
//! RAM), for any blob.

// This crate also defines the critical section of a single core.
use cortex_m::peripheral::MPU;
// Defines the logger: frames go to QEMU's standard output.
use defmt_semihosting as _;

/// Name of the board.
pub const NAME: &str = "QEMU microbit, Cortex-M0";

/// Instructions in eight ticks of SysTick: 62.5 nanoseconds each, with one instruction per
/// nanosecond. On hardware set this to 8 and read cycles.
pub const INSTRUCTIONS_IN_8_TICKS: u64 = 500;

/// Nothing: accesses below RAM fault.
pub fn protect_stack(_: MPU) {}

/// Ends QEMU with this exit code.
pub fn exit(code: i32) -> ! {
    semihosting::process::exit(code)
}
