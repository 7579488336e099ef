//! Kernels: the loops that depend on the processor, above all matrix-vector products.
//!
//! The layers call `dispatch::matmul` and its like. `portable` is the specification; every
//! other kernel must return the same bits, which the tests of this module check on random and
//! extreme inputs, and `bench-firmware` on the emulated processors themselves. Only this folder may
//! contain `unsafe`.
//!
//! # Adding a kernel
//!
//! A folder for its code, and an entry in `table`. For Helium (MVE), say: `mve/` with a function
//! `kernel::Run`, a condition in `shapes` (or an existing one), and `Kernel { name: "Helium",
//! needs: Needs::Mve, … }` before `DSP` in `HERE`, under a `cfg` that `core/build.rs` sets by
//! probing one instruction. `Model::kernels`, the tests and the benchmarks then have it;
//! `choice_on` has it where `Core` gets such a core.
//!
//! # Order
//!
//! Modules import from modules before them only:
//!
//! 1. `choice`, `needs`, `vectors`, `parallel`, `matrix`, `stack`, `thumb1`: types and macros
//! 2. `portable`
//! 3. `codes`, `depthwise`; `shapes`, `requantize`, `batched`, `columns`, `single`: what several
//!    kernels share
//! 4. `dsp`; then `planes`, `swar`, `sparse`, `fpu`, `x86_64`, `aarch64`: the kernels
//! 5. `kernel`, then `table`
//! 6. `dispatch`
//!
//! Within a folder, `mod.rs` is last.

// Macros first.
#[cfg(arm_dsp)]
#[macro_use]
mod dsp;
#[cfg(thumb1)]
#[macro_use]
mod thumb1;

#[cfg(all(feature = "std", neon))]
mod aarch64;
#[cfg(feature = "std")]
mod batched;
pub(crate) mod choice;
pub(crate) mod codes;
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
mod columns;
pub(crate) mod depthwise;
pub(crate) mod dispatch;
#[cfg(arm_fpu)]
mod fpu;
pub(crate) mod kernel;
pub(crate) mod matrix;
mod needs;
#[cfg(feature = "std")]
pub(crate) mod parallel;
#[cfg(any(arm_dsp, swar, test))]
mod planes;
pub(crate) mod portable;
#[cfg(any(swar, test))]
mod requantize;
mod shapes;
#[cfg(all(feature = "std", any(target_arch = "x86_64", neon)))]
mod single;
#[cfg(any(arm_dsp, swar, test))]
mod sparse;
#[cfg(any(arm_dsp, swar, test))]
mod stack;
#[cfg(any(swar, test))]
mod swar;
pub(crate) mod table;
pub(crate) mod vectors;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
pub(crate) mod x86_64;

pub use choice::{Choice, Core, Reason};
#[cfg(feature = "std")]
pub use parallel::Parallel;

pub(crate) use depthwise::{Positions, convolve};

#[cfg(feature = "std")]
pub(crate) use dispatch::Prepared;
pub(crate) use dispatch::{half_step, matmul, row, to_halves, with_simd};
pub(crate) use matrix::Matrix;
pub(crate) use table::{choice, choice_on};
pub(crate) use vectors::Vectors;

#[cfg(all(feature = "std", neon))]
use aarch64 as host;
#[cfg(all(feature = "std", target_arch = "x86_64"))]
use x86_64 as host;

#[cfg(test)]
mod tests;
