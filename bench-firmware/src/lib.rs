//! What the programs that `cargo xtask bench` runs have in common.
//!
//! - `products` checks every kernel against the portable one, bit for bit, and counts the
//!   instructions of complete matrix-vector products.
//! - `token` generates with the blob that QEMU has put in memory, and counts whole tokens and their
//!   pieces.
//! - `footprint` is inference and nothing else: its sections are the code that a firmware pays for.
//!
//! They print lines of words and numbers for the host to read, and exit with 0 unless something is
//! wrong.

#![no_std]

pub mod blob;
pub mod laps;
pub mod machine;
pub mod random;

/// The program's entry, by the runtime of the architecture.
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
