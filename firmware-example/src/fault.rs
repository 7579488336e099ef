//! How a run ends that should not: with a line that says why and an exit code, never by hanging.

use core::arch::naked_asm;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::board;
use crate::memory::stack_end;

/// Exit code of a panic.
const PANIC: i32 = 101;
/// Exit code of a fault.
const FAULT: i32 = 134;
/// Room that the fault handler wants. With less left, the stack is taken to have overflowed.
const MARGIN: usize = 512;
/// Index of the program counter in the frame that the core pushes at an exception.
const FRAME_PC: usize = 6;

/// Set by the first panic: a second one, out of the logger say, ends the run without another word.
static PANICKING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if !PANICKING.load(Ordering::Relaxed) {
        PANICKING.store(true, Ordering::Relaxed);
        // Without the formatted part of the message, the formatting code stays out of flash.
        let reason = info.message().as_str().unwrap_or("see the source");
        match info.location() {
            Some(at) => {
                defmt::error!("panic at {=str}:{=u32}: {=str}", at.file(), at.line(), reason)
            }
            None => defmt::error!("panic: {=str}", reason),
        }
    }
    board::exit(PANIC)
}

#[defmt::panic_handler]
fn defmt_panic() -> ! {
    board::exit(PANIC)
}

/// Hands the stack pointer at the fault to [`hard_fault`]. Where too little stack is left, that
/// runs on the stack from its top: nothing there is needed any more.
///
/// # Safety
///
/// Called by the core alone.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn HardFault() -> ! {
    naked_asm!(
        "mrs r0, msp",
        "ldr r1, =_stack_end + {margin}",
        "cmp r0, r1",
        "bhs 1f",
        "ldr r1, =_stack_start",
        "msr msp, r1",
        "1: bl {handler}",
        margin = const MARGIN,
        handler = sym hard_fault,
    )
}

extern "C" fn hard_fault(stack_pointer: *const u32) -> ! {
    if (stack_pointer as usize) < stack_end() as usize + MARGIN {
        defmt::error!("stack overflow: enlarge STACK in memory.x");
    } else {
        // SAFETY: the core has pushed a frame of eight words to the stack, all of it above the
        // stack's end.
        let pc = unsafe { stack_pointer.add(FRAME_PC).read() };
        defmt::error!("hard fault at {=u32:#010x}", pc);
    }
    board::exit(FAULT)
}

#[cortex_m_rt::exception]
unsafe fn DefaultHandler(interrupt: i16) -> ! {
    defmt::error!("interrupt {=i16} has no handler", interrupt);
    board::exit(FAULT)
}
