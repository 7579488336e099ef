//! Board support: the only code to change for other hardware, together with `memory.x`.
//!
//! A board module provides
//!
//! - a global `defmt` logger and a critical section, by importing the crates that define them;
//! - [`TICK`]: the unit of a SysTick tick;
//! - [`protect_stack`]: empty if accesses below RAM fault anyway;
//! - [`exit`]: how a run ends.

mod mps2_an386;

pub use mps2_an386::{NAME, TICK, exit, protect_stack};
