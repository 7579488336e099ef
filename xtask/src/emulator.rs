//! QEMU's programs and their location.

use std::path::PathBuf;
use std::process::Command;

use crate::process::exists;
use crate::target_dir;

/// The emulator for Arm.
pub const ARM: &str = "qemu-system-arm";

/// The emulator of programs for Linux on AArch64. QEMU has it on Linux only.
pub const AARCH64: &str = "qemu-aarch64";

/// The emulator for RISC-V.
pub const RISCV: &str = "qemu-system-riscv32";

/// Directory into which `cargo xtask setup` unpacks QEMU if it cannot install it.
pub(crate) fn directory() -> PathBuf {
    target_dir().join("qemu")
}

/// Command for an emulator: the unpacked one if present, else the system's.
pub(crate) fn command(program: &str) -> Command {
    unpacked(program).unwrap_or_else(|| Command::new(program))
}

/// Whether an emulator can be started.
pub(crate) fn is_there(program: &str) -> bool {
    unpacked(program).is_some() || exists(program)
}

/// The unpacked program with its libraries, if there is one.
fn unpacked(program: &str) -> Option<Command> {
    let root = directory();
    let file = root.join("usr/bin").join(program);
    if !file.is_file() {
        return None;
    }
    let mut command = Command::new(file);
    let triple = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = ["lib", "usr/lib"].map(|part| root.join(part).join(&triple));
    let others = std::env::var_os("LD_LIBRARY_PATH");
    let others = others.iter().flat_map(std::env::split_paths);
    if let Ok(path) = std::env::join_paths(libraries.into_iter().chain(others)) {
        command.env("LD_LIBRARY_PATH", path);
    }
    Some(command)
}
