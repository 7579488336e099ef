//! Tests of the core through its public interface: whole blobs, whole models, long chains.

mod bad_input;
mod blob;
mod chain;
mod codec;
mod dims;
mod golden;
mod inference;
mod kernels;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod mxcsr;
mod pieces;
mod random;
mod reference;
mod snapshot;
