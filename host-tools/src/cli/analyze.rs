//! `resnet-bk analyze`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;

use super::common::{Force, Loaded, TextArgs, bar, escaped, model_files, print_json, set};
use super::measured::{Measuring, StepArgs, TableArgs};
use crate::budget::Part;
use crate::cli::Global;
use crate::cli::numbers;
use crate::corpus::Split;
use crate::error::{Error, Result};
use crate::importance::{self, Importance, Text};
use crate::memory::Copies;
use crate::output::{Kind, Output, Plan};
use crate::reference::Model;
use crate::table::table;
use crate::terminal::Stdout;
use resnet_bk_schema::Storage;

const EXAMPLES: &str = "\
Examples:
  Importance of every layer of the shipped model, without a corpus:
      resnet-bk analyze models/wikitext2/model.safetensors --out importance.json

  On real text, with more tokens for the measurement:
      resnet-bk analyze model.safetensors --corpus data/wikitext-2 --measure-tokens 32768 \\
          --out importance.json

  Eight jobs that measure a table together, here with GNU parallel; a Slurm array does the same
  with $SLURM_ARRAY_TASK_ID:
      resnet-bk analyze model.safetensors --part 0/8 --out part0.json
      seq 8 | parallel 'cp part0.json part{}.json &&
          resnet-bk analyze model.safetensors --part {}/8 --out part{}.json'
      resnet-bk analyze model.safetensors $(printf -- '--merge part%d.json ' $(seq 8)) \\
          --out importance.json

  Merge tables that two machines measured on different texts:
      resnet-bk analyze model.safetensors --merge one.json --merge two.json --out importance.json

The file has, per layer, the three published metrics (gradient magnitude 0.5, activation variance
0.3, weight magnitude 0.2, z-scored and combined) and, per tensor and precision, the measured rise
in KL divergence when only that tensor is quantized, with the equalization and permutation of hidden
units that help each expert. `quantize --importance` reads it. An interrupted run resumes. A file
that was computed with other settings (checkpoint, tokenizer, text, window, seed, steps), or that
cannot be read, is kept: name another, or replace it with --force.";

/// Measure the importance of layers and write it to a file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`analyze --help` shows examples.")]
pub(crate) struct Args {
    /// Checkpoint (safetensors) with its tokenizer.json beside it.
    model: PathBuf,
    /// Importance file to write; an existing one with the same settings is extended.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
    /// Tokenizer, if not the tokenizer.json beside the checkpoint.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Tokens for the published metrics and for calibration.
    #[arg(long, value_parser = numbers::tokens(1), default_value_t = 65_536, value_name = "N")]
    tokens: usize,
    /// Tokens to measure each tensor and precision on; 0 skips the measurement.
    #[arg(long, value_parser = numbers::tokens(0), default_value_t = 4_096, value_name = "N")]
    measure_tokens: usize,
    /// Measure one of several parts of the table, such as 3/8 on the third of eight machines; 0/8
    /// only arranges and divides the model, which all parts need. `--merge` joins the parts.
    #[arg(long, value_name = "K/N", conflicts_with = "merge")]
    part: Option<Part>,
    /// Merge these importance files instead of measuring.
    #[arg(long, value_name = "FILE")]
    merge: Vec<PathBuf>,
    #[command(flatten)]
    table: TableArgs,
    #[command(flatten)]
    steps: StepArgs,
    #[command(flatten)]
    text: TextArgs,
}

