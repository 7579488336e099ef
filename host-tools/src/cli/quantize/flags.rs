//! Flags for converting a checkpoint to a blob.

use std::path::{Path, PathBuf};

use resnet_bk_core::blob::Measured;
use resnet_bk_core::kernels::Core;

use super::kept::KeptMeasurements;
use crate::budget::{Bench, Limit, refine};
use crate::cli::Global;
use crate::cli::common::{Loaded, TextArgs, bar, model_files, set};
use crate::cli::kernels::core_parser;
use crate::cli::measured::{StepArgs, TableArgs};
use crate::cli::numbers;
use crate::error::Result;
use crate::eval::text::Tokens;
use crate::importance::{self, Importance, Settings};
use crate::output::{Output, Plan};
use crate::quantize::Origin;
use crate::quantize::encode::Encoded;
use crate::reference::Model;
use crate::tokenizer::Tokenizer;

/// The target of a budget.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(id = "targets", multiple = false, conflicts_with = "policy")]
pub(in crate::cli) struct Target {
    /// The best blob of at most this many bytes in total.
    #[arg(long, value_name = "N")]
    pub(super) target_bytes: Option<usize>,
    /// The best blob at least this many times smaller than the checkpoint file.
    #[arg(long, value_parser = numbers::positive, value_name = "R", allow_negative_numbers = true)]
    pub(super) target_ratio: Option<f64>,
    /// The smallest blob with at most this KL divergence, in nats per token, measured on the
    /// validation text through the integer path.
    #[arg(long, value_parser = numbers::not_negative::<f64>, value_name = "X", allow_negative_numbers = true)]
    pub(super) max_kl: Option<f64>,
}

/// A limit on instructions.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(in crate::cli) struct LimitArgs {
    /// Only mixes whose matrix-vector products take at most this many instructions per
    /// multiply-accumulate, on average over a token, as counted in an emulator.
    #[arg(long, requires = "targets", value_parser = numbers::positive, value_name = "X", allow_negative_numbers = true)]
    max_per_mac: Option<f64>,
    /// Core on which instructions are limited [default: cortex-m4f].
    #[arg(long, requires = "max_per_mac", value_parser = core_parser(), value_name = "CORE")]
    core: Option<Core>,
}

impl LimitArgs {
    /// The limit, if there is one.
    pub(super) fn limit(self) -> Result<Option<Limit>> {
        let core = self.core.unwrap_or(Core::CortexM4F);
        self.max_per_mac.map(|per_mac| Limit::new(core, per_mac)).transpose()
    }
}

impl Target {
    /// Whether a target was given.
    pub(super) fn is_some(self) -> bool {
        self.target_bytes.is_some() || self.target_ratio.is_some() || self.max_kl.is_some()
    }
}

/// Flags for converting a checkpoint to a blob.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct QuantizeArgs {
    /// static, dynamic, uniform-int8, uniform-int4 (and so on) or a policy file.
    #[arg(long, value_name = "POLICY")]
    pub(in crate::cli) policy: Option<String>,
    #[command(flatten)]
    pub(super) target: Target,
    #[command(flatten)]
    pub(super) limit: LimitArgs,
    /// Importance file written by `analyze`, for the dynamic policy, for targets, and for the
    /// arrangement of experts under any policy. Measurements that a target needs are added to it; a
    /// target needs a file with the same calibration, window, seed and steps. Without a file, they
    /// are kept in OUT.importance while the run lasts. Either way an interrupted run resumes.
    #[arg(long, value_name = "FILE")]
    pub(super) importance: Option<PathBuf>,
    #[command(flatten)]
    pub(super) table: TableArgs,
    /// Tokenizer, if not the tokenizer.json beside the checkpoint.
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) tokenizer: Option<PathBuf>,
    /// Do not include the tokenizer in the blob.
    #[arg(long)]
    pub(super) no_tokenizer: bool,
    #[command(flatten)]
    pub(super) steps: StepArgs,
    /// Calibration tokens, from the training split.
    #[arg(long, value_parser = numbers::tokens(1), default_value_t = 65_536, value_name = "N")]
    pub(super) calibration_tokens: usize,
    /// Tokens of the validation split for choosing precisions, and of the test split for the
    /// perplexity recorded in the blob; 0 records none.
    #[arg(long, value_parser = numbers::tokens(0), default_value_t = 8_192, value_name = "N")]
    pub(in crate::cli) measure_tokens: usize,
    #[command(flatten)]
    pub(in crate::cli) text: TextArgs,
    /// Suffix of the policy's name in the blob; it counts towards targets in bytes.
    #[arg(skip)]
    pub(in crate::cli) suffix: &'static str,
    /// Text that the blob will be measured on, if not --measure-tokens of the test split: its name
    /// and length are part of the blob.
    #[arg(skip)]
    pub(in crate::cli) recorded: Option<Tokens>,
    /// Where measurements for a target are kept while a run without an importance file lasts.
    #[arg(skip)]
    pub(in crate::cli) kept: Option<KeptMeasurements>,
}

