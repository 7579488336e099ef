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
//! number of threads. Other processors may give another blob: the `gemm` crate selects instructions
//! and block sizes by processor and cache, the exponential comes from the C library, and FP32 sums
//! that differ in the last bits can change a code by one. Inference with a given blob is the same
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
mod metric;
mod source;
pub(crate) mod stored;
pub mod substitute;
pub mod symmetry;
pub mod writer;

pub use source::{Origin, Source, TOOL};

#[cfg(test)]
pub(crate) mod tests;
