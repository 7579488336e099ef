//! Builds the firmware for a blob and a job.

use std::env::consts::EXE_EXTENSION;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Board, process, root, target_dir};

/// Name of the repository's root in panic messages and line tables.
pub(crate) const ROOT: &str = "/resnet-bk";
/// Package of the compiler of images.
const WRAPPER: &str = "rustc-wrapper";

/// Settings of the sampler.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Temperature; 0 is greedy.
    pub temperature: f32,
    /// Top-k; 0 is all tokens.
    pub top_k: usize,
    /// Top-p; 1 is all tokens.
    pub top_p: f32,
    /// Repetition penalty; 1 is none.
    pub repetition_penalty: f32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Sampling {
    /// Greedy decoding.
    pub const GREEDY: Self =
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 1 };
}

/// Job of the firmware. A causal blob can only generate, a full-chain blob only score; the firmware
/// chooses by the blob's chain.
#[derive(Clone, Debug, PartialEq)]
pub enum Job {
    /// Continues a prompt.
    Generate {
        /// Text, or token numbers such as `1 2 3` for a blob without a tokenizer.
        prompt: String,
        /// Tokens to generate.
        tokens: usize,
        /// Settings of the sampler.
        sampling: Sampling,
    },
    /// Scores windows of pseudo-random tokens.
    Score {
        /// Number of windows.
        windows: usize,
        /// Seed of their tokens.
        seed: u64,
    },
}

/// A program of `firmware-example`.
#[derive(Clone, Debug, PartialEq)]
pub enum Program {
    /// Does the job.
    Main,
    /// Does it as a task of an embassy executor.
    Embassy,
    /// Compresses messages and decompresses codes instead.
    Messages {
        /// File with a message a line.
        messages: PathBuf,
        /// File with a code a line, as hexadecimal digits.
        codes: PathBuf,
    },
    /// Suggests how the job's prompt goes on.
    Suggest,
}

/// Firmware to build.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// The embedded blob.
    pub blob: PathBuf,
    /// Its job.
    pub job: Job,
    /// Whether session memory is on the heap.
    pub alloc: bool,
    /// The program to build.
    pub program: Program,
    /// The board to build it for.
    pub board: Board,
    /// Whether to log the digest after every step, to locate the first difference.
    pub every_step: bool,
}

impl Firmware {
    /// Firmware without a heap and with minimal logging.
    pub fn new(blob: impl Into<PathBuf>, job: Job) -> Self {
        let (program, board) = (Program::Main, Board::default());
        Self { blob: blob.into(), job, alloc: false, program, board, every_step: false }
    }

    /// Builds it and copies the result to `elf`, so that later builds do not overwrite it.
    pub fn build(&self, elf: &Path) -> Result<()> {
        self.build_in(root(), None, elf)
    }

    /// [`Firmware::build`] in another copy of the repository, with its own build directory.
    pub(crate) fn build_in(&self, root: &Path, builds: Option<&Path>, elf: &Path) -> Result<()> {
        let blob = self.blob.canonicalize().with_context(|| {
            format!("no blob at {}; make one with `resnet-bk quantize`", self.blob.display())
        })?;
        let mut command = process::cargo();
        // Run in its directory, so that its own configuration (target, log level) applies.
        command.current_dir(root.join("firmware-example"));
        without_places(&mut command, root)?;
        command.args(["build", "--release", "--quiet", "--message-format=json-render-diagnostics"]);
        if let Some(builds) = builds {
            command.arg("--target-dir").arg(builds);
        }
        if self.alloc {
            command.args(["--features", "alloc"]);
        }
        // None of the caller's.
        command.env_remove("RESNET_BK_MESSAGES").env_remove("RESNET_BK_CODES");
        command.args(["--target", self.board.target(), "--bin"]);
        match &self.program {
            Program::Main => command.arg("resnet-bk-firmware"),
            Program::Embassy => command.args(["embassy", "--features", "embassy"]),
            Program::Messages { messages, codes } => {
                command.env("RESNET_BK_MESSAGES", messages).env("RESNET_BK_CODES", codes);
                command.arg("messages")
            }
            Program::Suggest => command.arg("suggest"),
        };
        if self.every_step {
            command.env("DEFMT_LOG", "debug");
        }
        command.env("RESNET_BK_BLOB", &blob);
        for (name, value) in self.job.variables() {
            command.env(name, value);
        }

        // All builds write the same file: a lock across processes until it is copied.
        let lock = target_dir().join("firmware.lock");
        fs::create_dir_all(target_dir())
            .with_context(|| format!("cannot create {}", target_dir().display()))?;
        let lock =
            File::create(&lock).with_context(|| format!("cannot create {}", lock.display()))?;
        lock.lock().context("cannot lock the firmware's build")?;
        process::run(&mut wrapper_build())?;
        let messages = process::output(&mut command)?;
        let built = executable(&messages)?;
        if let Some(parent) = elf.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        fs::copy(&built, elf)
            .with_context(|| format!("cannot copy {} to {}", built.display(), elf.display()))?;
        Ok(())
    }
}

