//! The `resnet-bk` command, one function per call.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use resnet_bk_schema::outputs::{Evaluation, Made, Preview};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::firmware::Sampling;
use crate::{process, root, target_dir};

/// Flags of commands that evaluate a model with the tools.
#[derive(Debug, Default, clap::Args)]
pub struct SubjectArgs {
    /// Directory with train.txt, valid.txt and test.txt [default: text sampled from the FP32 model
    /// with a seed].
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
/// Name of the package and program that compares with general quantizers.
pub(crate) const BENCHMARKS: &str = "resnet-bk-benchmarks";

/// The command with the arguments common to all calls.
pub(crate) struct Tools {
    program: PathBuf,
    model: PathBuf,
    corpus: Option<PathBuf>,
    work: PathBuf,
}

/// Output of `inspect --json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Inspected {
    /// Upper bound of instructions by core and kind of piece.
    pub(crate) pieces: BTreeMap<String, BTreeMap<String, u64>>,
}

/// Output of `generate --json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Generated {
    pub(crate) digest: String,
}

impl Tools {
    /// Builds the command and other programs of the workspace; results go to the directory `work`
    /// in the target directory.
    pub(crate) fn build(
        model: &Path,
        corpus: Option<&Path>,
        work: &str,
        others: &[&str],
    ) -> Result<Self> {
        // Commands run in the repository's root.
        let model = &absolute(model)?;
        let corpus = corpus.map(absolute).transpose()?;
        let (weights, tokenizer) = (model.join("model.safetensors"), model.join("tokenizer.json"));
        for file in [&weights, &tokenizer] {
            ensure!(
                file.is_file(),
                "there is no {}: pass --model a directory that `resnet-bk train --out` wrote",
                file.display()
            );
        }
        let mut build = process::cargo();
        build.args(["build", "--release", "--package", "resnet-bk-tools"]).current_dir(root());
        // One build: built separately, packages may get dependencies with different features.
        process::run(build.args(others.iter().flat_map(|package| ["--package", package])))?;
        let program = program("resnet-bk");
        let work = target_dir().join(work);
        fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
        Ok(Self { program, model: weights, corpus, work })
    }

    /// Directory of results.
    pub(crate) fn work(&self) -> &Path {
        &self.work
    }

    /// Path of the command.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The corpus, if any.
    pub(crate) fn corpus(&self) -> Option<&Path> {
        self.corpus.as_deref()
    }

    /// Runs `analyze` with additional arguments; returns the importance file. A file with the same
    /// settings is extended.
    pub(crate) fn analyze(&self, name: &str, arguments: &[&str]) -> Result<PathBuf> {
        let out = self.work.join(format!("{name}.json"));
        let mut command = self.command("analyze");
        // Files of another model or other settings in the work directory may be overwritten.
        command.arg(&self.model).arg("--force").arg("--out").arg(&out).args(arguments);
        process::output(command.args(self.corpus_arguments()))?;
        Ok(out)
    }

    /// Runs `quantize` with these arguments; returns the blob's file.
    pub(crate) fn quantize(
        &self,
        name: &str,
        arguments: &[&str],
        importance: &Path,
    ) -> Result<(PathBuf, Made)> {
        let out = self.work.join(format!("{name}.rbk"));
        let mut command = self.quantizing(arguments, importance);
        Ok((out.clone(), parse(command.arg("--out").arg(&out))?))
    }

    /// Runs `finetune` on a blob with these arguments; returns the new blob's file. An interrupted
    /// run resumes.
    pub(crate) fn finetune(
        &self,
        name: &str,
        blob: &Path,
        arguments: &[&str],
    ) -> Result<(PathBuf, Made)> {
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

    /// Preview of the blob that `quantize` with these arguments would write.
    pub(crate) fn preview(&self, arguments: &[&str], importance: &Path) -> Result<Preview> {
        parse(self.quantizing(arguments, importance).arg("--dry-run"))
    }

    fn quantizing(&self, arguments: &[&str], importance: &Path) -> Command {
        let mut command = self.command("quantize");
        command.arg(&self.model).args(arguments).arg("--importance").arg(importance);
        command.arg("--json").args(self.corpus_arguments());
        command
    }

    /// Inspects a blob.
    pub(crate) fn inspect(&self, blob: &Path) -> Result<Inspected> {
        parse(self.command("inspect").arg(blob).arg("--json"))
    }

    /// Quality of the model and of blobs on one text, with additional arguments.
    pub(crate) fn evaluate(&self, blobs: &[PathBuf], arguments: &[&str]) -> Result<Evaluation> {
        let mut command = self.command("eval");
        command.arg(&self.model).args(blobs).args(["--split", "test", "--json"]).args(arguments);
        parse(command.args(self.corpus_arguments()))
    }

    /// Quality of the model under general quantizers on the same text.
    pub(crate) fn general_quantizers(&self, arguments: &[&str]) -> Result<Evaluation> {
        let mut command = Command::new(program(BENCHMARKS));
        command.args(["quantizers", "--json"]).arg(&self.model).args(arguments);
        parse(command.args(self.corpus_arguments()).current_dir(root()))
    }

    /// Writes the report on a frontier; returns the page.
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

    /// Text generated by a blob with `core` on the host.
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

    /// Command line of a subcommand, run in the repository's root.
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

/// Path of a program of the workspace.
fn program(name: &str) -> PathBuf {
    target_dir().join("release").join(name).with_extension(EXTENSION)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot resolve {}", path.display()))
}

#[cfg(windows)]
const EXTENSION: &str = "exe";
#[cfg(not(windows))]
const EXTENSION: &str = "";

/// Runs a command that prints one JSON object.
fn parse<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let json = process::output(command)?;
    serde_json::from_slice(&json)
        .with_context(|| format!("`{}` printed unexpected output", process::shown(command)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use resnet_bk_schema::outputs::Scored;

    /// `defmt-decoder` makes serde_json keep numbers as text, which `flatten` cannot read.
    #[test]
    fn what_eval_prints_is_read() {
        let json = r#"{"path": "a.rbk", "policy": "static", "blob_bytes": 5, "tokens": 7,
            "perplexity": 1.5, "perplexity_se": null, "bits_per_byte": 0.25,
            "bits_per_byte_se": 0.125, "fidelity": null, "seconds": 2.5}"#;
        let scored: Scored = serde_json::from_str(json).unwrap();
        assert_eq!((scored.blob_bytes, scored.quality.perplexity), (5, 1.5));
        assert_eq!(serde_json::to_value(&scored).unwrap()["bits_per_byte"], 0.25);
        let made: Made = serde_json::from_str(r#"{"blob_bytes": 3, "ratio": 2.5}"#).unwrap();
        assert_eq!(made, Made { blob_bytes: 3, weights: None });
    }
}
