//! Shared by the programs that `cargo xtask bench` runs.
//!
//! - `products` checks every kernel against the portable one, bit for bit, and counts the
//!   instructions of complete matrix-vector products.
//! - `token` generates with the blob that QEMU loads, and counts whole tokens and their pieces.
//! - `messages` compresses and decompresses messages with it.
//! - `footprint` contains inference only: its sections are the code size of inference.
//!
//! They print lines for the host to parse, and exit with 0 on success.

#![no_std]

pub mod blob;
pub mod laps;
pub mod machine;
pub mod random;

/// Defines the program's entry point with the runtime of the architecture.
#[macro_export]
macro_rules! entry {
    ($run:path) => {
        /// Called by the runtime.
        #[cfg(target_arch = "arm")]
        #[cortex_m_rt::entry]
        fn main() -> ! {
            $run()
        }
        /// Called by the runtime.
        #[cfg(target_arch = "riscv32")]
        #[riscv_rt::entry]
        fn main() -> ! {
            $run()
        }
    };
}
