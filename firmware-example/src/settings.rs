//! What `build.rs` found in the blob and in the environment.

include!(concat!(env!("OUT_DIR"), "/settings.rs"));
