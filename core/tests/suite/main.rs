//! The core through its public interface: whole blobs, whole models, long chains.

mod bad_input;
mod blob;
mod chain;
mod golden;
mod inference;
mod random;
mod reference;
