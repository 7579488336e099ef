//! The figures of the frontier and how they are shown.

use std::fmt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use serde::Serialize;

use super::Frontier;
use super::comparison::Point;
use super::points::{Blob, Kind, Maker};
use crate::errors::{paired, with_error};
use crate::tools::{Evaluation, Fidelity, Quality, Tools};

/// One point.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The whole blob; of a general quantizer its blocks and what stays FP32.
    pub(super) blob_bytes: u64,
    pub(super) ratio: f64,
    ppl: f64,
    ppl_se: Option<f64>,
    ppl_rise_percent: f64,
    ppl_rise_percent_se: Option<f64>,
    bits_per_byte: Option<f64>,
    bits_per_byte_se: Option<f64>,
    /// Mean KL divergence to FP32, nats per token.
    pub(super) kl: f64,
    pub(super) kl_se: Option<f64>,
    /// That without each block of the text.
    #[serde(skip)]
    pub(super) kl_replicates: Vec<f64>,
    top1: f64,
    top1_se: Option<f64>,
    /// KL divergence of the weights alone, activations in FP32.
    weights_kl: Option<f64>,
    weights_kl_se: Option<f64>,
    #[serde(skip)]
    weights_replicates: Vec<f64>,
    /// Of a budget, on the text it was chosen on: predicted and measured KL divergence of the weights.
    predicted_kl: Option<f64>,
    measured_kl: Option<f64>,
}

/// What the general quantizers are.
pub(super) const GENERAL: &str = "Budgets against candle's block types, the weights of both alone, \
activations in FP32. candle rounds to nearest, without calibration. Its types Q2_K to Q6_K store 256 inputs \
of a row together, so rows of 128 would stay FP32; those of 32 serve every row.";

/// A general quantizer and the budget of no more bytes, both by their weights alone.
#[derive(Debug, Serialize)]
pub(super) struct General {
    name: String,
    blob_bytes: u64,
    kl: f64,
    kl_se: Option<f64>,
    budget_bytes: u64,
    budget_kl: f64,
    budget_kl_se: Option<f64>,
    /// How much less KL divergence the budget has.
    less_kl_percent: f64,
    less_kl_percent_se: Option<f64>,
}

/// A policy with some of the steps.
#[derive(Debug, Serialize)]
pub(super) struct Ablation {
    steps: String,
    blob_bytes: u64,
    ppl_rise_percent: f64,
    ppl_rise_percent_se: Option<f64>,
    kl: f64,
    kl_se: Option<f64>,
}

impl Row {
    fn new(name: &str, kind: Kind, bytes: u64, fp32: u64, quality: &Quality) -> Result<Self> {
        let fidelity = quality.fidelity.as_ref();
        let fidelity = fidelity.with_context(|| format!("no fidelity of {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            kind,
            blob_bytes: bytes,
            ratio: fp32 as f64 / bytes as f64,
            ppl: quality.perplexity,
            ppl_se: quality.perplexity_se,
            ppl_rise_percent: fidelity.ppl_rise_percent,
            ppl_rise_percent_se: fidelity.ppl_rise_percent_se,
            bits_per_byte: quality.bits_per_byte,
            bits_per_byte_se: quality.bits_per_byte_se,
            kl: fidelity.kl,
            kl_se: fidelity.kl_se,
            kl_replicates: fidelity.kl_replicates.clone(),
            top1: fidelity.top1,
            top1_se: fidelity.top1_se,
            weights_kl: None,
            weights_kl_se: None,
            weights_replicates: Vec::new(),
            predicted_kl: None,
            measured_kl: None,
        })
    }

    /// With the KL divergence of the weights alone.
    fn with_weights(self, alone: &Fidelity) -> Self {
        Self {
            weights_kl: Some(alone.kl),
            weights_kl_se: alone.kl_se,
            weights_replicates: alone.kl_replicates.clone(),
            ..self
        }
    }
}

