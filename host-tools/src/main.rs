//! The `resnet-bk` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    resnet_bk_tools::cli::main()
}
