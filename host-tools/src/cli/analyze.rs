//! `resnet-bk analyze`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde_json::json;

use super::common::{Loaded, TextArgs, bar, print_json, set, table};
use crate::budget::{self, Bench};
use crate::cli::Global;
use crate::corpus::Split;
use crate::error::Result;
use crate::importance::{self, Importance};
use crate::quantize::encode::Storage;
use crate::reference::Model;

const EXAMPLES: &str = "\
Examples:
  Importance of every layer of the shipped model, without a corpus:
      resnet-bk analyze models/wikitext2/model.safetensors --out importance.json

  On real text, with more of it for the measured kind:
      resnet-bk analyze model.safetensors --corpus data/wikitext-2 --measure-tokens 32768 \\
          --out importance.json

The file has, per layer, the three published metrics (gradient magnitude 0.5, activation variance
0.3, weight magnitude 0.2, z-scored and joined) and, per tensor and precision, the measured rise in
KL divergence when only that tensor is quantized. `quantize --importance` reads it.";

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
    #[arg(long, default_value_t = 16_384, value_name = "N")]
    tokens: usize,
    /// Tokens on which each tensor and precision is measured; 0 leaves the measurement out.
    #[arg(long, default_value_t = 4_096, value_name = "N")]
    measure_tokens: usize,
    #[command(flatten)]
    text: TextArgs,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let loaded = Loaded::read(&args.model, args.tokenizer.as_deref())?;
    let source = loaded.source(false)?;
    let tokenizer = loaded.tokenizer.as_ref();
    let (calibration, text) = args.text.calibrate(&source, args.tokens, tokenizer, global)?;
    // The published metrics are those of the checkpoint as it was trained, not of the folded one.
    let trained = Model::from_checkpoint(&loaded.checkpoint);
    let progress = bar("published importance", global);
    let published = importance::publish(&trained, &text.tokens, args.text.window, |share| {
        set(&progress, share)
    });
    progress.finish_and_clear();
    let mut importance = Importance::new(loaded.sha256_hex(), &text, args.text.seed, published);
    if args.measure_tokens > 0 {
        let limit = Some(args.measure_tokens);
        let held_out = args.text.tokens(Split::Valid, limit, Some(&trained), tokenizer, global)?;
        importance.measured_on = held_out.name;
        importance.measured_tokens = held_out.tokens.len();
        // What an interrupted run with these settings has measured already.
        if let Some(before) = Importance::read(&args.out, &importance.model_sha256)
            .ok()
            .filter(|before| before.same_measurement(&importance))
        {
            importance.measured = before.measured;
        }
        let bench = Bench::new(&source, &calibration, &held_out.tokens, args.text.window);
        let progress = bar("measured importance", global);
        let known = importance.measured.clone();
        importance.measured = budget::measure(&bench, &known, |table, share| {
            importance.measured.clone_from(table);
            set(&progress, share);
            importance.write(&args.out)
        })?;
        progress.finish_and_clear();
    }
    importance.write(&args.out)?;
    if global.json {
        print_json(&json!({ "out": args.out, "importance": importance }));
    } else {
        print(&importance);
        println!(
            "{} layers on {} written to {}",
            importance.published.len(),
            importance.corpus,
            args.out.display()
        );
    }
    Ok(())
}

fn print(importance: &Importance) {
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
    println!("{rows}");
    if importance.measured.is_empty() {
        return;
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
    println!("{rows}");
}
