//! Panics and faults: log the cause and exit with a code instead of hanging.

use core::arch::naked_asm;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use crate::board;
use crate::memory::stack_end;

/// Exit code of a panic.
const PANIC: i32 = 101;
/// Exit code of a fault.
const FAULT: i32 = 134;
/// Stack that the fault handler needs. With less left, a stack overflow is assumed.
const MARGIN: usize = 512;
/// Index of the program counter in the frame that the core pushes at an exception.
const FRAME_PC: usize = 6;

/// Set by the first panic: a nested one, for example from the logger, exits silently.
static PANICKING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    if !PANICKING.load(Ordering::Relaxed) {
        PANICKING.store(true, Ordering::Relaxed);
        // Without formatted messages, the formatting code is not linked.
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

/// Passes the stack pointer at the fault to [`hard_fault`]. If too little stack is left, the stack
/// pointer is first reset to the top, overwriting frames that are no longer needed.
///
/// # Safety
///
/// Must only be called by the core.
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
        defmt::error!("stack overflow: enlarge STACK in the board's memory map");
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
