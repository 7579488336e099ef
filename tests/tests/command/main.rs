//! The command line on real files: what a user types, what comes out, what is left behind.
//!
//! These tests are slow (a minute or two on two cores, at the workspace's optimized test profile):
//! each starts the command several times, and the command calibrates, measures and trains small
//! models.

mod arguments;
mod common;
mod options;
mod outputs;
mod refusals;
#[cfg(unix)]
mod terminal;
mod training_outputs;
mod whole_path;
