//! What commands print with `--json`. Whoever reads it ignores the keys that it does not know.

use serde::{Deserialize, Serialize};

use crate::blocks::Blocks;

/// Quality of one model on a text. Standard errors are those of [`Blocks`], `None` of a single one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Predicted tokens.
    pub tokens: usize,
    /// exp of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Its standard error.
    pub perplexity_se: Option<f64>,
    /// Bits per byte of the predicted text; `None` where tokens stand for no text.
    pub bits_per_byte: Option<f64>,
    /// Its standard error.
    pub bits_per_byte_se: Option<f64>,
    /// Distance to the FP32 model; `None` for that model itself.
    pub fidelity: Option<Fidelity>,
    /// Thread seconds spent on this model: logits and their likelihoods.
    pub seconds: f64,
}

/// Distance of a blob to its FP32 model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Rise of the perplexity, in percent.
    pub ppl_rise_percent: f64,
    /// Standard error of that rise: both models are compared on each block.
    pub ppl_rise_percent_se: Option<f64>,
    /// Mean KL divergence D(FP32 ‖ blob), nats per token.
    pub kl: f64,
    /// Its standard error.
    pub kl_se: Option<f64>,
    /// That divergence without each block in turn, for the error of any function of two models'
    /// divergences on the same text.
    pub kl_replicates: Vec<f64>,
    /// 99th percentile of the divergences.
    pub kl_p99: f64,
    /// Their maximum.
    pub kl_max: f64,
    /// Top-1 agreement: share of positions at which both models rank the same token first.
    pub top1: f64,
    /// Its standard error.
    pub top1_se: Option<f64>,
}

/// `eval --json`, and the comparison with general quantizers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evaluation {
    /// Text that was evaluated on.
    pub corpus: String,
    /// Tokens per window.
    pub window: usize,
    /// Whether weights were decoded into the FP32 model, activations staying FP32.
    pub weights_only: bool,
    /// Bytes of the checkpoint, if there was one.
    pub fp32_bytes: Option<u64>,
    /// What standard errors are counted by, as in "61 articles".
    pub errors_by: String,
    /// Those blocks.
    pub blocks: Blocks,
    /// Quality of the checkpoint, if there was one.
    pub fp32: Option<Quality>,
    /// In the order of the command line.
    pub blobs: Vec<Scored>,
}

impl Evaluation {
    /// Bytes and quality of the checkpoint, if there was one.
    pub fn checkpoint(&self) -> Option<(u64, &Quality)> {
        self.fp32_bytes.zip(self.fp32.as_ref())
    }
}

/// One blob, or one general quantizer, of an [`Evaluation`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scored {
    /// File of a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Policy of a blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Name of a general quantizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes of the whole blob; of a general quantizer its blocks and what stays FP32.
    pub blob_bytes: u64,
    /// Quality and fidelity.
    #[serde(flatten)]
    pub quality: Quality,
}

/// A blob that a command has written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Written {
    /// Name of the policy.
    pub policy: String,
    /// File of the blob.
    pub out: String,
    /// Its bytes.
    pub blob_bytes: u64,
    /// Bytes of the checkpoint.
    pub fp32_bytes: u64,
    /// Checkpoint over blob.
    pub ratio: f64,
}

/// `quantize --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Quantized {
    /// The blob.
    #[serde(flatten)]
    pub written: Written,
    /// Text that it was calibrated on.
    pub calibration: String,
    /// Loss of the weights; of a blob for a target only.
    pub weights: Option<WeightLoss>,
    /// On the text that precisions were chosen by; of a blob for a target only.
    pub chosen: Option<Measurement>,
    /// On the text whose perplexity is recorded in the blob.
    pub measured: Option<Measurement>,
}

/// KL divergence of the weights of a mix of precisions, activations in FP32, in nats per token on
/// the text that the mix was chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightLoss {
    /// Sum over tensors, each measured on its own.
    pub predicted_kl: f64,
    /// Measured with all tensors quantized.
    pub measured_kl: f64,
}

/// Quality of checkpoint and blob on one text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// The text.
    pub corpus: String,
    /// What standard errors are counted by.
    pub errors_by: String,
    /// Quality of the checkpoint.
    pub fp32: Quality,
    /// Quality of the blob.
    pub blob: Quality,
}

/// `quantize --dry-run --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Preview {
    /// Name of the policy.
    pub policy: String,
    /// Bytes that the blob would have.
    pub blob_bytes: u64,
    /// Bytes of the checkpoint.
    pub fp32_bytes: u64,
    /// Checkpoint over blob.
    pub ratio: f64,
    /// Every tensor in canonical order.
    pub tensors: Vec<StoredTensor>,
}

/// How a tensor would be stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoredTensor {
    /// Its name, as policies match it.
    pub name: String,
    /// Name of the precision.
    pub precision: String,
    /// Inputs per group, 0 without groups.
    pub group: usize,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Bytes of its section, unpadded.
    pub bytes: usize,
}

/// `finetune --json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finetuned {
    /// The blob.
    #[serde(flatten)]
    pub written: Written,
    /// Training tokens of all rounds.
    pub train_tokens: u64,
    /// Seconds of all rounds.
    pub seconds: f64,
    /// Number of the round that the blob is from, from 1.
    pub best_round: usize,
    /// Every round.
    pub rounds: Vec<FinetuningRound>,
    /// On the text that chose the best step.
    pub chosen: Improvement,
    /// On text that chose nothing.
    pub measured: Improvement,
}

/// One round of fine-tuning.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinetuningRound {
    /// Steps taken.
    pub steps: u64,
    /// Training tokens seen.
    pub train_tokens: u64,
    /// Step of the best validation, 0 where none was better than the beginning.
    pub best_step: u64,
    /// Whether the run ended before its last step.
    pub stopped_early: bool,
    /// Validation in floating point, activations rounded.
    pub simulated: Simulated,
}

/// Validation before and after a round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Simulated {
    /// Before the first step.
    pub before: DistillationScore,
    /// At the best step.
    pub after: DistillationScore,
}

/// Distance of a student to its teacher on a text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistillationScore {
    /// Mean KL divergence in nats per token.
    pub kl: f64,
    /// Perplexity of the student.
    pub perplexity: f64,
}

/// Quality of checkpoint, first blob and fine-tuned blob on one text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Improvement {
    /// The text.
    pub corpus: String,
    /// What standard errors are counted by.
    pub errors_by: String,
    /// Quality of the checkpoint.
    pub fp32: Quality,
    /// Quality of the blob that fine-tuning began with.
    pub before: Quality,
    /// Quality of the fine-tuned blob.
    pub after: Quality,
}
