//! The blobs of the frontier, each made only once.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use resnet_bk_schema::frontier::Kind;
use resnet_bk_schema::outputs::{Made, Scored, WeightLoss};

use crate::process;
use crate::terminal::Stderr;
use crate::tools::Tools;

/// A blob.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    /// Weights-only loss of a budget's mix, on the text that it was chosen on.
    pub(super) weights: Option<WeightLoss>,
}

/// Makes blobs, or reuses those of an interrupted run.
pub(super) struct Maker<'a> {
    tools: &'a Tools,
    /// Importance file with sensitivities of all tensors.
    importance: PathBuf,
    /// The same for whole tensors.
    undivided: PathBuf,
}

/// Arguments for the number of tokens that sensitivities are measured on.
const MEASURE: [&str; 2] = ["--measure-tokens", "8192"];
/// Arguments that disable token classes and pruning, which uniform and published policies lack.
const UNDIVIDED: [&str; 2] = ["--without", "classes,prune"];

impl<'a> Maker<'a> {
    /// Discards results of another model, corpus or program, and measures the sensitivity of every
    /// tensor.
    pub(super) fn new(tools: &'a Tools, model: &Path) -> Result<Self> {
        let changed = |path: &Path| -> Result<u128> {
            let time = fs::metadata(path).and_then(|m| m.modified());
            let time = time.with_context(|| format!("cannot read {}", path.display()))?;
            Ok(time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos()))
        };
        let inputs = format!(
            "{} {} {} {:?}",
            model.display(),
            changed(&model.join("model.safetensors"))?,
            changed(tools.program())?,
            tools.corpus(),
        );
        let record = tools.work().join("inputs");
        if fs::read_to_string(&record).is_ok_and(|before| before == inputs) {
            writeln!(
                Stderr,
                "      resuming with the results in {}",
                process::shown_path(tools.work())
            );
        } else {
            fs::remove_dir_all(tools.work())
                .and_then(|()| fs::create_dir_all(tools.work()))
                .with_context(|| format!("cannot empty {}", tools.work().display()))?;
            process::write(&record, inputs.as_bytes())?;
        }
        let importance = tools.analyze("importance", &MEASURE)?;
        let undivided = tools.analyze("importance-undivided", &[MEASURE, UNDIVIDED].concat())?;
        Ok(Self { tools, importance, undivided })
    }

    /// The importance file used by budgets and published policies.
    pub(super) fn importance(&self) -> &Path {
        &self.importance
    }

    /// The blob of a policy.
    pub(super) fn policy(&self, policy: &str) -> Result<Blob> {
        let stem = Path::new(policy).file_stem().map_or(policy.into(), |s| s.to_string_lossy());
        let name = if policy.ends_with(".toml") { stem.into_owned() } else { policy.to_owned() };
        self.make(&name, Kind::of(policy), &["--policy", policy])
    }

    /// The budget at a ratio to FP32.
    pub(super) fn ratio(&self, ratio: f64) -> Result<Blob> {
        let text = ratio.to_string();
        self.make(&format!("budget {text}x"), Kind::Budget, &["--target-ratio", &text])
    }

    /// The budget of whole tensors at a ratio to FP32, from its own measurements.
    pub(super) fn whole(&self, ratio: f64) -> Result<Blob> {
        let name = format!("budget {ratio}x, tensors whole");
        self.undivided(&name, &["--target-ratio", &ratio.to_string()])
    }

    /// The blob of `quantize` with a target, without token classes and pruning.
    pub(super) fn undivided(&self, name: &str, target: &[&str]) -> Result<Blob> {
        let arguments = [target, &UNDIVIDED].concat();
        self.quantized(name, Kind::Whole, &arguments, &self.undivided)
    }

    /// The budget with at most the bytes of a general quantizer.
    pub(super) fn bytes(&self, general: &Scored) -> Result<Blob> {
        let bytes = general.blob_bytes.to_string();
        let name = general.name.as_ref().context("a general quantizer without a name")?;
        let name = format!("budget as {name}");
        self.make(&name, Kind::Budget, &["--target-bytes", &bytes])
    }

    /// The budget at a ratio, fine-tuned with additional arguments.
    pub(super) fn tuned(&self, ratio: f64, arguments: &[&str]) -> Result<Blob> {
        let budget = self.ratio(ratio)?;
        let make = |tools: &Tools, stem: &str| Ok(tools.finetune(stem, &budget.path, arguments)?.1);
        self.once(&format!("tuned {ratio}x"), Kind::Tuned, make)
    }

    /// The blob of `quantize` with these arguments.
    pub(super) fn make(&self, name: &str, kind: Kind, arguments: &[&str]) -> Result<Blob> {
        self.quantized(name, kind, arguments, &self.importance)
    }

    fn quantized(
        &self,
        name: &str,
        kind: Kind,
        arguments: &[&str],
        importance: &Path,
    ) -> Result<Blob> {
        let make = |tools: &Tools, stem: &str| Ok(tools.quantize(stem, arguments, importance)?.1);
        self.once(name, kind, make)
    }

    /// The blob that `make` writes to the work directory under the stem it is given; reused if an
    /// earlier run wrote it.
    fn once(
        &self,
        name: &str,
        kind: Kind,
        make: impl FnOnce(&Tools, &str) -> Result<Made>,
    ) -> Result<Blob> {
        let stem = name.replace(['/', ':', ' ', ','], "-");
        let file = self.tools.work().join(format!("{stem}.json"));
        let known: Option<Made> =
            fs::read(&file).ok().and_then(|json| serde_json::from_slice(&json).ok());
        let path = self.tools.work().join(format!("{stem}.rbk"));
        let record = match known.filter(|_| path.is_file()) {
            Some(record) => record,
            None => {
                writeln!(Stderr, "      {name}");
                let record = make(self.tools, &stem)?;
                process::write(&file, &serde_json::to_vec(&record)?)?;
                record
            }
        };
        let Made { blob_bytes: bytes, weights } = record;
        Ok(Blob { name: name.to_owned(), kind, path, bytes, weights })
    }
}