pub(crate) fn run(mut args: Args, global: Global) -> Result<()> {
    let out = args.plan().writes(&args.out, Kind::Importance)?;
    let loaded = Loaded::read(&args.model, args.tokenizer.as_deref(), global)?;
    args.text.fit(loaded.checkpoint.config.positions, loaded.checkpoint.config.vocab)?;
    Copies::ANALYZE.require(loaded.checkpoint.config.parameters())?;
    let before = loaded.importance_before(&out, args.force.force)?;
    if !args.merge.is_empty() {
        let merged = merge(&args.merge, &loaded)?;
        if before.is_some_and(|before| before != merged) && !args.force.force {
            return Err(Error::Overwrite {
                path: args.out,
                reason: "its table differs from the one that would be written".into(),
            });
        }
        return conclude(&out, &merged, global);
    }
    let mut source = loaded.source()?;
    source.steps = args.steps.taken();
    let tokenizer = loaded.tokenizer.as_ref();
    let (mut calibration, text) = args.text.calibrate(&source, args.tokens, tokenizer, global)?;
    // The published metrics are those of the trained checkpoint, not of the folded one.
    let trained = Model::from_checkpoint(&loaded.checkpoint);
    let held_out = match args.measure_tokens {
        0 => None,
        limit => {
            Some(args.text.tokens(Split::Valid, Some(limit), Some(&trained), tokenizer, global)?)
        }
    };
    let settings = loaded.settings(&text, &args.text, source.steps);
    // Keeps earlier measurements with the same settings.
    let going_on = |mut before: Importance| {
        before.require(&settings, &args.out)?;
        held_out.iter().try_for_each(|on| before.measure_on(Text::of(on), &args.out))?;
        Ok(before)
    };
    let before = match before.map(going_on) {
        Some(Err(_)) if args.force.force => None,
        before => before.transpose()?,
    };
    let progress = bar("published importance", global);
    let published = importance::publish(&trained, &text.tokens, args.text.window, |share| {
        set(&progress, share)
    })?;
    progress.finish_and_clear();
    let mut importance = match before {
        Some(before) => Importance { published, ..before },
        None => Importance::new(settings, published),
    };
    if let Some(held_out) = held_out {
        let save = |importance: &Importance| match out.is_file() {
            true => out.write(&importance.to_bytes()),
            // A pipe gets only the finished result.
            false => Ok(()),
        };
        let measuring = Measuring {
            text: &args.text,
            held_out: &held_out,
            estimates: args.table.estimates(trained.config()),
            path: out.path(),
            save: &save,
            global,
        };
        measuring.arrange(&mut source, &mut calibration, &mut importance)?;
        measuring.measure(&measuring.bench(&source, &calibration), &mut importance, args.part)?;
    }
    conclude(&out, &importance, global)
}

impl Args {
    fn plan(&self) -> Plan {
        let mut inputs = self.text.files();
        inputs.extend(model_files(&self.model, self.tokenizer.as_deref()));
        inputs.extend(self.merge.iter().cloned());
        self.force.plan(inputs)
    }
}

/// Merges importance files.
fn merge(paths: &[PathBuf], loaded: &Loaded) -> Result<Importance> {
    let mut files = paths.iter().map(|path| Ok((path, loaded.importance(path)?)));
    let (_, first) = files.next().expect("there is at least one")?;
    files.try_fold(first, |merged, file: Result<_>| {
        let (path, importance) = file?;
        merged.merge(importance).map_err(|reason| Error::Format {
            kind: "importance file to merge with the others",
            path: path.clone(),
            reason,
        })
    })
}

/// Writes the file and prints a summary.
fn conclude(out: &Output, importance: &Importance, global: Global) -> Result<()> {
    out.write(&importance.to_bytes())?;
    if out.is_standard_output() {
        return Ok(());
    }
    if global.json {
        print_json(&json!({ "out": escaped(out.path()), "importance": importance }))?;
    } else {
        print(importance)?;
        writeln!(
            Stdout,
            "{} layers on {} written to {}",
            importance.published.len(),
            importance.settings.text.name,
            out.path().display()
        )?;
    }
    Ok(())
}

fn print(importance: &Importance) -> Result<()> {
    let mut layers: Vec<_> = importance.published.iter().collect();
    layers.sort_by(|a, b| b.1.score.total_cmp(&a.1.score));
    let mut rows = table(&["layer", "score", "|gradient|", "variance", "|weight|"]);
    for (layer, metrics) in layers {
        rows.add_row([
            layer.clone(),
            format!("{:.3}", metrics.score),
            format!("{:.2e}", metrics.gradient),
            format!("{:.3}", metrics.variance),
            format!("{:.4}", metrics.magnitude),
        ]);
    }
    writeln!(Stdout, "{rows}")?;
    if importance.measured.is_empty() {
        return Ok(());
    }
    let storages: BTreeSet<Storage> =
        importance.measured.values().flat_map(|costs| costs.keys().copied()).collect();
    let names: Vec<String> = storages.iter().map(Storage::to_string).collect();
    let header = std::iter::once("KL in nats").chain(names.iter().map(String::as_str));
    let mut rows = table(&header.collect::<Vec<_>>());
    for (tensor, costs) in &importance.measured {
        let cost = |storage| costs.get(storage).map_or("–".into(), |kl| format!("{kl:.1e}"));
        rows.add_row(std::iter::once(tensor.clone()).chain(storages.iter().map(cost)));
    }
    writeln!(Stdout, "{rows}")?;
    for (layer, symmetry) in importance.symmetries.iter().flatten() {
        writeln!(Stdout, "{layer}: hidden units {}", symmetry.name())?;
    }
    Ok(())
}
