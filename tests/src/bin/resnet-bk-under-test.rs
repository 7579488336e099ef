//! The `resnet-bk` command, linked once more: cargo tells tests where the programs of their own
//! package are, and of no other.

use std::process::ExitCode;

fn main() -> ExitCode {
    resnet_bk_tools::cli::main()
}
