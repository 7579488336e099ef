//! Flags of training that `train` and `finetune` have in common.

use std::path::PathBuf;

use crate::cli::numbers;
use crate::error::Result;
use crate::train::Output;

/// Flags of batches, the optimizer and the resume file. The defaults are those of `train`;
/// `finetune` overrides some.
#[derive(Debug, clap::Args)]
pub(super) struct OptimizerArgs {
    /// Final learning rate, as a fraction of the peak.
    #[arg(long, default_value_t = 0.01, value_name = "X")]
    pub(super) final_lr: f64,
    /// Warm-up steps of the learning rate.
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub(super) warmup: u64,
    /// AdamW's decay of the first moment.
    #[arg(long, default_value_t = 0.9, value_name = "X")]
    pub(super) beta1: f32,
    /// AdamW's decay of the second moment.
    #[arg(long, default_value_t = 0.95, value_name = "X")]
    pub(super) beta2: f32,
    /// Gradient-norm clipping threshold.
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub(super) clip: f64,
    /// Windows per step.
    #[arg(long, value_parser = numbers::batch(), default_value_t = 32, value_name = "N")]
    pub(super) batch: usize,
    /// Shards of a batch, whose gradients are summed in order; affects rounding, unlike --threads.
    #[arg(long, value_parser = numbers::parts(), default_value_t = 8, value_name = "N")]
    pub(super) shards: usize,
    /// Steps between validations.
    #[arg(long, value_parser = numbers::steps(), default_value_t = 250, value_name = "N")]
    validate_every: u64,
    /// Steps between saves of the resume file.
    #[arg(long, value_parser = numbers::steps(), default_value_t = 250, value_name = "N")]
    save_every: u64,
    /// Steps between lines of the log.
    #[arg(long, value_parser = numbers::steps(), default_value_t = 20, value_name = "N")]
    log_every: u64,
}

impl OptimizerArgs {
    /// Checks these flags and the peak learning rate, if given.
    pub(super) fn check(&self, lr: Option<f64>) -> Result<()> {
        numbers::check(
            &[("--lr", lr.unwrap_or(1.0)), ("--clip", self.clip)],
            &[
                ("--final-lr", self.final_lr, 1.0),
                ("--beta1", self.beta1.into(), 0.999_999),
                ("--beta2", self.beta2.into(), 0.999_999),
            ],
        )
    }

    /// Output files of a run, at the intervals of these flags.
    pub(super) fn output(&self, log: PathBuf, state: PathBuf, anew: bool) -> Output {
        let Self { save_every, validate_every, log_every, .. } = *self;
        Output { log, state, save_every, validate_every, log_every, anew }
    }
}
