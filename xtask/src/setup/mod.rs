//! Installs the repository's prerequisites besides cargo: Rust's embedded targets and QEMU.
//!
//! Installed parts are skipped, so a second run is immediate.

mod manager;
mod unpacked;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{exists, output, run, shown_path};
use crate::terminal::Stderr;
use crate::{emulator, root};
use manager::{APT, MANAGERS};

/// Every target that `core` is built for, including the firmware's and one without a multiply
/// instruction.
pub const TARGETS: [&str; 6] = [
    "thumbv6m-none-eabi",
    "thumbv7m-none-eabi",
    "thumbv7em-none-eabihf",
    "riscv32imc-unknown-none-elf",
    "riscv32imac-unknown-none-elf",
    "riscv32i-unknown-none-elf",
];

/// The target of tests for Linux on AArch64. It needs no linker but Rust's own.
pub const AARCH64: &str = "aarch64-unknown-linux-musl";

/// The emulators. The last one, for AArch64, is only for Linux ([`emulates_aarch64`]).
const EMULATORS: [&str; 3] = [emulator::ARM, emulator::RISCV, emulator::AARCH64];

/// Whether programs for Linux on AArch64 can be run here.
pub fn emulates_aarch64() -> bool {
    cfg!(target_os = "linux")
}

/// Installs what is missing.
pub fn run_setup() -> Result<()> {
    rust_targets()?;
    let count = EMULATORS.len() - usize::from(!emulates_aarch64());
    EMULATORS[..count].iter().enumerate().try_for_each(|(index, program)| install(index, program))
}

/// Installs Rust's targets with rustup.
fn rust_targets() -> Result<()> {
    let mut missing = Vec::new();
    let aarch64 = emulates_aarch64().then_some(AARCH64);
    for target in TARGETS.into_iter().chain(aarch64) {
        if !has_target(target)? {
            missing.push(target);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let targets = missing.join(" ");
    writeln!(Stderr, "setup: adding Rust targets {targets}");
    let mut command = Command::new("rustup");
    command.args(["target", "add"]).args(&missing).current_dir(root());
    run(&mut command).with_context(|| {
        format!(
            "Rust's standard library for {targets} is missing: run `rustup target add {targets}` \
             in this folder, or install it from where your Rust comes from, then try again"
        )
    })
}

/// Whether the active compiler has a target's standard library.
fn has_target(target: &str) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]).current_dir(root());
    let directory = String::from_utf8_lossy(&output(&mut rustc)?).trim().to_owned();
    Ok(Path::new(&directory).read_dir().is_ok_and(|mut files| files.next().is_some()))
}

/// Installs an emulator from the system's packages or, if those conflict with installed ones,
/// unpacks it separately. Never removes a package.
fn install(index: usize, program: &str) -> Result<()> {
    if emulator::is_there(program) {
        return Ok(());
    }
    let Some(manager) = MANAGERS.iter().find(|manager| exists(manager.program)) else {
        bail!(
            "{program} is missing and no supported package manager was found: install \
             QEMU's emulators from https://www.qemu.org/download, then try again"
        );
    };
    let package = manager.packages[index];
    writeln!(Stderr, "setup: installing {package} with {}", manager.program);
    let remedy = || {
        format!(
            "{program} is missing, and installing it may remove packages that you use: run `{}`, \
             which asks first, then try again",
            manager.by_hand(package)
        )
    };
    let mut installed = manager.install(package);
    if let (Err(_), Some(update)) = (&installed, manager.update) {
        writeln!(Stderr, "setup: fetching package lists first");
        // If the update fails, the retry fails, too, and reports the cause.
        let _ = run(&mut manager.command(update));
        installed = manager.install(package);
    }
    if installed.is_err() && manager.program == APT.program && unpacked::possible() {
        writeln!(
            Stderr,
            "setup: installing it would remove other packages; unpacking it into {} instead",
            shown_path(&emulator::directory())
        );
        // Both at once, since unpacking replaces everything unpacked before.
        installed = unpacked::unpack(&APT.packages);
    }
    installed.with_context(remedy)?;
    if !emulator::is_there(program) {
        bail!(remedy());
    }
    Ok(())
}
