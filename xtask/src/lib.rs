//! `cargo xtask` as a library, so that the whole-path tests build firmware, run it in QEMU and
//! compare it with the host through the same code.
//!
//! - [`firmware`]: builds `firmware-example` for a blob and a job.
//! - [`qemu`]: runs it and decodes its output.
//! - [`mod@reference`]: the same job on the host.
//! - [`mod@bench`]: instruction counts and code size on emulated targets, against a baseline.
//! - [`reproducible`]: compares the firmware's image from two directories.
//! - [`setup`], [`demo`], [`frontier`], [`checks`]: the other subcommands.
//! - [`unicode`]: the table of characters of the core's tokenizer.
//! - [`terminal`]: printing, for all of them.

#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
mod board;
pub mod checks;
pub mod demo;
pub mod emulator;
pub mod firmware;
pub mod frontier;
pub mod process;
pub mod qemu;
pub mod reference;
pub mod reproducible;
pub mod setup;
mod steps;
pub mod terminal;
pub mod tools;
pub mod unicode;

pub use board::Board;

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> &'static Path {
    // The manifest is in `xtask/`.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ has a parent")
}

/// Directory of builds and results: `CARGO_TARGET_DIR`, or `target/` in the repository.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}
