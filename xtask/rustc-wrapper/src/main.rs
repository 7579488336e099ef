//! `RUSTC_WRAPPER` of firmware builds: the compiler, with names of symbols that do not depend on
//! the directory.
//!
//! Cargo tells packages apart by a hash (`-C metadata`), which becomes part of every symbol's name.
//! That of a package outside the workspace, which `core` is for the firmware, covers its absolute
//! path; and by their names LLVM decides which of two equal functions to keep, and so where. For
//! packages of this repository the hash is replaced by their path from its root.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Variable with the root of the repository.
const ROOT: &str = "RESNET_BK_ROOT";
/// Variable with the caller's own wrapper, if any.
const WRAPPER: &str = "RESNET_BK_RUSTC_WRAPPER";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let package = package();
    let replaced = |argument: &OsString| match &package {
        Some(package) if is_metadata(argument) => metadata(package),
        _ => argument.clone(),
    };
    let mut line = env::var_os(WRAPPER).into_iter().chain(arguments.iter().map(replaced));
    let Some(program) = line.next() else {
        eprintln!("error: rustc-wrapper is started by cargo, with the compiler's command line");
        return ExitCode::from(2);
    };
    match Command::new(&program).args(line).status() {
        // A compiler ended by a signal has no code.
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1).into(),
        Err(error) => {
            eprintln!("error: cannot start {}: {error}", program.display());
            ExitCode::FAILURE
        }
    }
}

/// Path of the package from the root of the repository; none outside it.
fn package() -> Option<PathBuf> {
    let (package, root) = (env::var_os("CARGO_MANIFEST_DIR")?, env::var_os(ROOT)?);
    Path::new(&package).strip_prefix(root).ok().map(Path::to_path_buf)
}

fn is_metadata(argument: &OsStr) -> bool {
    argument.as_encoded_bytes().starts_with(b"metadata=")
}

fn metadata(package: &Path) -> OsString {
    let mut argument = OsString::from("metadata=");
    argument.push(package);
    argument
}
