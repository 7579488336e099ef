//! Prologue and epilogue of naked functions in Thumb-1 assembly (Cortex-M0, M0+, M23).

/// Saves the caller's registers.
macro_rules! save_registers {
    () => {
        "push {{r4, r5, r6, r7, lr}}
        mov r4, r8
        mov r5, r9
        mov r6, r10
        mov r7, r11
        push {{r4, r5, r6, r7}}
        "
    };
}

/// Restores them and returns.
macro_rules! return_with_registers {
    () => {
        "
        pop {{r4, r5, r6, r7}}
        mov r8, r4
        mov r9, r5
        mov r10, r6
        mov r11, r7
        pop {{r4, r5, r6, r7, pc}}"
    };
}
