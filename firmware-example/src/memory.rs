//! Memory use of the firmware, from linker symbols and stack painting.

use cortex_m_rt::STACK_PAINT_VALUE;

// Linker symbols: only their addresses are meaningful.
unsafe extern "C" {
    static _stack_end: u32;
    static _stack_start: u32;
    static __vector_table: u32;
    static __sidata: u32;
    static __sdata: u32;
    static __edata: u32;
    static __euninit: u32;
}

/// The lowest address of the stack.
pub(crate) fn stack_end() -> *const u32 {
    &raw const _stack_end
}

/// Bytes between two symbols.
fn span(start: *const u32, end: *const u32) -> usize {
    end as usize - start as usize
}

/// Bytes of statics: initialised, zeroed and uninitialised, including the session or the heap.
pub(crate) fn static_bytes() -> usize {
    span(&raw const __sdata, &raw const __euninit)
}

/// Bytes of flash: vectors, code, constants with the blob, and the initial values of statics.
pub(crate) fn flash_bytes() -> usize {
    let initial = span(&raw const __sdata, &raw const __edata);
    span(&raw const __vector_table, &raw const __sidata) + initial
}

/// High-water mark of the stack in bytes: everything whose paint from the reset handler is gone.
pub(crate) fn stack_high_water() -> usize {
    let (end, start) = (stack_end(), &raw const _stack_start);
    // SAFETY: the words between the two symbols are the stack, which is always valid memory, and
    // `index` stays below their number.
    let painted = |&index: &usize| unsafe { end.add(index).read_volatile() } == STACK_PAINT_VALUE;
    let words = span(end, start) / size_of::<u32>();
    span(end, start) - (0..words).take_while(painted).count() * size_of::<u32>()
}
