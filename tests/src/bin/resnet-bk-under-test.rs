//! The `resnet-bk` command as a program of this package: cargo tells tests the paths of their own
//! package's programs only.

use std::process::ExitCode;

fn main() -> ExitCode {
    resnet_bk_tools::cli::main()
}
