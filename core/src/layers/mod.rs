//! The layers of a block, each on activation codes and Q15.16 vectors.
//!
//! These are the parts that [`crate::Session`] and [`crate::Window`] are made of. Slices must have
//! the shapes that a function states; with others it panics, or its result means nothing.

pub mod activation;
pub mod bk;
pub mod gate;
pub mod moe;
