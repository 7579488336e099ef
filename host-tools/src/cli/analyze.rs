//! `resnet-bk analyze`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;

use super::common::{Loaded, TextArgs, bar, escaped, print_json, set};
use super::measured::{Measuring, StepArgs};
use crate::cli::Global;
use crate::cli::numbers;
use crate::corpus::Split;
use crate::error::{Error, Result};
use crate::importance::{self, Importance};
use crate::quantize::encode::Storage;
use crate::reference::Model;
use crate::table::table;
use crate::terminal::Stdout;

const EXAMPLES: &str = "\
Examples:
  Importance of every layer of the shipped model, without a corpus:
      resnet-bk analyze models/wikitext2/model.safetensors --out importance.json

  On real text, with more of it for the measured kind:
      resnet-bk analyze model.safetensors --corpus data/wikitext-2 --measure-tokens 32768 \\
          --out importance.json

  Tables that two machines measured on different texts, joined:
      resnet-bk analyze model.safetensors --merge one.json --merge two.json --out importance.json

The file has, per layer, the three published metrics (gradient magnitude 0.5, activation variance
0.3, weight magnitude 0.2, z-scored and joined) and, per tensor and precision, the measured rise in
KL divergence when only that tensor is quantized, with the experts that round better in other units or
another order. `quantize --importance` reads it. An interrupted run goes on where it was.";

/// Find out which layers matter and write it to a file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`analyze --help` shows examples.")]
pub(crate) struct Args {
    /// Checkpoint (safetensors) with its tokenizer.json beside it.
    model: PathBuf,
    /// Importance file to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Tokenizer, if not the tokenizer.json beside the checkpoint.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Tokens for the published metrics and for calibration.
    #[arg(long, value_parser = numbers::tokens(1), default_value_t = 65_536, value_name = "N")]
    tokens: usize,
    /// Tokens on which each tensor and precision is measured; 0 leaves the measurement out.
    #[arg(long, value_parser = numbers::tokens(0), default_value_t = 4_096, value_name = "N")]
    measure_tokens: usize,
    /// Measure nothing and join the tables of these importance files.
    #[arg(long, value_name = "FILE")]
    merge: Vec<PathBuf>,
    #[command(flatten)]
    steps: StepArgs,
    #[command(flatten)]
    text: TextArgs,
}

pub(crate) fn run(mut args: Args, global: Global) -> Result<()> {
    let loaded = Loaded::read(&args.model, args.tokenizer.as_deref(), global)?;
    args.text.fit(loaded.checkpoint.config.positions)?;
    if !args.merge.is_empty() {
        return conclude(&args, &merge(&args.merge, &loaded)?, global);
    }
    let mut source = loaded.source(false)?;
    source.methods = args.steps.methods();
    let tokenizer = loaded.tokenizer.as_ref();
    let (mut calibration, text) = args.text.calibrate(&source, args.tokens, tokenizer, global)?;
    // The published metrics are those of the checkpoint as it was trained, not of the folded one.
    let trained = Model::from_checkpoint(&loaded.checkpoint);
    let progress = bar("published importance", global);
    let published = importance::publish(&trained, &text.tokens, args.text.window, |share| {
        set(&progress, share)
    });
    progress.finish_and_clear();
    let (hash, seed) = (loaded.sha256_hex(), args.text.seed);
    let mut importance = Importance::new(hash, &text, seed, source.methods, published);
    if args.measure_tokens > 0 {
        let limit = Some(args.measure_tokens);
        let held_out = args.text.tokens(Split::Valid, limit, Some(&trained), tokenizer, global)?;
        importance.measure_on(&held_out);
        // What an interrupted run with these settings has measured already.
        if let Ok(before) = Importance::read(&args.out, &importance.model_sha256) {
            importance.resume(before);
        }
        let save = |importance: &Importance| importance.write(&args.out);
        let measuring = Measuring { text: &args.text, held_out: &held_out, save: &save, global };
        measuring.arrange(&mut source, &mut calibration, &mut importance)?;
        measuring.measure(&measuring.bench(&source, &calibration), &mut importance)?;
    }
    conclude(&args, &importance, global)
}

/// Joins importance files.
fn merge(paths: &[PathBuf], loaded: &Loaded) -> Result<Importance> {
    let mut files = paths.iter().map(|path| Ok((path, loaded.importance(path)?)));
    let (_, first) = files.next().expect("there is at least one")?;
    files.try_fold(first, |merged, file: Result<_>| {
        let (path, importance) = file?;
        merged.merge(importance).map_err(|reason| Error::Format {
            kind: "importance file to join with the others",
            path: path.clone(),
            reason,
        })
    })
}

/// Writes the file and shows it.
fn conclude(args: &Args, importance: &Importance, global: Global) -> Result<()> {
    importance.write(&args.out)?;
    if global.json {
        print_json(&json!({ "out": escaped(&args.out), "importance": importance }))?;
    } else {
        print(importance)?;
        writeln!(
            Stdout,
            "{} layers on {} written to {}",
            importance.published.len(),
            importance.corpus,
            args.out.display()
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
