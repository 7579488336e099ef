//! The layers of a block, on activation codes and Q15.16 vectors.
//!
//! Slices must have the documented shapes; otherwise a function panics or its result is
//! unspecified.

pub mod activation;
pub mod bk;
pub mod convolution;
pub mod gate;
pub mod memory;
pub mod moe;