/// Every point, the smallest first. `weights` has the budgets' weights alone.
pub(super) fn rows(
    blobs: &[Blob],
    evaluation: &Evaluation,
    budgets: &[&Blob],
    weights: &Evaluation,
    general: &Evaluation,
) -> Result<Vec<Row>> {
    ensure!(evaluation.blobs.len() == blobs.len(), "`eval` gave another number of blobs");
    ensure!(weights.blobs.len() == budgets.len(), "`eval` gave another number of blobs");
    let fp32 = evaluation.fp32_bytes;
    let mut rows = Vec::new();
    for (blob, quality) in blobs.iter().zip(&evaluation.blobs) {
        let mut row = Row::new(&blob.name, blob.kind, blob.bytes, fp32, quality)?;
        let place = budgets.iter().position(|budget| budget.name == blob.name);
        let fidelity = place.and_then(|place| weights.blobs[place].fidelity.as_ref());
        if let Some(alone) = fidelity {
            row = row.with_weights(alone);
        }
        (row.predicted_kl, row.measured_kl) = blob.weights.unzip();
        rows.push(row);
    }
    for quality in &general.blobs {
        let bytes = quality.blob_bytes.context("a general quantizer without a size")?;
        let row = Row::new(&quality.name, Kind::General, bytes, fp32, quality)?;
        rows.push(match &quality.fidelity {
            Some(alone) => row.with_weights(alone),
            None => row,
        });
    }
    rows.sort_by_key(|row| row.blob_bytes);
    Ok(rows)
}

/// General quantizers against budgets.
pub(super) fn general(rows: &[Row]) -> Result<Vec<General>> {
    let general = rows.iter().filter(|row| row.kind == Kind::General);
    general
        .map(|row| {
            let name = format!("budget as {}", row.name);
            let budget = rows.iter().find(|row| row.name == name);
            let budget = budget.with_context(|| format!("`{name}` was not evaluated"))?;
            let budget_kl = budget.weights_kl.context("a budget without its weights alone")?;
            let less = |ours: f64, theirs: f64| 100.0 * (1.0 - ours / theirs);
            Ok(General {
                name: row.name.clone(),
                blob_bytes: row.blob_bytes,
                kl: row.kl,
                kl_se: row.kl_se,
                budget_bytes: budget.blob_bytes,
                budget_kl,
                budget_kl_se: budget.weights_kl_se,
                less_kl_percent: less(budget_kl, row.kl),
                less_kl_percent_se: paired(&budget.weights_replicates, &row.kl_replicates, less),
            })
        })
        .collect()
}

/// Steps in the order in which the ablation adds them.
const STEPS: [(&str, &str); 8] = [
    ("scale-search", "+ scale search"),
    ("bias-correction", "+ bias correction"),
    ("gptq", "+ GPTQ"),
    ("descent", "+ coordinate descent"),
    ("refit", "+ scales refitted to codes"),
    ("outputs", "+ rows make up for each other"),
    ("equalize,permute", "+ hidden units equalized, permuted"),
    ("prefix", "+ biases for the quantized prefix"),
];

/// A policy with more and more steps, then the budget of the same bytes.
pub(super) fn ablation(
    tools: &Tools,
    maker: &Maker<'_>,
    policy: &str,
    tokens: &[&str],
) -> Result<Vec<Ablation>> {
    let mut blobs = Vec::new();
    let mut names = vec!["round to nearest".to_owned()];
    for count in 0..=STEPS.len() {
        let without: Vec<&str> = STEPS[count..].iter().map(|step| step.0).collect();
        let without = without.join(",");
        let mut arguments = vec!["--policy", policy];
        if !without.is_empty() {
            arguments.extend(["--without", &without]);
        }
        let name = format!("{policy} {count} steps");
        blobs.push(maker.make(&name, Kind::Uniform, &arguments)?);
        names.extend(STEPS.get(count).map(|step| step.1.to_owned()));
    }
    let bytes = blobs[0].bytes.to_string();
    let target = ["--target-bytes", &bytes];
    let name = format!("budget as {policy}, tensors whole");
    blobs.push(maker.undivided(&name, &target)?);
    names.push("+ a precision for every tensor (budget)".to_owned());
    blobs.push(maker.make(&format!("budget as {policy}"), Kind::Budget, &target)?);
    names.push("+ classes of tokens, hidden units given up".to_owned());
    let paths: Vec<PathBuf> = blobs.iter().map(|blob| blob.path.clone()).collect();
    let evaluation = tools.evaluate(&paths, tokens)?;
    names
        .into_iter()
        .zip(&blobs)
        .zip(&evaluation.blobs)
        .map(|((steps, blob), quality)| {
            let fidelity = quality.fidelity.as_ref().context("no fidelity in an ablation")?;
            Ok(Ablation {
                steps,
                blob_bytes: blob.bytes,
                ppl_rise_percent: fidelity.ppl_rise_percent,
                ppl_rise_percent_se: fidelity.ppl_rise_percent_se,
                kl: fidelity.kl,
                kl_se: fidelity.kl_se,
            })
        })
        .collect()
}

