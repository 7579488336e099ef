//! Puts in place what the repository needs beside cargo: Rust's embedded targets and QEMU.
//!
//! What is there already is left alone, so this costs nothing the second time.

use std::io::{IsTerminal, stdin};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process::{exists, output, run};
use crate::{qemu, root};

/// Every target that `core` is built for, the firmware's among them.
pub const TARGETS: [&str; 3] =
    ["thumbv6m-none-eabi", "thumbv7em-none-eabihf", "riscv32imac-unknown-none-elf"];

/// A package manager: its program, how it installs without asking, how it fetches its lists, and
/// what it calls the emulator.
struct Manager {
    program: &'static str,
    install: &'static [&'static str],
    update: Option<&'static [&'static str]>,
    package: &'static str,
    as_root: bool,
}

const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        // Recommended packages can conflict with a QEMU from backports, and none is needed.
        install: &["install", "-y", "--no-install-recommends"],
        update: Some(&["update"]),
        package: "qemu-system-arm",
        as_root: true,
    },
    Manager {
        program: "dnf",
        install: &["install", "-y"],
        update: None,
        package: "qemu-system-arm",
        as_root: true,
    },
    Manager {
        program: "pacman",
        install: &["-S", "--noconfirm"],
        update: None,
        package: "qemu-system-arm",
        as_root: true,
    },
    Manager {
        program: "zypper",
        install: &["--non-interactive", "install"],
        update: None,
        package: "qemu-arm",
        as_root: true,
    },
    Manager {
        program: "brew",
        install: &["install"],
        update: None,
        package: "qemu",
        as_root: false,
    },
];

/// Installs what is missing.
pub fn run_setup() -> Result<()> {
    rust_targets()?;
    emulator()
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

/// The emulator, by the system's packages.
fn emulator() -> Result<()> {
    if exists(qemu::PROGRAM) {
        return Ok(());
    }
    let Some(manager) = MANAGERS.iter().find(|manager| exists(manager.program)) else {
        bail!(
            "{} is missing and no package manager that this command knows was found: install \
             QEMU's Arm system emulator from https://www.qemu.org/download, then try again",
            qemu::PROGRAM
        );
    };
    eprintln!("setup: installing {} by {}", manager.package, manager.program);
    let remedy = format!(
        "{} is missing: run `{}{} {} {}`, then try again",
        qemu::PROGRAM,
        if manager.as_root { "sudo " } else { "" },
        manager.program,
        manager.install.join(" "),
        manager.package
    );
    let mut installed = manager.install();
    if let (Err(_), Some(update)) = (&installed, manager.update) {
        eprintln!("setup: fetching package lists first");
        // If that fails, so does the second try, which says why.
        let _ = run(&mut manager.command(update));
        installed = manager.install();
    }
    installed.context(remedy.clone())?;
    if !exists(qemu::PROGRAM) {
        bail!(remedy);
    }
    Ok(())
}

impl Manager {
    fn install(&self) -> Result<()> {
        run(self.command(self.install).arg(self.package))
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
