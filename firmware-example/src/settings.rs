//! What `build.rs` found in the blob and in the environment.

/// Puts bytes at a multiple of 16, which the blob's sections are aligned from.
#[repr(C, align(16))]
struct Aligned<T>(T);

include!(concat!(env!("OUT_DIR"), "/settings.rs"));
