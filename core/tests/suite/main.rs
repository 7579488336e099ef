//! Tests of the core through its public interface: whole blobs, whole models, long chains.

mod bad_input;
mod blob;
mod chain;
mod codec;
mod dims;
mod golden;
mod inference;
mod kernels;
mod pieces;
mod random;
mod reference;
mod snapshot;
#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod subnormals;
