//! The `--json` output of commands. Readers ignore unknown keys.

use serde::{Deserialize, Serialize};

use crate::blocks::Blocks;

/// Quality of one model on a text. Standard errors are by [`Blocks`], `None` with a single block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Predicted tokens.
    pub tokens: usize,
    /// exp of the mean negative log-likelihood.
    pub perplexity: f64,
    /// Its standard error.
    pub perplexity_se: Option<f64>,
    /// Bits per token: the mean negative log-likelihood to base 2.
    #[serde(default)]
    pub bits_per_token: f64,
    /// Its standard error.
    #[serde(default)]
    pub bits_per_token_se: Option<f64>,
    /// Bits per byte of the predicted text; `None` where its bytes are not known.
    pub bits_per_byte: Option<f64>,
    /// Its standard error.
    pub bits_per_byte_se: Option<f64>,
    /// Fidelity to the FP32 model; `None` for that model itself.
    pub fidelity: Option<Fidelity>,
    /// Thread seconds spent on this model, for logits and likelihoods.
    pub seconds: f64,
}

/// Fidelity of a blob to its FP32 model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fidelity {
    /// Increase of the perplexity in percent.
    pub ppl_rise_percent: f64,
    /// Its standard error, with both models paired block by block.
    pub ppl_rise_percent_se: Option<f64>,
    /// Mean KL divergence D(FP32 ‖ blob), nats per token.
    pub kl: f64,
    /// Its standard error.
    pub kl_se: Option<f64>,
    /// Jackknife replicates of the mean divergence, for the standard error of any function of two
    /// models' divergences on the same text.
    pub kl_replicates: Vec<f64>,
    /// 99th percentile of the divergences.
    pub kl_p99: f64,
    /// Their maximum.
    pub kl_max: f64,
    /// Top-1 agreement: share of positions with the same most likely token in both models.
    pub top1: f64,
    /// Its standard error.
    pub top1_se: Option<f64>,
}

/// Output of `eval --json` and of the comparison with general quantizers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Evaluation {
    /// The text.
    pub corpus: String,
    /// Tokens per window.
    pub window: usize,
    /// Whether weights were dequantized and run in the FP32 model, with FP32 activations.
    pub weights_only: bool,
    /// Bytes of the checkpoint, if one was given.
    pub fp32_bytes: Option<u64>,
    /// Blocks of standard errors in words, as in "61 articles".
    pub errors_by: String,
    /// Those blocks.
    pub blocks: Blocks,
    /// Quality of the checkpoint, if one was given.
    pub fp32: Option<Quality>,
    /// The evaluated models, in command-line order.
    pub blobs: Vec<Scored>,
}

impl Evaluation {
    /// Bytes and quality of the checkpoint, if one was given.
    pub fn checkpoint(&self) -> Option<(u64, &Quality)> {
        self.fp32_bytes.zip(self.fp32.as_ref())
    }
}

/// One blob, or one general quantizer, of an [`Evaluation`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "FlatScored")]
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
    /// Bytes of the whole blob; for a general quantizer, of its blocks and of FP32 tensors.
    pub blob_bytes: u64,
    /// Quality and fidelity.
    #[serde(flatten)]
    pub quality: Quality,
}

/// [`Scored`] as it is read. `flatten` cannot read numbers where serde_json is built with
/// `arbitrary_precision`, which `defmt-decoder` asks for.
#[derive(Deserialize)]
struct FlatScored {
    path: Option<String>,
    policy: Option<String>,
    name: Option<String>,
    blob_bytes: u64,
    tokens: usize,
    perplexity: f64,
    perplexity_se: Option<f64>,
    #[serde(default)]
    bits_per_token: f64,
    bits_per_token_se: Option<f64>,
    bits_per_byte: Option<f64>,
    bits_per_byte_se: Option<f64>,
    fidelity: Option<Fidelity>,
    seconds: f64,
}

impl From<FlatScored> for Scored {
    fn from(flat: FlatScored) -> Self {
        let FlatScored { path, policy, name, blob_bytes, .. } = flat;
        let quality = Quality {
            tokens: flat.tokens,
            perplexity: flat.perplexity,
            perplexity_se: flat.perplexity_se,
            bits_per_token: flat.bits_per_token,
            bits_per_token_se: flat.bits_per_token_se,
            bits_per_byte: flat.bits_per_byte,
            bits_per_byte_se: flat.bits_per_byte_se,
            fidelity: flat.fidelity,
            seconds: flat.seconds,
        };
        Self { path, policy, name, blob_bytes, quality }
    }
}

/// What is read back of `quantize --json` and `finetune --json`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Made {
    /// Bytes of the blob.
    pub blob_bytes: u64,
    /// KL divergence of the weights; only with a target.
    #[serde(default)]
    pub weights: Option<WeightLoss>,
}

/// A blob written by a command.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Clone, Debug, Serialize)]
pub struct Quantized {
    /// The blob.
    #[serde(flatten)]
    pub written: Written,
    /// Calibration text.
    pub calibration: String,
    /// KL divergence of the weights; only with a target.
    pub weights: Option<WeightLoss>,
    /// Quality on the text that precisions were chosen on; only with a target.
    pub chosen: Option<Measurement>,
    /// Quality on the text whose perplexity the blob records.
    pub measured: Option<Measurement>,
}

/// KL divergence of a mix of precisions, weights only (FP32 activations), in nats per token on the
/// text that the mix was chosen on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WeightLoss {
    /// Sum over tensors, each quantized alone.
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
#[derive(Clone, Debug, Serialize)]
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
    /// Quality on the text that the best step was chosen on.
    pub chosen: Improvement,
    /// Quality on held-out text.
    pub measured: Improvement,
}

/// One round of fine-tuning.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinetuningRound {
    /// Steps taken.
    pub steps: u64,
    /// Training tokens seen.
    pub train_tokens: u64,
    /// Step with the best validation; 0 if none improved on the start.
    pub best_step: u64,
    /// Whether the run stopped before its last step.
    pub stopped_early: bool,
    /// Validation in floating point with fake-quantized activations.
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

/// Fidelity of a student to its teacher on a text.
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
    /// Quality of the initial blob.
    pub before: Quality,
    /// Quality of the fine-tuned blob.
    pub after: Quality,
}
