//! The layers of a block, each on activation codes and Q15.16 vectors.
//!
//! [`crate::Session`] and [`crate::Window`] are built from these. Slices must have the shapes that
//! a function states; otherwise it panics or its result is meaningless.

pub mod activation;
pub mod bk;
pub mod gate;
pub mod moe;
