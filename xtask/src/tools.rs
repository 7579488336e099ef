//! The `resnet-bk` command, one function per call.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use resnet_bk_schema::outputs::{Evaluation, Finetuned, Preview, Quantized};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::firmware::Sampling;
use crate::{process, root, target_dir};

/// Flags of every command that shows what the tools find.
#[derive(Debug, Default, clap::Args)]
pub struct SubjectArgs {
    /// Directory with train.txt, valid.txt and test.txt [default: text that the FP32 model itself
    /// writes, from a seed].
    #[arg(long, value_name = "DIR", env = "WIKITEXT2_DIR")]
    pub(crate) corpus: Option<PathBuf>,
    /// Directory with model.safetensors and tokenizer.json [default: the shipped model].
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// Print one JSON object on standard output, and nothing else there.
    #[arg(long)]
    pub(crate) json: bool,
}

impl SubjectArgs {
    /// The model's directory.
    pub(crate) fn model(&self) -> PathBuf {
        self.model.clone().unwrap_or_else(|| root().join(MODEL))
    }
}

/// The shipped model.
const MODEL: &str = "models/wikitext2";
/// The package, and the program, that compares with general quantizers.
pub(crate) const BENCHMARKS: &str = "resnet-bk-benchmarks";

/// The command, with what every call needs.
pub(crate) struct Tools {
    program: PathBuf,
    model: PathBuf,
    corpus: Option<PathBuf>,
    work: PathBuf,
}

/// What `inspect --json` prints of a blob.
#[derive(Debug, Deserialize)]
pub(crate) struct Inspected {
    /// By core the most instructions of every kind of piece.
    pub(crate) pieces: BTreeMap<String, BTreeMap<String, u64>>,
}

/// What `generate --json` prints.
#[derive(Debug, Deserialize)]
pub(crate) struct Generated {
    pub(crate) digest: String,
}

impl Tools {
    /// Builds the command, and other programs of the workspace beside it; results go to the
    /// directory `work` among those of builds.
    pub(crate) fn build(
        model: &Path,
        corpus: Option<&Path>,
        work: &str,
        others: &[&str],
    ) -> Result<Self> {
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
        let mut build = process::cargo();
        build.args(["build", "--release", "--package", "resnet-bk-tools"]).current_dir(root());
        // At once: packages that are built apart may get their dependencies with other features.
        process::run(build.args(others.iter().flat_map(|package| ["--package", package])))?;
        let program = program("resnet-bk");
        let work = target_dir().join(work);
        fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        Ok(Self { program, model: weights, corpus, work })
    }

    /// Where results go.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// The command's file.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The corpus that is evaluated on, if any.
    pub(crate) fn corpus(&self) -> Option<&Path> {
        self.corpus.as_deref()
    }

    /// Importance of each layer, with these further arguments; returns the file. One of the same
    /// settings is extended.
    pub(crate) fn analyze(&self, name: &str, arguments: &[&str]) -> Result<PathBuf> {
        let out = self.work.join(format!("{name}.json"));
        let mut command = self.command("analyze");
        // What another model or other settings left in the work directory is nobody's.
        command.arg(&self.model).arg("--force").arg("--out").arg(&out).args(arguments);
        process::output(command.args(self.corpus_arguments()))?;
        Ok(out)
    }

    /// A blob, with these arguments of `quantize`; returns the file.
    pub(crate) fn quantize(
        &self,
        name: &str,
        arguments: &[&str],
        importance: &Path,
    ) -> Result<(PathBuf, Quantized)> {
        let out = self.work.join(format!("{name}.rbk"));
        let mut command = self.quantizing(arguments, importance);
        Ok((out.clone(), parse(command.arg("--out").arg(&out))?))
    }

    /// A blob, fine-tuned with these arguments of `finetune`; returns the file. An interrupted run
    /// resumes.
    pub(crate) fn finetune(
        &self,
        name: &str,
        blob: &Path,
        arguments: &[&str],
    ) -> Result<(PathBuf, Finetuned)> {
        let out = self.work.join(format!("{name}.rbk"));
        let mut command = self.command("finetune");
        command
            .arg(&self.model)
            .arg("--blob")
            .arg(blob)
            .args(arguments)
            .args(["--force", "--json"]);
        Ok((out.clone(), parse(command.args(self.corpus_arguments()).arg("--out").arg(&out))?))
    }

    /// The blob that these arguments of `quantize` would give.
    pub(crate) fn preview(&self, arguments: &[&str], importance: &Path) -> Result<Preview> {
        parse(self.quantizing(arguments, importance).arg("--dry-run"))
    }

    fn quantizing(&self, arguments: &[&str], importance: &Path) -> Command {
        let mut command = self.command("quantize");
        command.arg(&self.model).args(arguments).arg("--importance").arg(importance);
        command.arg("--json").args(self.corpus_arguments());
        command
    }

    /// What is in a blob.
    pub(crate) fn inspect(&self, blob: &Path) -> Result<Inspected> {
        parse(self.command("inspect").arg(blob).arg("--json"))
    }

    /// Quality of the model and of blobs, on one text, with these further arguments.
    pub(crate) fn evaluate(&self, blobs: &[PathBuf], arguments: &[&str]) -> Result<Evaluation> {
        let mut command = self.command("eval");
        command.arg(&self.model).args(blobs).args(["--split", "test", "--json"]).args(arguments);
        parse(command.args(self.corpus_arguments()))
    }

    /// Quality of the model under general quantizers, on the same text.
    pub(crate) fn general_quantizers(&self, arguments: &[&str]) -> Result<Evaluation> {
        let mut command = Command::new(program(BENCHMARKS));
        command.args(["quantizers", "--json"]).arg(&self.model).args(arguments);
        parse(command.args(self.corpus_arguments()).current_dir(root()))
    }

    /// The report on everything that a frontier found; returns the page.
    pub(crate) fn report<'a>(
        &self,
        frontier: &Path,
        importance: &Path,
        blobs: impl Iterator<Item = &'a Path>,
    ) -> Result<PathBuf> {
        let out = self.work.join("report.html");
        let mut command = self.command("report");
        command.arg(frontier).arg("--importance").arg(importance);
        command.arg("--force").arg("--out").arg(&out);
        for blob in blobs {
            command.arg("--blob").arg(blob);
        }
        process::output(command.arg("--json"))?;
        Ok(out)
    }

    /// Text of a blob, by the portable core on this machine.
    pub(crate) fn generate(
        &self,
        blob: &Path,
        prompt: &str,
        tokens: usize,
        sampling: Sampling,
    ) -> Result<Generated> {
        let mut command = self.command("generate");
        command.arg(blob).args(["--prompt", prompt, "--json"]);
        command.args(["--tokens", &tokens.to_string(), "--seed", &sampling.seed.to_string()]);
        command.args(["--temperature", &sampling.temperature.to_string()]);
        command.args(["--top-k", &sampling.top_k.to_string()]);
        let penalty = sampling.repetition_penalty.to_string();
        command.args(["--repetition-penalty", &penalty]);
        parse(command.args(["--top-p", &sampling.top_p.to_string()]))
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

/// A program of the workspace.
fn program(name: &str) -> PathBuf {
    target_dir().join("release").join(name).with_extension(EXTENSION)
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
