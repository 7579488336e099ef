//! The board: everything that a move to other hardware changes, together with `memory.x`.
//!
//! A board module brings
//!
//! - a global `defmt` logger and a critical section, by naming the crates that define them;
//! - [`TICK`]: what one tick of the core's SysTick timer stands for;
//! - [`protect_stack`]: nothing, where an access below RAM faults by itself;
//! - [`exit`]: how a run ends.

mod mps2_an386;

pub use mps2_an386::{NAME, TICK, exit, protect_stack};
