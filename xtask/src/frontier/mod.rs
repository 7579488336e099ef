//! `cargo xtask frontier`: the curve of size against quality, from scratch.

mod ablation;
mod comparison;
mod points;
mod rows;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result};
use resnet_bk_schema::frontier::{Captions, Frontier, Kind};

use crate::process;
use crate::steps::Steps;
use crate::terminal::Stdout;
use crate::tools::{BENCHMARKS, SubjectArgs, Tools};
use points::{Blob, Maker};
use table::Tables;

/// The points of a frontier, except general quantizers and rivals.
struct Points {
    /// Target ratios of budgets.
    ratios: &'static [f64],
    /// Target ratios of fine-tuned budgets.
    tuned: &'static [f64],
    /// Other policies to show.
    policies: &'static [&'static str],
    /// Training tokens of each fine-tuned point.
    train_tokens: u64,
    /// Arguments for the amount of text to evaluate on.
    tokens: &'static [&'static str],
}

const FULL: Points = Points {
    ratios: &[5.0, 6.0, 7.0, 7.5, 8.0, 9.0, 10.0],
    tuned: &[6.0, 7.5, 8.0, 9.0, 10.0],
    policies: &[
        "uniform-int8",
        "uniform-int6",
        "uniform-int5",
        "uniform-int4",
        "uniform-int3",
        "static",
        "dynamic",
        "policies/compact.toml",
    ],
    train_tokens: 1_638_400,
    tokens: &[],
};
/// The points with `--quick`.
const QUICK: Points = Points {
    ratios: &[6.0, 7.5],
    tuned: &[7.5],
    policies: &["uniform-int8", "uniform-int4", "static", "dynamic"],
    train_tokens: 409_600,
    tokens: &["--tokens", "65536"],
};
/// Ratios at which budgets are compared with all other kinds of policy.
const COMPARED: [f64; 4] = [5.0, 6.0, 7.0, 7.5];
/// The policy of the ablation, whose bytes do not depend on the steps.
const ABLATED: &str = "uniform-int4";
/// The blobs whose byte breakdown the report shows.
const IN_REPORT: [&str; 5] = ["static", "dynamic", "uniform-int4", "budget 6x", "tuned 8x"];

/// Options of the frontier.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Fewer points on 65,536 tokens, and no ablation.
    #[arg(long)]
    quick: bool,
    /// Training tokens of each fine-tuned point [default: 1638400; 409600 with --quick].
    #[arg(long, value_name = "N")]
    train_tokens: Option<u64>,
}

/// Computes the frontier.
pub fn run(args: &Args) -> Result<()> {
    let steps = Steps::new(if args.quick { 7 } else { 8 });
    steps.next("building the tools");
    let model = args.subject.model();
    let name = model.file_name().context("--model must name a directory")?.to_string_lossy();
    let work = format!("frontier/{name}");
    let tools = Tools::build(&model, args.subject.corpus.as_deref(), &work, &[BENCHMARKS])?;
    let points = if args.quick { QUICK } else { FULL };
    let tokens = points.tokens;

    steps.next("general quantizers");
    let general = tools.general_quantizers(tokens)?;

    steps.next("measuring what every tensor costs in every precision");
    let maker = Maker::new(&tools, &model)?;

    steps.next("quantizing");
    let mut blobs = Vec::new();
    for policy in points.policies {
        blobs.push(maker.policy(policy)?);
    }
    for &ratio in points.ratios {
        blobs.push(maker.ratio(ratio)?);
    }
    for quality in &general.blobs {
        blobs.push(maker.bytes(quality)?);
    }
    let compared: Vec<f64> = COMPARED.into_iter().filter(|r| points.ratios.contains(r)).collect();
    let rivals = comparison::rivals(&tools, &maker, &compared, &mut blobs)?;

    steps.next("fine-tuning");
    let train_tokens = args.train_tokens.unwrap_or(points.train_tokens).to_string();
    for &ratio in points.tuned {
        blobs.push(maker.tuned(ratio, &["--train-tokens", &train_tokens])?);
    }

    steps.next("evaluating every blob through the integer path");
    let paths: Vec<PathBuf> = blobs.iter().map(|blob| blob.path.clone()).collect();
    let evaluation = tools.evaluate(&paths, tokens)?;

    steps.next("evaluating the weights alone");
    let budgets: Vec<&Blob> = blobs.iter().filter(|blob| blob.kind == Kind::Budget).collect();
    let paths: Vec<PathBuf> = budgets.iter().map(|blob| blob.path.clone()).collect();
    let weights = tools.evaluate(&paths, &[tokens, &["--weights-only"]].concat())?;

    let rows = rows::rows(&blobs, &evaluation, &budgets, &weights, &general)?;
    let ablation = match args.quick {
        true => Vec::new(),
        false => {
            steps.next("what each step gives");
            ablation::ablation(&tools, &maker, ABLATED, tokens)?
        }
    };
    let (fp32_bytes, fp32) = evaluation.checkpoint().context("`eval` gave no checkpoint")?;
    let frontier = Frontier {
        model: process::shown_path(&model),
        corpus: evaluation.corpus.clone(),
        errors_by: Some(evaluation.errors_by.clone()),
        fp32_bytes,
        ppl_fp32: fp32.perplexity,
        ppl_fp32_se: fp32.perplexity_se,
        bits_per_byte_fp32: fp32.bits_per_byte,
        bits_per_byte_fp32_se: fp32.bits_per_byte_se,
        comparisons: comparison::compare(&rivals, &rows)?,
        general: rows::general(&rows)?,
        rows: rows.into_iter().map(|point| point.row).collect(),
        ablation,
        captions: Captions {
            comparisons: comparison::CAPTION.to_owned(),
            general: rows::GENERAL.to_owned(),
        },
        seconds: steps.seconds(),
    };
    let file = tools.work().join("frontier.json");
    let json = serde_json::to_string_pretty(&frontier)?;
    process::write(&file, json.as_bytes())?;
    let shown = blobs.iter().filter(|blob| IN_REPORT.contains(&blob.name.as_str()));
    let page = tools.report(&file, maker.importance(), shown.map(|blob| blob.path.as_path()))?;
    if args.subject.json {
        writeln!(Stdout, "{json}")?;
    } else {
        writeln!(Stdout, "{}", Tables(&frontier))?;
        let (page, file) = (process::shown_path(&page), process::shown_path(&file));
        writeln!(Stdout, "{page} has the curves, {file} the figures")?;
    }
    Ok(())
}
