//! Measured importance, which `analyze` writes and a target of `quantize` needs.

use std::path::Path;

use super::common::{TextArgs, bar, set};
use crate::budget::{self, Bench};
use crate::cli::Global;
use crate::error::Result;
use crate::eval::text::Tokens;
use crate::importance::{Importance, Text};
use crate::quantize::calibration::Calibration;
use crate::quantize::{Methods, Source};

/// The name of a step on the command line.
#[derive(Clone, Copy, Debug, PartialEq, clap::ValueEnum)]
pub(super) enum Step {
    /// Putting hidden units in other units.
    Equalize,
    /// Putting hidden units in another order.
    Permute,
    /// Storing classes of tokens apart, in budgets.
    Classes,
    /// Giving up hidden units, in budgets.
    Prune,
    /// Searching for scales.
    ScaleSearch,
    /// Fitting scales to codes in turn.
    Refit,
    /// GPTQ.
    Gptq,
    /// Revisiting every code.
    Descent,
    /// Letting rows make up for each other.
    Outputs,
    /// Quantizing again for the inputs that the quantized layers before give.
    Prefix,
    /// Correcting biases.
    BiasCorrection,
}

/// Flags that choose how tensors are quantized.
#[derive(Debug, clap::Args)]
pub(super) struct StepArgs {
    /// Leave out a step of post-training quantization, to see what it gives; may be repeated.
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    without: Vec<Step>,
}

impl StepArgs {
    pub(super) fn methods(&self) -> Methods {
        let with = |step| !self.without.contains(&step);
        Methods {
            equalize: with(Step::Equalize),
            permute: with(Step::Permute),
            classes: with(Step::Classes),
            prune: with(Step::Prune),
            scale_search: with(Step::ScaleSearch),
            refit: with(Step::Refit),
            gptq: with(Step::Gptq),
            descent: with(Step::Descent),
            outputs: with(Step::Outputs),
            prefix: with(Step::Prefix),
            bias_correction: with(Step::BiasCorrection),
        }
    }
}

/// Measuring on a text, and where what was measured is kept.
pub(super) struct Measuring<'a> {
    pub(super) text: &'a TextArgs,
    pub(super) held_out: &'a Tokens,
    /// The importance file, for messages.
    pub(super) path: &'a Path,
    /// Keeps what is known so far.
    pub(super) save: &'a dyn Fn(&Importance) -> Result<()>,
    pub(super) global: Global,
}

impl Measuring<'_> {
    /// Rearranges experts and divides the model as the file says or, where it does not, as measuring
    /// says.
    pub(super) fn arrange(
        &self,
        source: &mut Source,
        calibration: &mut Calibration,
        importance: &mut Importance,
    ) -> Result<()> {
        if importance.symmetries.is_none() || importance.division.is_none() {
            importance.measure_on(Text::of(self.held_out), self.path)?;
        }
        if importance.symmetries.is_none() {
            let bench = self.bench(source, calibration);
            let progress = bar("symmetries", self.global);
            let found = budget::choose(&bench, calibration, |share| set(&progress, share));
            progress.finish_and_clear();
            importance.symmetries = Some(found?);
            (self.save)(importance)?;
        }
        if let Some(symmetries) = &importance.symmetries {
            source.rearrange(symmetries, calibration);
        }
        if importance.division.is_none() {
            let bench = self.bench(source, calibration);
            let progress = bar("division", self.global);
            let found = budget::divide(&bench, calibration, |share| set(&progress, share));
            progress.finish_and_clear();
            importance.division = Some(found?);
            (self.save)(importance)?;
        }
        match &importance.division {
            Some(division) => source.divide(division, calibration),
            None => Ok(()),
        }
    }

    /// Measures what the file lacks of the table.
    pub(super) fn measure(&self, bench: &Bench<'_>, importance: &mut Importance) -> Result<()> {
        if budget::is_complete(bench, &importance.measured) {
            return Ok(());
        }
        importance.measure_on(Text::of(self.held_out), self.path)?;
        let progress = bar("measured importance", self.global);
        let known = std::mem::take(&mut importance.measured);
        let table = budget::measure(bench, &known, |table, share| {
            importance.measured.clone_from(table);
            set(&progress, share);
            (self.save)(importance)
        })?;
        importance.measured = table;
        progress.finish_and_clear();
        Ok(())
    }

    /// A bench on this text.
    pub(super) fn bench<'b>(
        &'b self,
        source: &'b Source,
        calibration: &'b Calibration,
    ) -> Bench<'b> {
        Bench::new(source, calibration, &self.held_out.tokens, self.text.window)
    }
}
