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

/// A self-contained HTML page.
pub fn page(findings: &Findings, plots: &[Plot]) -> String {
    let frontier = &findings.frontier;
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">{GENERATOR}\
         <title>{model}</title><style>{STYLE}</style>\n<h1>{model}</h1>\n<p>{subject}.</p>\n",
        model = escaped(&frontier.model),
        subject = escaped(&subject(frontier)),
    );
    for plot in plots {
        html += &format!(
            "<figure id=\"{}\"><h2>{}</h2>\n{}\n<figcaption>{}</figcaption></figure>\n",
            plot.name, plot.title, plot.svg, plot.caption
        );
    }
    let heads = ["policy", "bytes", "ratio", "perplexity", "rise %", "KL", "top-1 %"];
    html += "<h2>Figures</h2>\n";
    let rows = frontier.rows.iter().map(|row| {
        let [rise, kl] = row_loss(row);
        let cells = [
            escaped(&row.name),
            row.blob_bytes.to_string(),
            format!("{:.2}×", row.ratio),
            with_error(format!("{:.3}", row.ppl), row.ppl_se, 3),
            rise,
            kl,
            format!("{:.2}", 100.0 * row.top1),
        ];
        (row.kind.name(), cells.to_vec())
    });
    table(&mut html, &heads, rows);
    if !frontier.ablation.is_empty() {
        html += "<h2>What each step gives</h2>\n";
        let rows = frontier.ablation.iter().map(|row| {
            let rise = (row.ppl_rise_percent, row.ppl_rise_percent_se);
            let [rise, kl] = loss(rise, (row.kl, row.kl_se));
            ("", vec![escaped(&row.steps), row.blob_bytes.to_string(), rise, kl])
        });
        table(&mut html, &["steps", "bytes", "rise %", "KL"], rows);
    }
    html + "</html>\n"
}

fn table<'a>(
    html: &mut String,
    heads: &[&str],
    rows: impl Iterator<Item = (&'a str, Vec<String>)>,
) {
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    *html += &format!("<table><tr>{heads}</tr>\n");
    for (class, cells) in rows {
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        writeln!(html, "<tr class=\"{}\">{cells}</tr>", escaped(class)).expect("a string has room");
    }
    *html += "</table>\n";
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
