//! The tables of the frontier.

use std::fmt;

use comfy_table::{Cell, CellAlignment, Table, presets::UTF8_FULL_CONDENSED};
use resnet_bk_schema::frontier::{Frontier, Row};
use resnet_bk_schema::statistics::with_error;

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
        kl(row.kl, row.kl_se),
        or_dash(row.weights_kl.map(|kl| format!("{kl:.5}"))),
        with_error(format!("{:.2}", 100.0 * row.top1), row.top1_se.map(|se| 100.0 * se), 2),
    ]
}

fn kl(kl: f64, error: Option<f64>) -> String {
    with_error(format!("{kl:.5}"), error, 5)
}

/// The tables of a frontier, for a terminal.
pub(super) struct Tables<'a>(pub(super) &'a Frontier);

impl fmt::Display for Tables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(frontier) = self;
        let Frontier { model, fp32_bytes, ppl_fp32, ppl_fp32_se, corpus, .. } = frontier;
        let ppl = with_error(format!("{ppl_fp32:.3}"), *ppl_fp32_se, 3);
        writeln!(f, "{model}: {fp32_bytes} bytes of FP32, perplexity {ppl} on {corpus}")?;
        if let Some(errors_by) = &frontier.errors_by {
            writeln!(f, "± are standard errors by {errors_by}")?;
        }
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
        writeln!(f, "{}", table(&heads, frontier.rows.iter().map(row)))?;
        writeln!(
            f,
            "Q4_0 to Q8_0 are candle's, by their weights alone; all else runs as on the device.\n"
        )?;

        writeln!(f, "{}", frontier.captions.comparisons)?;
        let heads = ["budget", "bytes", "KL", "others: bytes, KL", "less KL than the best, %"];
        let rows = frontier.comparisons.iter().flat_map(|c| {
            let others = c.others.iter();
            let others =
                others.map(|o| format!("{}: {}, {}", o.name, o.blob_bytes, kl(o.kl, o.kl_se)));
            let others = others.collect::<Vec<_>>().join("\n");
            let ratio = format!("{}x", c.ratio);
            let whole = format!("{ratio}, tensors whole");
            [(ratio, &c.budget, others), (whole, &c.whole, String::new())].map(
                |(name, ours, others)| {
                    let less = format!("{:.0}", ours.less_kl_percent);
                    let (bytes, kl) = (ours.blob_bytes.to_string(), kl(ours.kl, ours.kl_se));
                    vec![name, bytes, kl, others, with_error(less, ours.less_kl_percent_se, 1)]
                },
            )
        });
        writeln!(f, "{}\n", table(&heads, rows))?;

        writeln!(f, "{}", frontier.captions.general)?;
        let heads = ["type", "bytes", "KL", "budget bytes", "budget KL", "less KL, %"];
        let rows = frontier.general.iter().map(|g| {
            vec![
                g.name.clone(),
                g.blob_bytes.to_string(),
                kl(g.kl, g.kl_se),
                g.budget_bytes.to_string(),
                kl(g.budget_kl, g.budget_kl_se),
                with_error(format!("{:.1}", g.less_kl_percent), g.less_kl_percent_se, 1),
            ]
        });
        writeln!(f, "{}", table(&heads, rows))?;

        if !frontier.ablation.is_empty() {
            writeln!(f, "\nWhat each step gives, at equal bytes:")?;
            let heads = ["steps", "bytes", "rise %", "KL"];
            let rows = frontier.ablation.iter().map(|a| {
                let rise = format!("{:+.2}", a.ppl_rise_percent);
                let rise = with_error(rise, a.ppl_rise_percent_se, 2);
                vec![a.steps.clone(), a.blob_bytes.to_string(), rise, kl(a.kl, a.kl_se)]
            });
            writeln!(f, "{}", table(&heads, rows))?;
        }
        write!(f, "\n{:.0} s in all", frontier.seconds)
    }
}
