//! The layers of a block, on activation codes and Q15.16 vectors.
//!
//! Slices must have the documented shapes; otherwise a function panics or returns garbage.

pub mod activation;
pub mod bk;
pub mod gate;
pub mod moe;