/// Directory of cargo with the sources of dependencies.
pub(crate) fn cargo_home() -> Result<PathBuf> {
    let home = || std::env::home_dir().map(|home| home.join(".cargo"));
    let directory = std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home);
    directory.context("neither CARGO_HOME nor a home directory is known")
}

/// Builds [`without_places`]'s compiler.
pub(crate) fn wrapper_build() -> Command {
    let mut command = process::cargo();
    command.args(["build", "--release", "--quiet", "--package", WRAPPER]);
    command.current_dir(root()).env_remove("CARGO_BUILD_TARGET");
    command
}

/// Makes the image independent of directory and user: keeps absolute paths out of panic messages,
/// which are in flash, and of the names of symbols, which LLVM goes by. Keeps the flags and the
/// compiler wrapper of the caller's environment. Wants [`wrapper_build`] before.
pub(crate) fn without_places(command: &mut Command, root: &Path) -> Result<()> {
    const SEPARATOR: &str = "\u{1f}";
    let mut flags = match (std::env::var("CARGO_ENCODED_RUSTFLAGS"), std::env::var("RUSTFLAGS")) {
        (Ok(encoded), _) if !encoded.is_empty() => vec![encoded],
        (_, Ok(flags)) => flags.split_whitespace().map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let root = root.canonicalize().with_context(|| format!("cannot find {}", root.display()))?;
    for (place, name) in [(&cargo_home()?, "/cargo"), (&root, ROOT)] {
        flags.push(format!("--remap-path-prefix={}={name}", place.display()));
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR));
    if let Some(wrapper) = std::env::var_os("RUSTC_WRAPPER") {
        command.env("RESNET_BK_RUSTC_WRAPPER", wrapper);
    }
    let wrapper = target_dir().join("release").join(WRAPPER);
    command.env("RUSTC_WRAPPER", wrapper.with_extension(EXE_EXTENSION));
    command.env("RESNET_BK_ROOT", root);
    Ok(())
}

impl Job {
    /// Every variable that the firmware's build script reads, except the blob, so that none comes
    /// from the caller's environment.
    fn variables(&self) -> [(&'static str, String); 9] {
        let defaults = (String::from("0"), 1, Sampling::GREEDY, 1);
        let (prompt, tokens, sampling, windows) = match self {
            Self::Generate { prompt, tokens, sampling } => {
                (prompt.clone(), *tokens, *sampling, defaults.3)
            }
            Self::Score { windows, seed } => {
                (defaults.0, defaults.1, Sampling { seed: *seed, ..defaults.2 }, *windows)
            }
        };
        [
            ("RESNET_BK_PROMPT", prompt),
            ("RESNET_BK_TOKENS", tokens.to_string()),
            ("RESNET_BK_TEMPERATURE", sampling.temperature.to_string()),
            ("RESNET_BK_TOP_K", sampling.top_k.to_string()),
            ("RESNET_BK_TOP_P", sampling.top_p.to_string()),
            ("RESNET_BK_REPETITION_PENALTY", sampling.repetition_penalty.to_string()),
            ("RESNET_BK_STOP", String::new()),
            ("RESNET_BK_SEED", sampling.seed.to_string()),
            ("RESNET_BK_WINDOWS", windows.to_string()),
        ]
    }
}

/// The executable named in cargo's messages.
fn executable(messages: &[u8]) -> Result<PathBuf> {
    for line in messages.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value =
            serde_json::from_slice(line).context("cannot parse cargo's messages")?;
        if let Some(path) = message["executable"].as_str() {
            return Ok(path.into());
        }
    }
    bail!("cargo built no executable from firmware-example/")
}
