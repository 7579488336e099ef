//! The emulated machine: its instruction counter, its stack, and how a run ends.

#[cfg(target_arch = "arm")]
mod arm;
#[cfg(target_arch = "riscv32")]
mod riscv;

#[cfg(target_arch = "arm")]
use arm as machine;
#[cfg(target_arch = "riscv32")]
use riscv as machine;

pub use machine::Moment;

/// Address at which QEMU puts the blob, if any.
pub const BLOB: usize = machine::BLOB;

/// Ends the run.
pub fn exit(code: i32) -> ! {
    semihosting::process::exit(code)
}

/// Starts the counter and validates it against a loop of known length, since a wrong clock rate
/// would invalidate every figure.
pub fn start() {
    const ROUNDS: u32 = 100_000;
    machine::start();
    let started = Moment::now();
    machine::rounds(ROUNDS);
    let counted = started.instructions_until(Moment::now());
    // Tolerance: two ticks and the instructions around the loop.
    let allowed = 2 * u64::from(ROUNDS)..2 * u64::from(ROUNDS) + 150;
    if !allowed.contains(&(counted + 63)) {
        semihosting::println!("{ROUNDS} rounds of two instructions count {counted}");
        exit(1);
    }
}

/// Bytes below the stack pointer that are painted.
const WATCHED: usize = 16 << 10;
/// Pattern of unused stack.
const PAINT: u32 = 0x5bad_57ac;

/// A painted region of the stack, to measure its high-water mark.
pub struct Paint {
    bottom: *mut u32,
}

impl Paint {
    /// Paints the stack below the caller.
    #[inline(never)]
    pub fn new() -> Self {
        let here = 0u32;
        // Margin for the frame of this function.
        let top = ((&raw const here as usize) & !7) - 128;
        let bottom = (top - WATCHED) as *mut u32;
        for index in 0..WATCHED / 4 {
            // SAFETY: the machines have more than `WATCHED` bytes below the stack pointer, and
            // without interrupts nothing uses them.
            unsafe { bottom.add(index).write_volatile(PAINT) };
        }
        Self { bottom }
    }

    /// High-water mark of the stack since painting, in bytes from its top.
    pub fn high_water(&self) -> usize {
        // SAFETY: as above; the memory may be in use as stack by now, but is only read.
        let painted = |&index: &usize| unsafe { self.bottom.add(index).read_volatile() } == PAINT;
        let free = (0..WATCHED / 4).take_while(painted).count();
        machine::stack_top() - (self.bottom as usize + 4 * free)
    }
}

impl Default for Paint {
    fn default() -> Self {
        Self::new()
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    semihosting::println!("{info}");
    exit(101)
}
