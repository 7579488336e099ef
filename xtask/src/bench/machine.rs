//! The emulated machines, and running a program of `bench-firmware` on one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::firmware::{without_places, wrapper_build};
use crate::{Board, emulator, process, qemu, root, target_dir};

/// A core and the QEMU machine that represents it.
#[derive(Debug)]
pub(super) struct Machine {
    /// Display name.
    pub(super) core: &'static str,
    /// Rust target triple.
    pub(super) target: &'static str,
    /// Optimization level of `core`: for size if the inner loops are assembly, as in
    /// `firmware-example`.
    opt_level: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    /// Address at which programs expect a blob.
    blob: u32,
}

/// Every machine, the fastest core first.
pub(super) const MACHINES: [Machine; 4] = [
    Machine {
        core: "Cortex-M4F",
        target: Board::Mps2An386.target(),
        opt_level: "\"s\"",
        program: emulator::ARM,
        arguments: Board::Mps2An386.arguments(),
        blob: 0x0010_0000,
    },
    Machine {
        core: "Cortex-M3",
        target: "thumbv7m-none-eabi",
        opt_level: "3",
        program: emulator::ARM,
        arguments: &["-machine", "mps2-an385"],
        blob: 0x0010_0000,
    },
    Machine {
        core: "Cortex-M0",
        target: Board::Microbit.target(),
        opt_level: "3",
        program: emulator::ARM,
        arguments: Board::Microbit.arguments(),
        blob: 0x0010_0000,
    },
    Machine {
        core: "RV32IMC",
        target: "riscv32imc-unknown-none-elf",
        opt_level: "3",
        program: emulator::RISCV,
        arguments: &["-machine", "virt", "-bios", "none"],
        blob: 0x8010_0000,
    },
];

/// A longer run is taken to hang.
const TIME_LIMIT: Duration = Duration::from_secs(300);

/// A line of a program's output.
pub(super) struct Line(String);

impl Line {
    /// Its words.
    pub(super) fn words(&self) -> Vec<&str> {
        self.0.split_whitespace().collect()
    }
}

/// The value of a key.
pub(super) fn value<'a>(lines: &'a [Line], key: &str) -> Result<&'a str> {
    let values = lines.iter().filter_map(|line| line.0.split_once(' '));
    let mut values = values.filter(|(name, _)| *name == key).map(|(_, value)| value.trim());
    values.next().with_context(|| format!("the program printed no {key}"))
}

/// The numeric value of a key.
pub(super) fn number(lines: &[Line], key: &str) -> Result<u64> {
    Ok(value(lines, key)?.parse()?)
}

impl Machine {
    /// Builds a program of `bench-firmware` and returns its path.
    pub(super) fn build(&self, program: &str) -> Result<PathBuf> {
        let mut command = process::cargo();
        command.current_dir(root().join("bench-firmware"));
        let arguments =
            ["build", "--release", "--quiet", "--target", self.target, "--bin", program];
        // Separate from the workspace's builds, whose profile differs.
        let builds = target_dir().join("bench");
        command.args(arguments).arg("--target-dir").arg(&builds);
        let profile = "profile.release.package.resnet-bk-core.opt-level";
        command.arg("--config").arg(format!("{profile}={}", self.opt_level));
        // Names decide what LLVM merges, and so a count.
        process::run(&mut wrapper_build())?;
        without_places(&mut command, root())?;
        process::run(&mut command)?;
        Ok(builds.join(self.target).join("release").join(program))
    }

    /// Runs a program to completion and returns its output. A blob is loaded at the given offset
    /// from its usual address.
    pub(super) fn run(&self, elf: &Path, blob: Option<(&Path, u32)>) -> Result<Vec<Line>> {
        let mut command = emulator::command(self.program);
        command.args(self.arguments).args(qemu::QUIET);
        command.arg("-kernel").arg(elf);
        if let Some((blob, offset)) = blob {
            let blob = fs::canonicalize(blob)
                .with_context(|| format!("cannot find {}", blob.display()))?;
            // QEMU escapes a comma by doubling it.
            let file = blob.display().to_string().replace(',', ",,");
            command.arg("-device");
            let address = self.blob + offset;
            command.arg(format!("loader,file={file},addr={address:#x},force-raw=on"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}; run `cargo xtask setup`", self.program))?;
        let mut stdout = child.stdout.take().context("the emulator's output is not connected")?;
        let output = thread::spawn(move || std::io::read_to_string(&mut stdout));
        let deadline = Instant::now() + TIME_LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{} on {} did not end within {TIME_LIMIT:?}", elf.display(), self.core);
            }
            thread::sleep(Duration::from_millis(20));
        };
        let output = output.join().ok().context("the emulator's output is lost")??;
        let last = output.lines().last().unwrap_or("it printed nothing");
        ensure!(status.success(), "{} on {} failed ({status}): {last}", elf.display(), self.core);
        Ok(output.lines().map(|line| Line(line.to_owned())).collect())
    }
}
