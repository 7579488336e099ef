//! Puts in place what the repository needs beside cargo: Rust's embedded targets and QEMU.
//!
//! What is there already is left alone, so this costs nothing the second time.

use std::io::{IsTerminal, stdin};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{exists, output, run};
use crate::{qemu, root};

/// Every target that `core` is built for, the firmware's among them, and one without multiplication.
pub const TARGETS: [&str; 6] = [
    "thumbv6m-none-eabi",
    "thumbv7m-none-eabi",
    "thumbv7em-none-eabihf",
    "riscv32imc-unknown-none-elf",
    "riscv32imac-unknown-none-elf",
    "riscv32i-unknown-none-elf",
];

/// The emulators.
const EMULATORS: [&str; 2] = [qemu::PROGRAM, qemu::RISCV_PROGRAM];

/// A package manager: its program, how it installs without asking, how it fetches its lists, and
/// what it calls the emulators.
struct Manager {
    program: &'static str,
    install: &'static [&'static str],
    update: Option<&'static [&'static str]>,
    /// In the order of [`EMULATORS`].
    packages: [&'static str; 2],
    as_root: bool,
}

const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        // Recommended packages can conflict with a QEMU from backports, and none is needed.
        install: &["install", "-y", "--no-install-recommends"],
        update: Some(&["update"]),
        packages: ["qemu-system-arm", "qemu-system-misc"],
        as_root: true,
    },
    Manager {
        program: "dnf",
        install: &["install", "-y"],
        update: None,
        packages: ["qemu-system-arm", "qemu-system-riscv"],
        as_root: true,
    },
    Manager {
        program: "pacman",
        install: &["-S", "--noconfirm"],
        update: None,
        packages: ["qemu-system-arm", "qemu-system-riscv"],
        as_root: true,
    },
    Manager {
        program: "zypper",
        install: &["--non-interactive", "install"],
        update: None,
        packages: ["qemu-arm", "qemu-extra"],
        as_root: true,
    },
    Manager {
        program: "brew",
        install: &["install"],
        update: None,
        packages: ["qemu", "qemu"],
        as_root: false,
    },
];

/// Installs what is missing.
pub fn run_setup() -> Result<()> {
    rust_targets()?;
    EMULATORS.iter().enumerate().try_for_each(|(index, program)| emulator(index, program))
}

/// Rust's targets, by rustup.
fn rust_targets() -> Result<()> {
    let mut missing = Vec::new();
    for target in TARGETS {
        if !has_target(target)? {
            missing.push(target);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let targets = missing.join(" ");
    eprintln!("setup: adding Rust targets {targets}");
    let mut command = Command::new("rustup");
    command.args(["target", "add"]).args(&missing).current_dir(root());
    run(&mut command).with_context(|| {
        format!(
            "Rust's standard library for {targets} is missing: run `rustup target add {targets}` \
             in this folder, or install it from where your Rust comes from, then try again"
        )
    })
}

/// Whether the compiler in use has a target's standard library.
fn has_target(target: &str) -> Result<bool> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]).current_dir(root());
    let directory = String::from_utf8_lossy(&output(&mut rustc)?).trim().to_owned();
    Ok(Path::new(&directory).read_dir().is_ok_and(|mut files| files.next().is_some()))
}

/// An emulator, by the system's packages.
fn emulator(index: usize, program: &str) -> Result<()> {
    if exists(program) {
        return Ok(());
    }
    let Some(manager) = MANAGERS.iter().find(|manager| exists(manager.program)) else {
        bail!(
            "{program} is missing and no package manager that this command knows was found: install \
             QEMU's system emulators from https://www.qemu.org/download, then try again"
        );
    };
    let package = manager.packages[index];
    eprintln!("setup: installing {package} by {}", manager.program);
    let remedy = format!(
        "{program} is missing: run `{}{} {} {package}`, then try again",
        if manager.as_root { "sudo " } else { "" },
        manager.program,
        manager.install.join(" "),
    );
    let mut installed = manager.install(package);
    if let (Err(_), Some(update)) = (&installed, manager.update) {
        eprintln!("setup: fetching package lists first");
        // If that fails, so does the second try, which says why.
        let _ = run(&mut manager.command(update));
        installed = manager.install(package);
    }
    installed.context(remedy.clone())?;
    if !exists(program) {
        bail!(remedy);
    }
    Ok(())
}

impl Manager {
    fn install(&self, package: &str) -> Result<()> {
        run(self.command(self.install).arg(package))
    }

    /// The manager with these arguments, as root where it has to be.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = if self.as_root && !is_root() && exists("sudo") {
            let mut command = Command::new("sudo");
            if !stdin().is_terminal() {
                // Nobody could type a password.
                command.arg("--non-interactive");
            }
            command.arg(self.program);
            command
        } else {
            Command::new(self.program)
        };
        command.args(arguments);
        command
    }
}

fn is_root() -> bool {
    output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim_ascii() == b"0")
}
