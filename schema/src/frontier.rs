//! Size against quality: what `cargo xtask frontier` writes and `resnet-bk report` reads.
//!
//! Files of earlier versions lack some fields, which are then `None` or empty when read. There is
//! no `#[serde(flatten)]`: it cannot read numbers where serde_json is built with
//! `arbitrary_precision`.

use serde::{Deserialize, Serialize};

/// All results of a frontier. Standard errors are `None` with a single block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frontier {
    /// Name of the model.
    pub model: String,
    /// Name of the text.
    pub corpus: String,
    /// Blocks of standard errors in words, as in "61 articles".
    pub errors_by: Option<String>,
    /// Bytes of the FP32 checkpoint.
    pub fp32_bytes: u64,
    /// Perplexity of the FP32 checkpoint.
    pub ppl_fp32: f64,
    /// Its standard error.
    pub ppl_fp32_se: Option<f64>,
    /// Bits per byte of the FP32 checkpoint.
    pub bits_per_byte_fp32: Option<f64>,
    /// Its standard error.
    pub bits_per_byte_fp32_se: Option<f64>,
    /// Every point, smallest first.
    pub rows: Vec<Row>,
    /// Budgets, and budgets of whole tensors, against the nearest size of every other kind.
    #[serde(default)]
    pub comparisons: Vec<Comparison>,
    /// Budgets against general quantizers, weights only.
    #[serde(default)]
    pub general: Vec<General>,
    /// Ablation of the steps of quantization.
    #[serde(default)]
    pub ablation: Vec<Ablation>,
    /// What is compared with what.
    #[serde(default)]
    pub captions: Captions,
    /// Seconds that the frontier took.
    #[serde(default)]
    pub seconds: f64,
}

impl Frontier {
    /// Points of a kind, smallest first.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }
}

/// Origin of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The budget policy.
    Budget,
    /// The budget policy without token classes and pruning, which uniform and published policies
    /// lack.
    Whole,
    /// The budget policy, fine-tuned.
    Tuned,
    /// One precision for every tensor.
    Uniform,
    /// The published static recipe.
    Static,
    /// The published dynamic policy.
    Dynamic,
    /// A policy file.
    File,
    /// A general quantizer, with FP32 activations.
    General,
}

impl Kind {
    /// The kind of a policy by its command-line name.
    pub fn of(policy: &str) -> Self {
        match policy {
            _ if policy.ends_with(".toml") => Self::File,
            _ if policy.starts_with("uniform-") => Self::Uniform,
            _ if policy.starts_with("static") => Self::Static,
            _ => Self::Dynamic,
        }
    }

    /// Its name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Whole => "whole",
            Self::Tuned => "tuned",
            Self::Uniform => "uniform",
            Self::Static => "static",
            Self::Dynamic => "dynamic",
            Self::File => "file",
            Self::General => "general",
        }
    }
}

/// One point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Name.
    pub name: String,
    /// Origin.
    pub kind: Kind,
    /// Bytes of the whole blob; for a general quantizer, of its blocks and of FP32 tensors.
    pub blob_bytes: u64,
    /// FP32 bytes divided by those.
    pub ratio: f64,
    /// Perplexity.
    pub ppl: f64,
    /// Its standard error.
    pub ppl_se: Option<f64>,
    /// Rise of the perplexity in percent.
    pub ppl_rise_percent: f64,
    /// Its standard error.
    pub ppl_rise_percent_se: Option<f64>,
    /// Bits per byte.
    pub bits_per_byte: Option<f64>,
    /// Its standard error.
    pub bits_per_byte_se: Option<f64>,
    /// Mean KL divergence to FP32, nats per token.
    pub kl: f64,
    /// Its standard error.
    pub kl_se: Option<f64>,
    /// Fraction of positions with the same most likely token as FP32.
    pub top1: f64,
    /// Its standard error.
    pub top1_se: Option<f64>,
    /// Weights-only KL divergence (FP32 activations).
    pub weights_kl: Option<f64>,
    /// Its standard error.
    pub weights_kl_se: Option<f64>,
    /// For a budget: predicted loss of its mix, weights only, on the text that it was chosen on.
    pub predicted_kl: Option<f64>,
    /// For a budget: measured loss of its mix, likewise.
    pub measured_kl: Option<f64>,
}

