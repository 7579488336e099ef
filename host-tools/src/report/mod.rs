//! Reports on a model: plots, an HTML page, and text.
//!
//! ```text
//! frontier.json, importance.json, blobs ─▶ Findings ─┬─▶ plots (SVG) ─┬─▶ page (HTML)
//!                                                   │                └─▶ PNG
//!                                                   └─▶ text
//! ```

mod bytes;
mod chart;
mod page;
mod plots;
mod png;
mod text;

pub use bytes::{Part, bytes_by_part};
pub use chart::{Axes, Series, chart};
pub(crate) use page::GENERATOR;
pub use page::{Table, document, page};
pub use plots::{Plot, plots};
pub use png::png;
pub use text::text;

use std::path::Path;

use crate::budget::Sensitivities;
use crate::error::{Error, Result};
use crate::files;
use resnet_bk_schema::frontier::{Frontier, Row};
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

/// Rise in percent and KL divergence with their standard errors.
fn loss(rise: (f64, Option<f64>), kl: (f64, Option<f64>)) -> [String; 2] {
    [with_error(format!("{:+.2}", rise.0), rise.1, 2), with_error(format!("{:.5}", kl.0), kl.1, 5)]
}

/// The loss of a point.
fn row_loss(row: &Row) -> [String; 2] {
    loss((row.ppl_rise_percent, row.ppl_rise_percent_se), (row.kl, row.kl_se))
}

/// The subject of the figures, on one line.
fn subject(frontier: &Frontier) -> String {
    let Frontier { fp32_bytes, ppl_fp32, ppl_fp32_se, corpus, errors_by, .. } = frontier;
    let ppl = with_error(format!("{ppl_fp32:.3}"), *ppl_fp32_se, 3);
    let mut line = format!("{fp32_bytes} bytes of FP32, perplexity {ppl} on {corpus}");
    if let Some(errors_by) = errors_by {
        line += &format!("; ± are standard errors by {errors_by}");
    }
    line
}

/// Reads the output of `cargo xtask frontier --json`.
pub fn read_frontier(path: &Path) -> Result<Frontier> {
    let bad = |reason| Error::Format { kind: "frontier", path: path.into(), reason };
    let frontier: Frontier =
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

#[cfg(test)]
mod tests;
