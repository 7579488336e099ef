//! `cargo xtask frontier`: the curve of size against quality, made from scratch.

mod comparison;
mod points;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::process;
use crate::steps::Steps;
use crate::tools::{BENCHMARKS, SubjectArgs, Tools};
use comparison::Comparison;
use points::{Blob, Kind, Maker};
use table::{Ablation, General, Row};

/// Ratios that budgets are made for.
const RATIOS: [f64; 6] = [5.0, 6.0, 7.0, 7.5, 8.0, 9.0];
/// Those at which they are compared with every other kind of policy.
const COMPARED: [f64; 4] = [5.0, 6.0, 7.0, 7.5];
/// What is shown beside them.
const SHOWN: [&str; 8] = [
    "uniform-int8",
    "uniform-int6",
    "uniform-int5",
    "uniform-int4",
    "uniform-int3",
    "static",
    "dynamic",
    "policies/compact.toml",
];
/// The same with `--quick`.
const QUICK: ([f64; 2], [&str; 4]) =
    ([6.0, 7.5], ["uniform-int8", "uniform-int4", "static", "dynamic"]);
const QUICK_TOKENS: &str = "65536";
/// The policy of the ablation, whose bytes do not depend on the steps.
const ABLATED: &str = "uniform-int4";
/// The blobs whose bytes the report shows.
const IN_REPORT: [&str; 5] = ["static", "dynamic", "uniform-int4", "budget 6x", "budget 7.5x"];
/// Tokens that sensitivities are measured on.
const MEASURE_TOKENS: &str = "8192";

/// What to make.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Fewer points on 65,536 tokens, and no ablation.
    #[arg(long)]
    quick: bool,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
struct Frontier {
    model: String,
    corpus: String,
    fp32_bytes: u64,
    ppl_fp32: f64,
    bits_per_byte_fp32: Option<f64>,
    /// Every point.
    rows: Vec<Row>,
    /// Budgets against the nearest of every other kind of policy.
    comparisons: Vec<Comparison>,
    /// Budgets against general quantizers, weights only.
    general: Vec<General>,
    /// What each step of quantization gives.
    ablation: Vec<Ablation>,
    seconds: f64,
}

/// Makes the frontier.
pub fn run(args: &Args) -> Result<()> {
    let steps = Steps::new(if args.quick { 6 } else { 7 });
    steps.next("building the tools");
    let model = args.subject.model();
    let name = model.file_name().context("--model names no directory")?.to_string_lossy();
    let work = format!("frontier/{name}");
    let tools = Tools::build(&model, args.subject.corpus.as_deref(), &work, &[BENCHMARKS])?;
    let tokens: &[&str] = if args.quick { &["--tokens", QUICK_TOKENS] } else { &[] };

    steps.next("general quantizers");
    let general = tools.general_quantizers(tokens)?;

    steps.next("measuring what every tensor costs in every precision");
    let maker = Maker::new(&tools, &model)?;
    let importance = tools.analyze(&["--measure-tokens", MEASURE_TOKENS])?;

    steps.next("quantizing");
    let (ratios, shown) = if args.quick {
        (QUICK.0.to_vec(), QUICK.1.to_vec())
    } else {
        (RATIOS.to_vec(), SHOWN.to_vec())
    };
    let mut blobs = Vec::new();
    for policy in shown {
        blobs.push(maker.policy(policy, &importance)?);
    }
    for &ratio in &ratios {
        blobs.push(maker.ratio(ratio, &importance)?);
    }
    for quality in &general.blobs {
        blobs.push(maker.bytes(quality, &importance)?);
    }
    let compared: Vec<f64> = COMPARED.into_iter().filter(|r| ratios.contains(r)).collect();
    let rivals = comparison::rivals(&tools, &maker, &compared, &mut blobs, &importance)?;

    steps.next("evaluating every blob through the integer path");
    let paths: Vec<PathBuf> = blobs.iter().map(|blob| blob.path.clone()).collect();
    let evaluation = tools.evaluate(&paths, tokens)?;

    steps.next("evaluating the weights alone");
    let budgets: Vec<&Blob> = blobs.iter().filter(|blob| blob.kind == Kind::Budget).collect();
    let paths: Vec<PathBuf> = budgets.iter().map(|blob| blob.path.clone()).collect();
    let weights = tools.evaluate(&paths, &[tokens, &["--weights-only"]].concat())?;

    let rows = table::rows(&blobs, &evaluation, &budgets, &weights, &general)?;
    let ablation = match args.quick {
        true => Vec::new(),
        false => {
            steps.next("what each step gives");
            table::ablation(&tools, &maker, ABLATED, &importance, tokens)?
        }
    };
    let frontier = Frontier {
        model: process::shown_path(&model),
        corpus: evaluation.corpus,
        fp32_bytes: evaluation.fp32_bytes,
        ppl_fp32: evaluation.fp32.perplexity,
        bits_per_byte_fp32: evaluation.fp32.bits_per_byte,
        comparisons: comparison::compare(&rivals, &rows)?,
        general: table::general(&rows)?,
        rows,
        ablation,
        seconds: steps.seconds(),
    };
    let file = tools.work().join("frontier.json");
    let json = serde_json::to_string_pretty(&frontier)?;
    process::write(&file, json.as_bytes())?;
    let shown = blobs.iter().filter(|blob| IN_REPORT.contains(&blob.name.as_str()));
    let page = tools.report(&file, &importance, shown.map(|blob| blob.path.as_path()))?;
    if args.subject.json {
        println!("{json}");
    } else {
        println!("{frontier}");
        let (page, file) = (process::shown_path(&page), process::shown_path(&file));
        println!("{page} has the curves, {file} the figures");
    }
    Ok(())
}