impl QuantizeArgs {
    /// Whether precisions are chosen for a target.
    pub(in crate::cli) fn has_target(&self) -> bool {
        self.target.is_some()
    }

    /// The files that quantizing this checkpoint reads.
    pub(in crate::cli) fn inputs(&self, model: &Path) -> Vec<PathBuf> {
        let mut inputs = self.text.files();
        inputs.extend(model_files(model, self.tokenizer.as_deref()));
        inputs.extend(self.importance.clone());
        // A policy may be a file; named policies match no file.
        inputs.extend(self.policy.as_ref().map(PathBuf::from));
        inputs
    }

    /// Settings that importance depends on.
    pub(super) fn settings(&self, loaded: &Loaded, text: &Tokens) -> Settings {
        loaded.settings(text, &self.text, self.steps.taken())
    }

    /// Reads the checkpoint and resolves flags that depend on it.
    pub(in crate::cli) fn load(&mut self, model: &Path, global: Global) -> Result<Loaded> {
        let loaded = Loaded::read(model, self.tokenizer.as_deref(), global)?;
        self.text.fit(loaded.checkpoint.config.positions, loaded.checkpoint.config.vocab)?;
        Ok(loaded)
    }

    /// Keeps measurements beside the output.
    pub(in crate::cli) fn keep(&mut self, out: &Output, plan: &mut Plan) -> Result<()> {
        if self.has_target() && self.importance.is_none() {
            self.kept = KeptMeasurements::beside(out, plan)?;
        }
        Ok(())
    }

    /// Removes the kept measurements: the result is written.
    pub(in crate::cli) fn remove_kept(&self) -> Result<()> {
        self.kept.as_ref().map_or(Ok(()), KeptMeasurements::remove)
    }

    /// Text that the blob will be measured on, if any.
    pub(super) fn recorded(
        &self,
        model: &Model,
        tokenizer: Option<&Tokenizer>,
        global: Global,
    ) -> Result<Option<Tokens>> {
        match (&self.recorded, self.measure_tokens) {
            (Some(text), _) => Ok(Some(text.clone())),
            (None, 0) => Ok(None),
            (None, limit) => self.text.reported(limit, model, tokenizer, global).map(Some),
        }
    }

    /// Number of tokens that mixes are measured on.
    pub(super) fn measured_on(&self) -> usize {
        if self.measure_tokens > 0 { self.measure_tokens } else { FALLBACK_TOKENS }
    }

    /// Provenance of a blob that was calibrated on `text`, its results on `recorded` still unknown.
    pub(in crate::cli) fn origin<'a>(
        &self,
        text: &'a Tokens,
        recorded: Option<&'a Tokens>,
    ) -> Origin<'a> {
        Origin {
            calibration: &text.name,
            calibration_tokens: text.tokens.len() as u32,
            seed: self.text.seed,
            measured: recorded.map(unmeasured),
        }
    }

    /// Corrects biases with inputs from the quantized layers.
    pub(super) fn refine(
        &self,
        bench: &Bench<'_>,
        text: &Tokens,
        encoded: Vec<Encoded>,
        global: Global,
    ) -> Result<(Vec<Encoded>, f64)> {
        let tokens = &text.tokens[..text.tokens.len().min(PREFIX_TOKENS)];
        let text = (tokens, self.text.window);
        let progress = bar("quantized prefix", global);
        let refined = refine(bench, text, encoded, |share| set(&progress, share));
        progress.finish_and_clear();
        refined
    }

    /// Computes the published importance, for a policy that needs it without a file.
    pub(super) fn publish(
        &self,
        loaded: &Loaded,
        text: &Tokens,
        global: Global,
    ) -> Result<Importance> {
        let model = Model::from_checkpoint(&loaded.checkpoint);
        let progress = bar("published importance", global);
        let published = importance::publish(&model, &text.tokens, self.text.window, |share| {
            set(&progress, share)
        })?;
        progress.finish_and_clear();
        Ok(Importance::new(self.settings(loaded, text), published))
    }
}

/// Header entry of a text that the blob will be measured on, with zeros for results.
fn unmeasured(text: &Tokens) -> Measured<'_> {
    let tokens = text.tokens.len() as u32 - 1;
    Measured { corpus: &text.name, tokens, perplexity_fp32: 0.0, perplexity: 0.0 }
}

/// Tokens that mixes are measured on if `--measure-tokens` is 0.
pub(super) const FALLBACK_TOKENS: usize = 8_192;

/// Tokens for comparing the inputs after quantized layers with the exact ones.
const PREFIX_TOKENS: usize = 16_384;
