//! The checks and their commands.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::firmware::{without_places, wrapper_build};
use crate::setup::{AARCH64, TARGETS, emulates_aarch64};
use crate::{emulator, process, root};

/// Feature sets that `core` is built with for every target.
const CORE_FEATURES: [&str; 3] = ["", "defmt", "alloc"];
/// Feature sets of the firmware.
const FIRMWARE_FEATURES: [&str; 3] = ["", "alloc", "embassy"];

/// One check.
pub(super) struct Step {
    pub(super) name: &'static str,
    /// Makes its commands. Called only when the check runs: the set-up before the checks decides
    /// which emulator they start.
    pub(super) commands: fn() -> Result<Vec<Command>>,
}

/// All checks, cheap ones first.
pub(super) const ALL: [Step; 10] = [
    Step { name: "format", commands: formats },
    Step { name: "lints", commands: lints },
    Step { name: "docs", commands: docs },
    Step { name: "tests", commands: tests },
    Step { name: "core-targets", commands: core_builds },
    Step { name: "aarch64", commands: aarch64_tests },
    Step { name: "pytorch", commands: pytorch_tests },
    Step { name: "firmware", commands: firmware_builds },
    Step { name: "image", commands: reproducible_image },
    Step { name: "kernels", commands: kernels },
];

/// The compiler's arguments that make warnings errors.
const DENIED: [&str; 3] = ["--", "--deny", "warnings"];

fn formats() -> Result<Vec<Command>> {
    Ok(vec![
        cargo(root(), &["fmt", "--all", "--check"]),
        cargo(&firmware(), &["fmt", "--check"]),
        cargo(&bench_firmware(), &["fmt", "--check"]),
    ])
}

fn lints() -> Result<Vec<Command>> {
    let command = cargo(root(), &["clippy", "--workspace", "--all-targets"]);
    Ok(vec![with_arguments(command, &DENIED)])
}

fn docs() -> Result<Vec<Command>> {
    let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items"];
    Ok(vec![with_env(cargo(root(), &arguments), "RUSTDOCFLAGS", "--deny warnings")])
}

/// Includes the comparison of host and QEMU in `tests/`. Not `benchmarks/`, whose dependencies take
/// long to compile.
fn tests() -> Result<Vec<Command>> {
    Ok(vec![cargo(root(), &["test", "--workspace", "--exclude", "resnet-bk-benchmarks"])])
}

/// `core` alone for every target and feature set.
fn core_builds() -> Result<Vec<Command>> {
    let build = |target, features| {
        let mut command = cargo(root(), &["build", "--package", "resnet-bk-core"]);
        command.args(["--target", target]);
        with_features(command, features)
    };
    Ok(TARGETS
        .iter()
        .flat_map(|target| CORE_FEATURES.iter().map(move |features| build(*target, *features)))
        .collect())
}

/// Tests of `core` on emulated AArch64 processors with products of matrices, with dot products
/// alone and with neither: kernels, chains, golden blobs, the coder; none where those cannot be
/// emulated. The host's other kernels give the same logits and the same bytes of messages. The
/// widest rows take minutes there.
fn aarch64_tests() -> Result<Vec<Command>> {
    let test = |processor| {
        let mut command = cargo(root(), &["test", "--package", "resnet-bk-core"]);
        command.args(["--features", "std", "--target", AARCH64, "--lib", "--test", "suite", "--"]);
        command.args(["kernels", "half_chains", "golden", "codec", "--skip", "the_widest_rows"]);
        let mut emulator = emulator::command(emulator::AARCH64);
        emulator.args(["-cpu", processor]);
        // Where the unpacked one finds its libraries.
        command.envs(emulator.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let variable = |name| format!("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_{name}");
        command
            .env(variable("LINKER"), "rust-lld")
            .env(variable("RUNNER"), process::shown(&emulator));
        command
    };
    Ok(match emulates_aarch64() {
        true => vec![test("max"), test("neoverse-n1"), test("cortex-a53")],
        false => Vec::new(),
    })
}

/// Tests of the PyTorch package, where there is Python: neither belongs to the set-up. They say so
/// themselves if it lacks what they need.
fn pytorch_tests() -> Result<Vec<Command>> {
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.current_dir(root());
        with_arguments(command, arguments)
    };
    Ok(match python(&["--version"]).output() {
        Ok(_) => vec![python(&["pytorch/tests/run.py"])],
        Err(_) => Vec::new(),
    })
}

/// The firmware with every feature set: lints, then the release build, with the flags that tests
/// use.
fn firmware_builds() -> Result<Vec<Command>> {
    let firmware = firmware();
    let mut commands = vec![wrapper_build()];
    for features in FIRMWARE_FEATURES {
        let lint = with_features(cargo(&firmware, &["clippy", "--release"]), features);
        commands.push(with_arguments(lint, &DENIED));
        let mut build = with_features(cargo(&firmware, &["build", "--release"]), features);
        without_places(&mut build, root())?;
        commands.push(build);
    }
    Ok(commands)
}

/// The firmware image must not depend on the build directory.
fn reproducible_image() -> Result<Vec<Command>> {
    Ok(vec![cargo(root(), &["xtask", "reproducible"])])
}

/// Lints of the counting programs for an Arm and a RISC-V target, then every kernel of every
/// emulated target against the portable one, and its instruction count against the baseline.
fn kernels() -> Result<Vec<Command>> {
    let lint = |target| {
        let command = cargo(&bench_firmware(), &["clippy", "--release", "--target", target]);
        with_arguments(command, &DENIED)
    };
    Ok(vec![
        lint("thumbv6m-none-eabi"),
        lint("riscv32imc-unknown-none-elf"),
        cargo(root(), &["xtask", "bench", "--kernels", "--check"]),
    ])
}

fn firmware() -> PathBuf {
    root().join("firmware-example")
}

fn bench_firmware() -> PathBuf {
    root().join("bench-firmware")
}

fn cargo(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = process::cargo();
    command.current_dir(directory);
    with_arguments(command, arguments)
}

fn with_arguments(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    command
}

fn with_features(command: Command, features: &str) -> Command {
    match features {
        "" => command,
        features => with_arguments(command, &["--features", features]),
    }
}

fn with_env(mut command: Command, name: &str, value: &str) -> Command {
    command.env(name, value);
    command
}
