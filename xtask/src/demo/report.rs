//! Results of the demo, as a table and as JSON.

use std::fmt;

use anyhow::{Context, Result, ensure};
use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use resnet_bk_schema::outputs::Evaluation;
use resnet_bk_schema::statistics::with_error;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::qemu::Summary;

/// All results.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) model: String,
    /// Bytes of the FP32 checkpoint.
    pub(super) fp32_bytes: u64,
    /// Text of the evaluation.
    pub(super) corpus: String,
    /// Blocks of the standard errors, in words.
    pub(super) errors_by: String,
    #[serde(serialize_with = "by_name")]
    pub(super) policies: Vec<Policy>,
    pub(super) device: Device,
    pub(super) seconds: f64,
}

/// One policy's blob.
#[derive(Debug, Serialize)]
pub(super) struct Policy {
    #[serde(skip)]
    name: &'static str,
    /// Bytes of the whole blob.
    blob_bytes: u64,
    /// Bytes of the FP32 checkpoint divided by bytes of the blob.
    ratio: f64,
    ppl_fp32: f64,
    ppl_fp32_se: Option<f64>,
    ppl: f64,
    ppl_se: Option<f64>,
    ppl_rise_percent: f64,
    /// Paired by blocks.
    ppl_rise_percent_se: Option<f64>,
    bits_per_byte: Option<f64>,
    bits_per_byte_se: Option<f64>,
    /// Mean KL divergence to FP32, nats per token.
    kl: f64,
    kl_se: Option<f64>,
    /// Share of positions with the same most likely token in both models.
    top1: f64,
    top1_se: Option<f64>,
}

/// The run on the device.
#[derive(Debug, Serialize)]
pub(super) struct Device {
    /// Whether every logit equals the host's, by digest.
    pub(super) matches_host: bool,
    pub(super) host_digest: String,
    pub(super) policy: &'static str,
    pub(super) prompt: String,
    pub(super) text: String,
    #[serde(flatten)]
    pub(super) summary: Summary,
}

/// The policies with these names, in the order of the evaluated blobs.
pub(super) fn policies(names: &[&'static str], evaluation: &Evaluation) -> Result<Vec<Policy>> {
    let (fp32_bytes, fp32) = evaluation.checkpoint().context("`eval` gave no checkpoint")?;
    let blobs = &evaluation.blobs;
    ensure!(blobs.len() == names.len(), "`eval` gave {} of {} blobs", blobs.len(), names.len());
    names
        .iter()
        .zip(blobs)
        .map(|(name, scored)| {
            let (blob_bytes, blob) = (scored.blob_bytes, &scored.quality);
            let fidelity = blob.fidelity.as_ref();
            let fidelity =
                fidelity.with_context(|| format!("`eval` gave no fidelity of {name}"))?;
            Ok(Policy {
                name,
                blob_bytes,
                ratio: fp32_bytes as f64 / blob_bytes as f64,
                ppl_fp32: fp32.perplexity,
                ppl_fp32_se: fp32.perplexity_se,
                ppl: blob.perplexity,
                ppl_se: blob.perplexity_se,
                ppl_rise_percent: fidelity.ppl_rise_percent,
                ppl_rise_percent_se: fidelity.ppl_rise_percent_se,
                bits_per_byte: blob.bits_per_byte,
                bits_per_byte_se: blob.bits_per_byte_se,
                kl: fidelity.kl,
                kl_se: fidelity.kl_se,
                top1: fidelity.top1,
                top1_se: fidelity.top1_se,
            })
        })
        .collect()
}

impl Policy {
    fn row(&self) -> [String; 8] {
        [
            self.name.to_owned(),
            self.blob_bytes.to_string(),
            format!("{:.2}x", self.ratio),
            format!("{:.3}", self.ppl),
            with_error(format!("{:+.2}", self.ppl_rise_percent), self.ppl_rise_percent_se, 2),
            self.bits_per_byte.map_or("-".to_owned(), |bits| format!("{bits:.4}")),
            with_error(format!("{:.5}", self.kl), self.kl_se, 5),
            format!("{:.2}", 100.0 * self.top1),
        ]
    }
}

/// An object with a key per policy, in their order.
fn by_name<S: Serializer>(policies: &[Policy], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(policies.len()))?;
    for policy in policies {
        map.serialize_entry(policy.name, policy)?;
    }
    map.end()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let heads =
            ["policy", "blob bytes", "ratio", "perplexity", "rise %", "bits/byte", "KL", "top-1 %"];
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        table.set_header(heads);
        for policy in &self.policies {
            let [name, rest @ ..] = policy.row();
            table.add_row([Cell::new(name)].into_iter().chain(rest.map(right)));
        }
        let Self { model, fp32_bytes, corpus, errors_by, .. } = self;
        write!(f, "\n{model}: {fp32_bytes} bytes of FP32")?;
        if let Some(policy) = self.policies.first() {
            let ppl = with_error(format!("{:.3}", policy.ppl_fp32), policy.ppl_fp32_se, 3);
            write!(f, ", perplexity {ppl}")?;
        }
        writeln!(f, "\nevaluated on {corpus}; standard errors by {errors_by}\n{table}")?;
        let device = &self.device;
        writeln!(f, "\nOn the microcontroller (QEMU, Cortex-M4F, policy {}):\n", device.policy)?;
        if !device.prompt.is_empty() {
            writeln!(f, "{}{}\n", device.prompt, device.text)?;
        }
        writeln!(f, "{}", device.summary)?;
        match device.matches_host {
            true => write!(f, "every logit equals the host's: digest {}", device.host_digest),
            false => write!(f, "THE LOGITS DIFFER: the host's digest is {}", device.host_digest),
        }?;
        write!(f, "\n\n{:.0} s in all", self.seconds)
    }
}
