//! What was found about a model, as a page of plots and as text.
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

/// Everything that a report shows.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Size against quality.
    pub frontier: Frontier,
    /// KL rise by tensor and storage; may be empty.
    pub sensitivities: Sensitivities,
    /// Bytes by part of blobs, by their policies' names.
    pub blobs: Vec<(String, Vec<(Part, usize)>)>,
}

/// What `cargo xtask frontier --json` prints, as far as a report shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Frontier {
    /// Which model.
    pub model: String,
    /// Which text.
    pub corpus: String,
    /// Bytes of the FP32 checkpoint.
    pub fp32_bytes: u64,
    /// Its perplexity.
    pub ppl_fp32: f64,
    /// Every point.
    pub rows: Vec<Row>,
    /// What each step gives.
    #[serde(default)]
    pub ablation: Vec<Ablation>,
}

/// A point of the frontier.
#[derive(Clone, Debug, Deserialize)]
pub struct Row {
    /// Name.
    pub name: String,
    /// Kind of policy: budget, tuned, uniform, static, dynamic, file or general.
    pub kind: String,
    /// Bytes of everything.
    pub blob_bytes: u64,
    /// FP32 over those.
    pub ratio: f64,
    /// Perplexity.
    pub ppl: f64,
    /// Its rise in percent.
    pub ppl_rise_percent: f64,
    /// Mean KL divergence to FP32, nats per token.
    pub kl: f64,
    /// Share of equal likeliest tokens.
    pub top1: f64,
    /// Of a budget: what its mix was predicted to lose, and what it loses on the same text.
    #[serde(default)]
    pub predicted_kl: Option<f64>,
    /// See `predicted_kl`.
    #[serde(default)]
    pub measured_kl: Option<f64>,
}

/// A row of the ablation.
#[derive(Clone, Debug, Deserialize)]
pub struct Ablation {
    /// Steps that were taken.
    pub steps: String,
    /// Bytes of the blob.
    pub blob_bytes: u64,
    /// Rise of the perplexity in percent.
    pub ppl_rise_percent: f64,
    /// KL divergence.
    pub kl: f64,
}

impl Frontier {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self> {
        let bad = |reason| Error::Format { kind: "frontier", path: path.into(), reason };
        let frontier: Self =
            serde_json::from_str(&files::read_text(path)?).map_err(|e| bad(e.to_string()))?;
        let drawable = |row: &Row| row.blob_bytes > 0 && row.kl.is_finite() && row.ppl.is_finite();
        match frontier.rows.iter().find(|row| !drawable(row)) {
            _ if frontier.rows.is_empty() => Err(bad("it has no rows".into())),
            Some(row) => Err(bad(format!("row `{}` has figures that are none", row.name))),
            None => Ok(frontier),
        }
    }

    /// Rows of a kind, the smallest first.
    pub fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.kind == kind)
    }
}

#[cfg(test)]
mod tests;
