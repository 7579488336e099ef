//! Board support: the only code to change for other hardware, together with its memory map.
//!
//! A board module provides
//!
//! - a global `defmt` logger and a critical section, by importing the crates that define them;
//! - [`INSTRUCTIONS_IN_8_TICKS`]: the unit of SysTick;
//! - [`protect_stack`]: empty if accesses below RAM fault anyway;
//! - [`exit`]: how a run ends.
//!
//! `build.rs` chooses one of the two here, with its memory map, by the target.

#[cfg(microbit)]
mod microbit;
#[cfg(not(microbit))]
mod mps2_an386;

#[cfg(microbit)]
pub use microbit::{INSTRUCTIONS_IN_8_TICKS, NAME, exit, protect_stack};
#[cfg(not(microbit))]
pub use mps2_an386::{INSTRUCTIONS_IN_8_TICKS, NAME, exit, protect_stack};
