//! Types shared between the programs of this workspace.
//!
//! `resnet-bk` prints JSON that `cargo xtask` reads, and `cargo xtask` passes storages and steps to
//! it on the command line. The crate depends only on `core` and `serde`, so that `cargo xtask`
//! starts without compiling the tools.
//!
//! - [`Storage`], [`Ladder`]: precisions as policies and tables spell them.
//! - [`Step`], [`Steps`]: the steps of post-training quantization.
//! - [`statistics`]: standard errors by the jackknife.
//! - [`outputs`]: the `--json` output of commands.
//! - [`frontier`]: size against quality, from `cargo xtask frontier` to `resnet-bk report`.

pub mod blocks;
pub mod frontier;
mod ladder;
pub mod outputs;
pub mod statistics;
mod steps;
mod storage;

pub use ladder::Ladder;
pub use steps::{Step, Steps};
pub use storage::Storage;
