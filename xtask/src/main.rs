//! `cargo xtask`.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

mod cli;

fn main() -> ExitCode {
    cli::main()
}
