//! Reports on a model: plots, an HTML page, and text.
//!
//! ```text
//! frontier.json, importance.json, blobs ─▶ Findings ─┬─▶ plots (SVG) ─┬─▶ page (HTML)
//!                                                   │                └─▶ PNG
//!                                                   └─▶ text
//! ```

mod bytes;
mod page;
mod plots;
mod png;
mod text;

pub use bytes::{Part, bytes_by_part};
pub(crate) use page::GENERATOR;
pub use page::page;
pub use plots::{Plot, plots};
pub use png::png;
pub use text::text;

use std::path::Path;

use serde::Deserialize;

use crate::budget::Sensitivities;
use crate::error::{Error, Result};
use crate::files;
use resnet_bk_schema::statistics::with_error;

/// Everything that a report shows.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Size and quality of every measured blob.
    pub frontier: Frontier,
    /// KL divergence by tensor and storage; may be empty.
    pub sensitivities: Sensitivities,
    /// Bytes by part of each blob, with its policy's name.
    pub blobs: Vec<(String, Vec<(Part, usize)>)>,
}

/// The output of `cargo xtask frontier --json`, as far as reports show it.
#[derive(Clone, Debug, Deserialize)]
pub struct Frontier {
    /// Name of the model.
    pub model: String,
    /// Name of the text.
    pub corpus: String,
    /// Bytes of the FP32 checkpoint.
    pub fp32_bytes: u64,
    /// Perplexity of the FP32 checkpoint.
    pub ppl_fp32: f64,
    /// Standard error of that perplexity.
    #[serde(default)]
    pub ppl_fp32_se: Option<f64>,
    /// Blocks by which standard errors are computed.
    #[serde(default)]
    pub errors_by: Option<String>,
    /// Measured blobs.
    pub rows: Vec<Row>,
    /// Effect of each quantization step.
    #[serde(default)]
    pub ablation: Vec<Ablation>,
}

/// A measured blob.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Name.
    pub name: String,
    /// Kind of policy: budget, tuned, uniform, static, dynamic, file or general.
    pub kind: String,
    /// Total bytes.
    pub blob_bytes: u64,
    /// FP32 bytes divided by those.
    pub ratio: f64,
    /// Perplexity.
    pub ppl: f64,
    /// Standard error of that.
    #[serde(default)]
    pub ppl_se: Option<f64>,
    /// Rise of the perplexity in percent.
    pub ppl_rise_percent: f64,
    /// Standard error of that.
    #[serde(default)]
    pub ppl_rise_percent_se: Option<f64>,
    /// Mean KL divergence to FP32, nats per token.
    pub kl: f64,
    /// Standard error of that.
    #[serde(default)]
    pub kl_se: Option<f64>,
    /// Fraction of positions with the same most likely token as FP32.
    pub top1: f64,
    /// For a budget: predicted loss of its mix, on the same text as `measured_kl`.
    #[serde(default)]
    pub predicted_kl: Option<f64>,
    /// For a budget: measured loss of its mix.
    #[serde(default)]
    pub measured_kl: Option<f64>,
}

/// A row of the ablation.
#[derive(Clone, Debug, Deserialize)]
pub struct Ablation {
    /// Steps that were applied.
    pub steps: String,
    /// Bytes of the blob.
    pub blob_bytes: u64,
    /// Rise of the perplexity in percent.
    pub ppl_rise_percent: f64,
    /// Standard error of that.
    #[serde(default)]
    pub ppl_rise_percent_se: Option<f64>,
    /// KL divergence.
    pub kl: f64,
    /// Standard error of that.
    #[serde(default)]
    pub kl_se: Option<f64>,
}

/// Rise in percent and KL divergence with their standard errors.
fn loss(rise: (f64, Option<f64>), kl: (f64, Option<f64>)) -> [String; 2] {
    [with_error(format!("{:+.2}", rise.0), rise.1, 2), with_error(format!("{:.5}", kl.0), kl.1, 5)]
}

impl Row {
    fn loss(&self) -> [String; 2] {
        loss((self.ppl_rise_percent, self.ppl_rise_percent_se), (self.kl, self.kl_se))
    }
}

impl Ablation {
    fn loss(&self) -> [String; 2] {
        loss((self.ppl_rise_percent, self.ppl_rise_percent_se), (self.kl, self.kl_se))
    }
}

impl Frontier {
    /// The subject of the figures, on one line.
    fn subject(&self) -> String {
        let ppl = with_error(format!("{:.3}", self.ppl_fp32), self.ppl_fp32_se, 3);
        let Self { fp32_bytes, corpus, .. } = self;
        let mut line = format!("{fp32_bytes} bytes of FP32, perplexity {ppl} on {corpus}");
        if let Some(errors_by) = &self.errors_by {
            line += &format!("; ± are standard errors by {errors_by}");
        }
        line
    }

    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |reason| Error::Format { kind: "frontier", path: path.into(), reason };
        let frontier: Self =
            serde_json::from_str(&files::read_text(path)?).map_err(|e| bad(e.to_string()))?;
        let drawable = |row: &Row| row.blob_bytes > 0 && row.kl.is_finite() && row.ppl.is_finite();
        match frontier.rows.iter().find(|row| !drawable(row)) {
            _ if frontier.rows.is_empty() => Err(bad("it has no rows".into())),
            Some(row) => {
                Err(bad(format!("row `{}` has no bytes or a figure that is not finite", row.name)))
            }
            None => Ok(frontier),
        }
    }

    /// Rows of a kind, in ascending size.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }
}

#[cfg(test)]
mod tests;
