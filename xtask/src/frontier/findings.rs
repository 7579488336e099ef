//! All results of a frontier, as in its JSON.

use serde::Serialize;

use super::ablation::Ablation;
use super::comparison::Comparison;
use super::rows::{General, Row};

/// All results.
#[derive(Debug, Serialize)]
pub(super) struct Frontier {
    pub(super) model: String,
    pub(super) corpus: String,
    /// Blocks of the standard errors, in words.
    pub(super) errors_by: String,
    pub(super) fp32_bytes: u64,
    pub(super) ppl_fp32: f64,
    pub(super) ppl_fp32_se: Option<f64>,
    pub(super) bits_per_byte_fp32: Option<f64>,
    pub(super) bits_per_byte_fp32_se: Option<f64>,
    /// Every point.
    pub(super) rows: Vec<Row>,
    /// Budgets, and budgets of whole tensors, against the nearest size of every other kind.
    pub(super) comparisons: Vec<Comparison>,
    /// Budgets against general quantizers, weights only.
    pub(super) general: Vec<General>,
    /// Ablation of the steps of quantization.
    pub(super) ablation: Vec<Ablation>,
    pub(super) captions: Captions,
    pub(super) seconds: f64,
}

/// What is compared with what.
#[derive(Debug, Serialize)]
pub(super) struct Captions {
    pub(super) comparisons: &'static str,
    pub(super) general: &'static str,
}
