//! QEMU's `mps2-an386`: a Cortex-M4F at 25 MHz with 4 MB each for code and data.

// This crate also defines the critical section of a single core.
use cortex_m::peripheral::MPU;
// Defines the logger: frames go to QEMU's standard output.
use defmt_semihosting as _;

/// Name of the board.
pub const NAME: &str = "QEMU mps2-an386, Cortex-M4F";

/// Instructions in eight ticks of SysTick. With `-icount shift=0` every instruction takes a
/// nanosecond of virtual time, and a 25 MHz tick takes forty: the count is exact to a tick and
/// reproducible. On hardware SysTick counts clock cycles, so set this to 8 and read cycles.
pub const INSTRUCTIONS_IN_8_TICKS: u64 = 320;

/// Makes accesses below RAM fault. Most hardware does so anyway, but QEMU ignores such writes, so
/// that a stack overflow would go unnoticed.
pub fn protect_stack(mpu: MPU) {
    /// 16 MB that end where RAM begins, at 0x2000_0000.
    const BASE: u32 = 0x1f00_0000;
    /// No access and no execution (bit 28), 2^(23 + 1) bytes (bits 5 to 1), enabled (bit 0).
    const ATTRIBUTES: u32 = 1 << 28 | 23 << 1 | 1;
    /// Enables the MPU (bit 0) with the default memory map elsewhere (bit 2).
    const CONTROL: u32 = 1 << 2 | 1;
    // SAFETY: nothing of the program lies in the region, and nothing else sets up the unit.
    unsafe {
        mpu.rnr.write(0);
        mpu.rbar.write(BASE);
        mpu.rasr.write(ATTRIBUTES);
        mpu.ctrl.write(CONTROL);
    }
    cortex_m::asm::dsb();
    cortex_m::asm::isb();
}

/// Ends QEMU with this exit code.
pub fn exit(code: i32) -> ! {
    semihosting::process::exit(code)
}
