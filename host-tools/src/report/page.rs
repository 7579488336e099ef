//! The HTML report, in one file.

use std::fmt::Write;

use super::{Findings, Plot, loss, row_loss, subject};
use resnet_bk_schema::statistics::with_error;

/// Identifies pages written by this tool.
pub(crate) const GENERATOR: &str = "<meta name=\"generator\" content=\"resnet-bk report\">";

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;\
color:#222}table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;border-bottom:1px solid \
#ddd;text-align:right}td:first-child,th:first-child{text-align:left}figure{margin:2em 0}figcaption{color:\
#555}svg{max-width:100%;height:auto}tr.budget,tr.tuned{font-weight:600}";

/// A table of a page.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// Heading above it.
    pub heading: &'static str,
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// A class for the style of each row, and its cells.
    pub rows: Vec<(&'static str, Vec<String>)>,
}

/// The page of a report.
pub fn page(findings: &Findings, plots: &[Plot]) -> String {
    let frontier = &findings.frontier;
    let rows = frontier.rows.iter().map(|row| {
        let [rise, kl] = row_loss(row);
        let cells = [
            row.name.clone(),
            row.blob_bytes.to_string(),
            format!("{:.2}×", row.ratio),
            with_error(format!("{:.3}", row.ppl), row.ppl_se, 3),
            rise,
            kl,
            format!("{:.2}", 100.0 * row.top1),
        ];
        (row.kind.name(), cells.to_vec())
    });
    let mut tables = vec![Table {
        heading: "Figures",
        columns: vec!["policy", "bytes", "ratio", "perplexity", "rise %", "KL", "top-1 %"],
        rows: rows.collect(),
    }];
    if !frontier.ablation.is_empty() {
        let rows = frontier.ablation.iter().map(|row| {
            let rise = (row.ppl_rise_percent, row.ppl_rise_percent_se);
            let [rise, kl] = loss(rise, (row.kl, row.kl_se));
            ("", vec![row.steps.clone(), row.blob_bytes.to_string(), rise, kl])
        });
        tables.push(Table {
            heading: "What each step gives",
            columns: vec!["steps", "bytes", "rise %", "KL"],
            rows: rows.collect(),
        });
    }
    document(&frontier.model, &format!("{}.", subject(frontier)), plots, &tables)
}

/// A self-contained HTML page.
pub fn document(title: &str, introduction: &str, plots: &[Plot], tables: &[Table]) -> String {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">{GENERATOR}\
         <title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>\n<p>{introduction}</p>\n",
        title = escaped(title),
        introduction = escaped(introduction),
    );
    for plot in plots {
        html += &format!(
            "<figure id=\"{}\"><h2>{}</h2>\n{}\n<figcaption>{}</figcaption></figure>\n",
            plot.name, plot.title, plot.svg, plot.caption
        );
    }
    for Table { heading, columns, rows } in tables {
        let columns: String = columns.iter().map(|column| format!("<th>{column}</th>")).collect();
        html += &format!("<h2>{heading}</h2>\n<table><tr>{columns}</tr>\n");
        for (class, cells) in rows {
            let cells: String =
                cells.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
            writeln!(html, "<tr class=\"{class}\">{cells}</tr>").expect("a string has room");
        }
        html += "</table>\n";
    }
    html + "</html>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
