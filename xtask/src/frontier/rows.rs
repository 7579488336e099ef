//! The points of the frontier, and general quantizers against budgets.

use anyhow::{Context, Result, ensure};
use resnet_bk_schema::outputs::{Evaluation, Fidelity, Quality, Scored};
use resnet_bk_schema::statistics::paired_error;
use serde::Serialize;

use super::points::{Blob, Kind};

/// One point.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// Bytes of the whole blob; for a general quantizer, of its blocks and of FP32 tensors.
    pub(super) blob_bytes: u64,
    pub(super) ratio: f64,
    pub(super) ppl: f64,
    pub(super) ppl_se: Option<f64>,
    pub(super) ppl_rise_percent: f64,
    pub(super) ppl_rise_percent_se: Option<f64>,
    pub(super) bits_per_byte: Option<f64>,
    pub(super) bits_per_byte_se: Option<f64>,
    /// Mean KL divergence to FP32, nats per token.
    pub(super) kl: f64,
    pub(super) kl_se: Option<f64>,
    /// Its jackknife replicates.
    #[serde(skip)]
    pub(super) kl_replicates: Vec<f64>,
    pub(super) top1: f64,
    pub(super) top1_se: Option<f64>,
    /// Weights-only KL divergence (FP32 activations).
    pub(super) weights_kl: Option<f64>,
    pub(super) weights_kl_se: Option<f64>,
    #[serde(skip)]
    pub(super) weights_replicates: Vec<f64>,
    /// Weights-only loss of a budget on the text that it was chosen on.
    pub(super) predicted_kl: Option<f64>,
    pub(super) measured_kl: Option<f64>,
}

/// Caption of the general quantizers.
pub(super) const GENERAL: &str = "Budgets against candle's block types, the weights of both alone, \
activations in FP32. candle rounds to nearest, without calibration. Its types Q2_K to Q6_K store 256 inputs \
of a row together, so rows of 128 would stay FP32; those of 32 serve every row.";

/// A general quantizer and the budget with at most its bytes, both weights-only.
#[derive(Debug, Serialize)]
pub(super) struct General {
    pub(super) name: String,
    pub(super) blob_bytes: u64,
    pub(super) kl: f64,
    pub(super) kl_se: Option<f64>,
    pub(super) budget_bytes: u64,
    pub(super) budget_kl: f64,
    pub(super) budget_kl_se: Option<f64>,
    /// Reduction of the KL divergence by the budget, in percent.
    pub(super) less_kl_percent: f64,
    pub(super) less_kl_percent_se: Option<f64>,
}

impl Row {
    fn new(name: &str, kind: Kind, bytes: u64, fp32: u64, quality: &Quality) -> Result<Self> {
        let fidelity = quality.fidelity.as_ref();
        let fidelity = fidelity.with_context(|| format!("`eval` gave no fidelity of {name}"))?;
        Ok(Self {
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
            kl_replicates: fidelity.kl_replicates.clone(),
            top1: fidelity.top1,
            top1_se: fidelity.top1_se,
            weights_kl: None,
            weights_kl_se: None,
            weights_replicates: Vec::new(),
            predicted_kl: None,
            measured_kl: None,
        })
    }

    /// Adds the weights-only KL divergence.
    fn with_weights(self, alone: &Fidelity) -> Self {
        Self {
            weights_kl: Some(alone.kl),
            weights_kl_se: alone.kl_se,
            weights_replicates: alone.kl_replicates.clone(),
            ..self
        }
    }
}

/// All points, smallest first. `weights` has the weights-only evaluation of the budgets.
pub(super) fn rows(
    blobs: &[Blob],
    evaluation: &Evaluation,
    budgets: &[&Blob],
    weights: &Evaluation,
    general: &Evaluation,
) -> Result<Vec<Row>> {
    ensure!(evaluation.blobs.len() == blobs.len(), "`eval` gave another number of blobs");
    ensure!(weights.blobs.len() == budgets.len(), "`eval` gave another number of blobs");
    let fp32 = evaluation.fp32_bytes.context("`eval` gave no checkpoint")?;
    let mut rows = Vec::new();
    for (blob, scored) in blobs.iter().zip(&evaluation.blobs) {
        let mut row = Row::new(&blob.name, blob.kind, blob.bytes, fp32, &scored.quality)?;
        let place = budgets.iter().position(|budget| budget.name == blob.name);
        let fidelity = place.and_then(|place| weights.blobs[place].quality.fidelity.as_ref());
        if let Some(alone) = fidelity {
            row = row.with_weights(alone);
        }
        let loss = blob.weights.map(|loss| (loss.predicted_kl, loss.measured_kl));
        (row.predicted_kl, row.measured_kl) = loss.unzip();
        rows.push(row);
    }
    for Scored { name, blob_bytes, quality, .. } in &general.blobs {
        let name = name.as_ref().context("a general quantizer without a name")?;
        let row = Row::new(name, Kind::General, *blob_bytes, fp32, quality)?;
        rows.push(match &quality.fidelity {
            Some(alone) => row.with_weights(alone),
            None => row,
        });
    }
    rows.sort_by_key(|row| row.blob_bytes);
    Ok(rows)
}

/// General quantizers against budgets.
pub(super) fn general(rows: &[Row]) -> Result<Vec<General>> {
    let general = rows.iter().filter(|row| row.kind == Kind::General);
    general
        .map(|row| {
            let name = format!("budget as {}", row.name);
            let budget = rows.iter().find(|row| row.name == name);
            let budget = budget.with_context(|| format!("`{name}` was not evaluated"))?;
            let budget_kl =
                budget.weights_kl.context("a budget was not evaluated with its weights alone")?;
            let less = |ours: f64, theirs: f64| 100.0 * (1.0 - ours / theirs);
            Ok(General {
                name: row.name.clone(),
                blob_bytes: row.blob_bytes,
                kl: row.kl,
                kl_se: row.kl_se,
                budget_bytes: budget.blob_bytes,
                budget_kl,
                budget_kl_se: budget.weights_kl_se,
                less_kl_percent: less(budget_kl, row.kl),
                less_kl_percent_se: paired_error(
                    &budget.weights_replicates,
                    &row.kl_replicates,
                    less,
                ),
            })
        })
        .collect()
}