/// The comparison at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// FP32 bytes divided by those of the budgets.
    pub ratio: f64,
    /// The budget.
    pub budget: Compared,
    /// The budget without token classes and pruning, like the others.
    pub whole: Compared,
    /// The nearest size of every other kind.
    pub others: Vec<Point>,
}

/// A budget compared with the best of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Name.
    pub name: String,
    /// Total bytes.
    pub blob_bytes: u64,
    /// KL divergence.
    pub kl: f64,
    /// Its standard error.
    pub kl_se: Option<f64>,
    /// Reduction of the KL divergence relative to the best of the others, in percent.
    pub less_kl_percent: f64,
    /// Its standard error, paired by blocks.
    pub less_kl_percent_se: Option<f64>,
}

/// A blob in a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Name.
    pub name: String,
    /// Total bytes.
    pub blob_bytes: u64,
    /// KL divergence.
    pub kl: f64,
    /// Its standard error.
    pub kl_se: Option<f64>,
}

/// A general quantizer and the budget with at most its bytes, both weights-only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct General {
    /// Name of the general quantizer.
    pub name: String,
    /// Bytes of its blocks and of FP32 tensors.
    pub blob_bytes: u64,
    /// Its KL divergence.
    pub kl: f64,
    /// Its standard error.
    pub kl_se: Option<f64>,
    /// Total bytes of the budget.
    pub budget_bytes: u64,
    /// KL divergence of the budget.
    pub budget_kl: f64,
    /// Its standard error.
    pub budget_kl_se: Option<f64>,
    /// Reduction of the KL divergence by the budget, in percent.
    pub less_kl_percent: f64,
    /// Its standard error, paired by blocks.
    pub less_kl_percent_se: Option<f64>,
}

/// A policy with a subset of the steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ablation {
    /// Steps that this row adds.
    pub steps: String,
    /// Total bytes.
    pub blob_bytes: u64,
    /// Rise of the perplexity in percent.
    pub ppl_rise_percent: f64,
    /// Its standard error.
    pub ppl_rise_percent_se: Option<f64>,
    /// KL divergence.
    pub kl: f64,
    /// Its standard error.
    pub kl_se: Option<f64>,
}

/// What is compared with what.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Captions {
    /// Of [`Frontier::comparisons`].
    pub comparisons: String,
    /// Of [`Frontier::general`].
    pub general: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that files have had from the first version on.
    const OLD: &str = r#"{"model": "m", "corpus": "c", "fp32_bytes": 8000, "ppl_fp32": 20.5,
        "rows": [{"name": "a", "kind": "uniform", "blob_bytes": 1000, "ratio": 8.0, "ppl": 21.0,
                  "ppl_rise_percent": 2.5, "kl": 0.02, "top1": 0.9}]}"#;

    #[test]
    fn files_of_earlier_versions_are_read() {
        let frontier: Frontier = serde_json::from_str(OLD).unwrap();
        assert_eq!((frontier.errors_by.as_deref(), frontier.ablation.len()), (None, 0));
        let row = frontier.of(Kind::Uniform).next().unwrap();
        assert_eq!((row.kl, row.kl_se, row.weights_kl), (0.02, None, None));
        assert!(frontier.of(Kind::Budget).next().is_none());
    }

    #[test]
    fn what_is_written_is_read() {
        let mut frontier: Frontier = serde_json::from_str(OLD).unwrap();
        let compared = |name: &str| Compared {
            name: name.into(),
            blob_bytes: 1000,
            kl: 0.1,
            kl_se: Some(0.3),
            less_kl_percent: 50.0,
            less_kl_percent_se: None,
        };
        let point = Point { name: "p".into(), blob_bytes: 1000, kl: 0.2, kl_se: None };
        frontier.comparisons.push(Comparison {
            ratio: 7.5,
            budget: compared("b"),
            whole: compared("w"),
            others: vec![point],
        });
        frontier.captions.general = "of what".into();
        let json = serde_json::to_string(&frontier).unwrap();
        assert_eq!(serde_json::from_str::<Frontier>(&json).unwrap(), frontier);
        let order = ["\"name\":\"b\"", "\"kl_se\":0.3", "\"less_kl_percent\":50.0"];
        let places = order.map(|key| json.find(key).expect(key));
        assert!(places.is_sorted(), "{json}");
    }

    #[test]
    fn kinds_are_written_by_name() {
        use Kind::*;
        for kind in [Budget, Whole, Tuned, Uniform, Static, Dynamic, File, General] {
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{}\"", kind.name()));
        }
    }
}
