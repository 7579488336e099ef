//! The command line on real files: what a user types, what is printed, which files result.
//!
//! These tests are slow (a minute or two on two cores with the workspace's optimized test profile):
//! each runs the command several times, and the command calibrates, measures and trains small
//! models.

mod arguments;
mod common;
mod compression;
mod gated;
mod importance;
mod imports;
mod options;
mod outputs;
mod refusals;
#[cfg(unix)]
mod terminal;
mod texts;
mod training_outputs;
mod whole_path;
