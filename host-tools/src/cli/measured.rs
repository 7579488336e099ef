//! Measured importance, which `analyze` writes and `quantize` needs for a target.

use std::path::Path;

use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use resnet_bk_schema::{Step, Steps};

use super::common::{TextArgs, bar, set};
use crate::budget::{self, Bench, Entries, Part};
use crate::checkpoint::ModelConfig;
use crate::cli::Global;
use crate::error::Result;
use crate::eval::text::Tokens;
use crate::importance::{Importance, Text};
use crate::quantize::Source;
use crate::quantize::calibration::Calibration;

/// Flags that choose how tensors are quantized.
#[derive(Debug, clap::Args)]
pub(super) struct StepArgs {
    /// Disable a step of post-training quantization; may be repeated.
    #[arg(long, value_name = "STEP", value_delimiter = ',', value_parser = step_parser())]
    without: Vec<Step>,
}

impl StepArgs {
    /// The enabled steps.
    pub(super) fn taken(&self) -> Steps {
        self.without.iter().fold(Steps::ALL, |steps, &step| steps.without(step))
    }
}

/// Parses the name of a step; `--help` lists all of them.
fn step_parser() -> impl TypedValueParser<Value = Step> {
    let values = Step::ALL.map(|step| PossibleValue::new(step.name()).help(step.description()));
    PossibleValuesParser::new(values).try_map(|name| {
        Step::ALL.into_iter().find(|step| step.name() == name).ok_or("there is no such step")
    })
}

/// The flag that chooses how a table comes about.
#[derive(Debug, clap::Args)]
pub(super) struct TableArgs {
    /// Whether the loss of every tensor in every precision is measured, or most are estimated from
    /// the calibration and a sample [default: measured, or estimated for models of more than 10
    /// million parameters].
    #[arg(long, value_enum, value_name = "HOW")]
    table: Option<TableArg>,
}

/// Where the table of sensitivities comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TableArg {
    /// Every entry is measured, and what experts gain by rearranging them.
    Measured,
    /// One entry of every tensor and all of a few are measured, the rest is estimated.
    Estimated,
}

/// Parameters beyond which a table is estimated by default.
const LARGE: usize = 10_000_000;

impl TableArgs {
    /// Whether the table of such a model is estimated.
    pub(super) fn estimates(&self, config: &ModelConfig) -> bool {
        self.table.map_or(config.parameters() > LARGE, |how| how == TableArg::Estimated)
    }
}

/// Measures on a text and saves the results.
pub(super) struct Measuring<'a> {
    pub(super) text: &'a TextArgs,
    pub(super) held_out: &'a Tokens,
    /// Whether most of it is estimated.
    pub(super) estimates: bool,
    /// The importance file, for messages.
    pub(super) path: &'a Path,
    /// Saves what is known so far.
    pub(super) save: &'a dyn Fn(&Importance) -> Result<()>,
    pub(super) global: Global,
}

impl Measuring<'_> {
    /// Rearranges experts and divides the model as recorded in the file, or by measuring where the
    /// file has no record.
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
            let found = budget::choose_arrangement(&bench, calibration, self.estimates, |share| {
                set(&progress, share);
            });
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

    /// Measures what is missing of this part of the table; without a part, of what it takes.
    pub(super) fn measure(
        &self,
        bench: &Bench<'_>,
        importance: &mut Importance,
        part: Option<Part>,
    ) -> Result<()> {
        let all = if self.estimates { Entries::Sample } else { Entries::WHOLE };
        let entries = part.map_or(all, Entries::Part);
        if budget::is_complete(bench, &importance.measured, entries) {
            return Ok(());
        }
        importance.measure_on(Text::of(self.held_out), self.path)?;
        let progress = bar("measured importance", self.global);
        let known = std::mem::take(&mut importance.measured);
        let table = budget::measure(bench, &known, entries, |table, share| {
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
