//! What the programs of this workspace tell each other.
//!
//! `resnet-bk` prints JSON that `cargo xtask` reads, and `cargo xtask` passes storages and steps on
//! its command line. Both take them from here. The crate depends on `core` and `serde` alone, so
//! that `cargo xtask` starts without compiling the tools.
//!
//! - [`Storage`], [`Ladder`]: how policies and tables spell precisions.
//! - [`Step`], [`Steps`]: the steps of post-training quantization.
//! - [`statistics`]: standard errors by the jackknife.
//! - [`outputs`]: what commands print with `--json`.

pub mod blocks;
mod ladder;
pub mod outputs;
pub mod statistics;
mod steps;
mod storage;

pub use ladder::Ladder;
pub use steps::{Step, Steps};
pub use storage::Storage;
