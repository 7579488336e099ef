//! From a checkpoint to a blob: fold, clip, balance, calibrate, rearrange, choose scales, encode,
//! assemble.
//!
//! ```text
//! Checkpoint ─▶ fold, clip, balance ─▶ Checkpoint
//! Checkpoint + calibration text ─▶ Calibration
//! Checkpoint + Calibration ─▶ arrange symmetries, divide ─▶ both again
//! Checkpoint + policy ─▶ Assignment
//! Checkpoint + Calibration + Assignment ─▶ encode ─▶ assemble ─▶ blob
//! ```
//!
//! The same checkpoint, text and seed give the same blob on the same kind of processor, on any
//! number of threads. On another kind they may not: the `gemm` crate chooses instructions and the
//! sizes of blocks by the processor and its caches, the C library its exponential, and FP32 sums
//! that differ in their last bits can move a code by one. What a blob computes is the same
//! everywhere.

pub mod balance;
pub mod calibration;
pub mod chain;
pub mod clip;
mod code_search;
pub mod decode;
pub mod division;
pub mod encode;
pub mod expectation;
pub mod fold;
mod grid;
pub mod input_shift;
mod integer;
mod source;
pub(crate) mod stored;
pub mod symmetry;
pub mod writer;

pub use source::{Origin, Source, TOOL};

#[cfg(test)]
pub(crate) mod tests;
