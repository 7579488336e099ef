//! The `resnet-bk` command, one function per call.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::firmware::Sampling;
use crate::{process, root, target_dir};

/// The command, with what every call needs.
pub(super) struct Tools {
    program: PathBuf,
    model: PathBuf,
    corpus: Option<PathBuf>,
    work: PathBuf,
}

/// What `eval --json` prints.
#[derive(Debug, Deserialize)]
pub(super) struct Evaluation {
    /// Text that was evaluated on.
    pub(super) corpus: String,
    /// Bytes of the checkpoint.
    pub(super) fp32_bytes: u64,
    pub(super) fp32: Quality,
    /// In the order of the command line.
    pub(super) blobs: Vec<Quality>,
}

/// Quality of one model.
#[derive(Debug, Deserialize)]
pub(super) struct Quality {
    /// Bytes of the whole blob; none for the checkpoint.
    pub(super) blob_bytes: Option<u64>,
    pub(super) perplexity: f64,
    pub(super) bits_per_byte: Option<f64>,
    /// None for the checkpoint.
    pub(super) fidelity: Option<Fidelity>,
}

/// Distance from the FP32 model.
#[derive(Debug, Deserialize)]
pub(super) struct Fidelity {
    pub(super) ppl_rise_percent: f64,
    pub(super) kl: f64,
    pub(super) top1: f64,
}

/// What `generate --json` prints.
#[derive(Debug, Deserialize)]
pub(super) struct Host {
    pub(super) digest: String,
}

impl Tools {
    /// Builds the command.
    pub(super) fn build(model: &Path, corpus: Option<&Path>) -> Result<Self> {
        // The commands run in the repository's root.
        let model = &absolute(model)?;
        let corpus = corpus.map(absolute).transpose()?;
        let (weights, tokenizer) = (model.join("model.safetensors"), model.join("tokenizer.json"));
        for file in [&weights, &tokenizer] {
            ensure!(
                file.is_file(),
                "there is no {}: name a directory that `resnet-bk train --out` wrote by --model",
                file.display()
            );
        }
        let arguments =
            ["build", "--release", "--package", "resnet-bk-tools", "--bin", "resnet-bk"];
        process::run(process::cargo().args(arguments).current_dir(root()))?;
        let program = target_dir().join("release").join("resnet-bk").with_extension(EXTENSION);
        let work = target_dir().join("demo");
        fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        Ok(Self { program, model: weights, corpus, work })
    }

    /// Importance of each layer; returns the file.
    pub(super) fn analyze(&self) -> Result<PathBuf> {
        let out = self.work.join("importance.json");
        let mut command = self.command("analyze");
        command.arg(&self.model).arg("--out").arg(&out).args(self.corpus_arguments());
        process::output(&mut command)?;
        Ok(out)
    }

    /// A blob under a policy; returns the file.
    pub(super) fn quantize(&self, name: &str, policy: &str, importance: &Path) -> Result<PathBuf> {
        let out = self.work.join(name).with_extension("rbk");
        let mut command = self.command("quantize");
        command.arg(&self.model).args(["--policy", policy]).arg("--out").arg(&out);
        command.arg("--importance").arg(importance).args(self.corpus_arguments());
        process::output(&mut command)?;
        Ok(out)
    }

    /// Quality of the model and of blobs, on one text.
    pub(super) fn evaluate(&self, blobs: &[PathBuf]) -> Result<Evaluation> {
        let mut command = self.command("eval");
        command.arg(&self.model).args(blobs).args(["--split", "test", "--json"]);
        parse(command.args(self.corpus_arguments()))
    }

    /// Text of a blob, by the portable core on this machine.
    pub(super) fn generate(
        &self,
        blob: &Path,
        prompt: &str,
        tokens: usize,
        sampling: Sampling,
    ) -> Result<Host> {
        let mut command = self.command("generate");
        command.arg(blob).args(["--prompt", prompt, "--json"]);
        command.args(["--tokens", &tokens.to_string(), "--seed", &sampling.seed.to_string()]);
        command.args(["--temperature", &sampling.temperature.to_string()]);
        parse(command.args(["--top-k", &sampling.top_k.to_string()]))
    }

    /// A subcommand, from the repository's root.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(name).current_dir(root());
        command
    }

    fn corpus_arguments(&self) -> Vec<PathBuf> {
        match &self.corpus {
            Some(directory) => vec!["--corpus".into(), directory.clone()],
            None => Vec::new(),
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{}", path.display()))
}

#[cfg(windows)]
const EXTENSION: &str = "exe";
#[cfg(not(windows))]
const EXTENSION: &str = "";

/// Runs a command that prints one JSON object.
fn parse<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let json = process::output(command)?;
    serde_json::from_slice(&json).with_context(|| {
        format!("`{}` printed something else than expected", process::shown(command))
    })
}