/// A table whose first column is text.
fn table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(heads.to_vec());
    for row in rows {
        table.add_row(row.into_iter().enumerate().map(|(column, text)| match column {
            0 => Cell::new(text),
            _ => Cell::new(text).set_alignment(CellAlignment::Right),
        }));
    }
    table
}

fn row(row: &Row) -> Vec<String> {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    vec![
        row.name.clone(),
        row.blob_bytes.to_string(),
        format!("{:.2}x", row.ratio),
        with_error(format!("{:.3}", row.ppl), row.ppl_se, 3),
        with_error(format!("{:+.2}", row.ppl_rise_percent), row.ppl_rise_percent_se, 2),
        or_dash(
            row.bits_per_byte.map(|bits| with_error(format!("{bits:.4}"), row.bits_per_byte_se, 4)),
        ),
        with_error(format!("{:.5}", row.kl), row.kl_se, 5),
        or_dash(row.weights_kl.map(|kl| format!("{kl:.5}"))),
        with_error(format!("{:.2}", 100.0 * row.top1), row.top1_se.map(|se| 100.0 * se), 2),
    ]
}

/// The KL divergence of a blob in a comparison.
fn kl(point: &Point) -> String {
    with_error(format!("{:.5}", point.kl), point.kl_se, 5)
}

impl fmt::Display for Frontier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, fp32_bytes, ppl_fp32, ppl_fp32_se, corpus, errors_by, .. } = self;
        let ppl = with_error(format!("{ppl_fp32:.3}"), *ppl_fp32_se, 3);
        writeln!(f, "{model}: {fp32_bytes} bytes of FP32, perplexity {ppl} on {corpus}")?;
        writeln!(f, "± are standard errors by {errors_by}")?;
        let heads = [
            "policy",
            "bytes",
            "ratio",
            "perplexity",
            "rise %",
            "bits/byte",
            "KL",
            "KL weights",
            "top-1 %",
        ];
        writeln!(f, "{}", table(&heads, self.rows.iter().map(row)))?;
        writeln!(
            f,
            "Q4_0 to Q8_0 are candle's, by their weights alone; all else runs as on the device.\n"
        )?;

        writeln!(f, "{}", self.captions.comparisons)?;
        let heads = ["budget", "bytes", "KL", "others: bytes, KL", "less KL than the best, %"];
        let rows = self.comparisons.iter().flat_map(|c| {
            let others =
                c.others.iter().map(|o| format!("{}: {}, {}", o.name, o.blob_bytes, kl(o)));
            let others = others.collect::<Vec<_>>().join("\n");
            let ratio = format!("{}x", c.ratio);
            let whole = format!("{ratio}, tensors whole");
            [(ratio, &c.budget, others), (whole, &c.whole, String::new())].map(
                |(name, ours, others)| {
                    let less = format!("{:.0}", ours.less_kl_percent);
                    let (bytes, kl) = (ours.point.blob_bytes.to_string(), kl(&ours.point));
                    vec![name, bytes, kl, others, with_error(less, ours.less_kl_percent_se, 1)]
                },
            )
        });
        writeln!(f, "{}\n", table(&heads, rows))?;

        writeln!(f, "{}", self.captions.general)?;
        let heads = ["type", "bytes", "KL", "budget bytes", "budget KL", "less KL, %"];
        let rows = self.general.iter().map(|g| {
            vec![
                g.name.clone(),
                g.blob_bytes.to_string(),
                with_error(format!("{:.5}", g.kl), g.kl_se, 5),
                g.budget_bytes.to_string(),
                with_error(format!("{:.5}", g.budget_kl), g.budget_kl_se, 5),
                with_error(format!("{:.1}", g.less_kl_percent), g.less_kl_percent_se, 1),
            ]
        });
        writeln!(f, "{}", table(&heads, rows))?;

        if !self.ablation.is_empty() {
            writeln!(f, "\nWhat each step gives, at equal bytes:")?;
            let heads = ["steps", "bytes", "rise %", "KL"];
            let rows = self.ablation.iter().map(|a| {
                let rise = format!("{:+.2}", a.ppl_rise_percent);
                let rise = with_error(rise, a.ppl_rise_percent_se, 2);
                let kl = with_error(format!("{:.5}", a.kl), a.kl_se, 5);
                vec![a.steps.clone(), a.blob_bytes.to_string(), rise, kl]
            });
            writeln!(f, "{}", table(&heads, rows))?;
        }
        write!(f, "\n{:.0} s in all", self.seconds)
    }
}
