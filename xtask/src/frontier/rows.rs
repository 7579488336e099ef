//! The points of the frontier, and general quantizers against budgets.

use anyhow::{Context, Result, ensure};
use resnet_bk_schema::frontier::{General, Kind, Row};
use resnet_bk_schema::outputs::{Evaluation, Fidelity, Quality, Scored};
use resnet_bk_schema::statistics::paired_error;

use super::points::Blob;

/// A point with what its errors are computed from.
pub(super) struct Measured {
    pub(super) row: Row,
    /// Jackknife replicates of its KL divergence.
    pub(super) kl_replicates: Vec<f64>,
    /// Those of its weights-only KL divergence; empty unless measured.
    pub(super) weights_replicates: Vec<f64>,
}

/// Caption of the general quantizers.
pub(super) const GENERAL: &str = "Budgets against candle's block types, the weights of both alone, \
activations in FP32. candle rounds to nearest, without calibration. Its types Q2_K to Q6_K store 256 inputs \
of a row together, so rows of 128 would stay FP32; those of 32 serve every row.";

impl Measured {
    fn new(name: &str, kind: Kind, bytes: u64, fp32: u64, quality: &Quality) -> Result<Self> {
        let fidelity = quality.fidelity.as_ref();
        let fidelity = fidelity.with_context(|| format!("`eval` gave no fidelity of {name}"))?;
        let row = Row {
            name: name.to_owned(),
            kind,
            blob_bytes: bytes,
            ratio: fp32 as f64 / bytes as f64,
            ppl: quality.perplexity,
            ppl_se: quality.perplexity_se,
            ppl_rise_percent: fidelity.ppl_rise_percent,
            ppl_rise_percent_se: fidelity.ppl_rise_percent_se,
            bits_per_byte: quality.bits_per_byte,
            bits_per_byte_se: quality.bits_per_byte_se,
            kl: fidelity.kl,
            kl_se: fidelity.kl_se,
            top1: fidelity.top1,
            top1_se: fidelity.top1_se,
            weights_kl: None,
            weights_kl_se: None,
            predicted_kl: None,
            measured_kl: None,
        };
        let kl_replicates = fidelity.kl_replicates.clone();
        Ok(Self { row, kl_replicates, weights_replicates: Vec::new() })
    }

    /// Adds the weights-only KL divergence.
    fn add_weights(&mut self, alone: &Fidelity) {
        (self.row.weights_kl, self.row.weights_kl_se) = (Some(alone.kl), alone.kl_se);
        self.weights_replicates.clone_from(&alone.kl_replicates);
    }
}

/// All points, smallest first. `weights` has the weights-only evaluation of the budgets.
pub(super) fn rows(
    blobs: &[Blob],
    evaluation: &Evaluation,
    budgets: &[&Blob],
    weights: &Evaluation,
    general: &Evaluation,
) -> Result<Vec<Measured>> {
    ensure!(evaluation.blobs.len() == blobs.len(), "`eval` gave another number of blobs");
    ensure!(weights.blobs.len() == budgets.len(), "`eval` gave another number of blobs");
    let fp32 = evaluation.fp32_bytes.context("`eval` gave no checkpoint")?;
    let mut rows = Vec::new();
    for (blob, scored) in blobs.iter().zip(&evaluation.blobs) {
        let mut point = Measured::new(&blob.name, blob.kind, blob.bytes, fp32, &scored.quality)?;
        let place = budgets.iter().position(|budget| budget.name == blob.name);
        let fidelity = place.and_then(|place| weights.blobs[place].quality.fidelity.as_ref());
        if let Some(alone) = fidelity {
            point.add_weights(alone);
        }
        let loss = blob.weights.map(|loss| (loss.predicted_kl, loss.measured_kl));
        (point.row.predicted_kl, point.row.measured_kl) = loss.unzip();
        rows.push(point);
    }
    for Scored { name, blob_bytes, quality, .. } in &general.blobs {
        let name = name.as_ref().context("a general quantizer without a name")?;
        let mut point = Measured::new(name, Kind::General, *blob_bytes, fp32, quality)?;
        if let Some(alone) = &quality.fidelity {
            point.add_weights(alone);
        }
        rows.push(point);
    }
    rows.sort_by_key(|point| point.row.blob_bytes);
    Ok(rows)
}

/// General quantizers against budgets.
pub(super) fn general(rows: &[Measured]) -> Result<Vec<General>> {
    let general = rows.iter().filter(|point| point.row.kind == Kind::General);
    general
        .map(|Measured { row, kl_replicates, .. }| {
            let name = format!("budget as {}", row.name);
            let budget = rows.iter().find(|point| point.row.name == name);
            let Measured { row: budget, weights_replicates, .. } =
                budget.with_context(|| format!("`{name}` was not evaluated"))?;
            let budget_kl =
                budget.weights_kl.context("a budget was not evaluated with its weights alone")?;
            let (less_kl_percent, less_kl_percent_se) =
                less_kl((budget_kl, weights_replicates), (row.kl, kl_replicates));
            Ok(General {
                name: row.name.clone(),
                blob_bytes: row.blob_bytes,
                kl: row.kl,
                kl_se: row.kl_se,
                budget_bytes: budget.blob_bytes,
                budget_kl,
                budget_kl_se: budget.weights_kl_se,
                less_kl_percent,
                less_kl_percent_se,
            })
        })
        .collect()
}

/// Reduction of a KL divergence relative to another in percent, and its standard error from the
/// replicates of both.
pub(super) fn less_kl(
    (ours, our_replicates): (f64, &[f64]),
    (theirs, their_replicates): (f64, &[f64]),
) -> (f64, Option<f64>) {
    let less = |ours: f64, theirs: f64| 100.0 * (1.0 - ours / theirs);
    (less(ours, theirs), paired_error(our_replicates, their_replicates, less))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reduction_has_the_error_of_a_ratio() {
        let constant = less_kl((0.5, &[0.5, 0.6]), (1.0, &[1.0, 1.2]));
        assert_eq!(constant, (50.0, Some(0.0)));
        let (less, error) = less_kl((0.5, &[0.4, 0.6]), (1.0, &[1.0, 1.0]));
        // 60 and 40 %: the jackknife error of two blocks is half their difference.
        assert!(less == 50.0 && (error.unwrap() - 10.0).abs() < 1e-9);
    }
}
