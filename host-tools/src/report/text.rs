//! The report as text for a terminal.

use std::collections::BTreeSet;

use super::{Findings, Part, row_loss, subject};
use crate::table::table;
use resnet_bk_schema::Storage;

/// Maximum characters of a bar.
const BAR: usize = 40;

/// Everything that the page shows, as text.
pub fn text(findings: &Findings) -> String {
    let frontier = &findings.frontier;
    let mut parts = vec![format!("{}: {}", frontier.model, subject(frontier))];
    let (low, high) = frontier.rows.iter().fold((f64::INFINITY, 1e-7f64), |(low, high), row| {
        (low.min(row.kl.max(1e-7)), high.max(row.kl))
    });
    let share = |kl: f64| ((kl.max(1e-7) / low).ln() / (high / low).ln().max(1e-9)).clamp(0.0, 1.0);
    let mut rows = table(&["policy", "bytes", "ratio", "rise %", "KL", "KL, logarithmic"]);
    for row in &frontier.rows {
        let [rise, kl] = row_loss(row);
        rows.add_row([
            row.name.clone(),
            row.blob_bytes.to_string(),
            format!("{:.2}×", row.ratio),
            rise,
            kl,
            format!("{:<BAR$}", "▇".repeat(1 + (share(row.kl) * (BAR - 1) as f64) as usize)),
        ]);
    }
    parts.push(rows.to_string());
    if !findings.sensitivities.is_empty() {
        parts.push(heat_map(findings));
    }
    for (name, bytes) in &findings.blobs {
        let total: usize = bytes.iter().map(|part| part.1).sum();
        let mut rows = table(&[name, "bytes", "%", ""]);
        for (part, bytes) in bytes {
            let share = *bytes as f64 / total as f64;
            rows.add_row([
                Part::name(*part).to_owned(),
                bytes.to_string(),
                format!("{:.1}", 100.0 * share),
                format!("{:<BAR$}", "▇".repeat((share * BAR as f64).round() as usize)),
            ]);
        }
        parts.push(rows.to_string());
    }
    let predicted = frontier.rows.iter().filter(|row| row.predicted_kl.is_some());
    let mut rows = table(&["budget", "predicted KL", "measured KL"]);
    let shown = |kl: Option<f64>| kl.map_or(String::new(), |kl| format!("{kl:.5}"));
    for row in predicted {
        rows.add_row([row.name.clone(), shown(row.predicted_kl), shown(row.measured_kl)]);
    }
    if rows.row_count() > 0 {
        parts.push(rows.to_string());
    }
    parts.join("\n\n")
}

/// KL divergences as shaded characters.
fn heat_map(findings: &Findings) -> String {
    let table_of = &findings.sensitivities;
    let storages: BTreeSet<Storage> =
        table_of.values().flat_map(|costs| costs.keys().copied()).collect();
    let names: Vec<String> = storages.iter().map(Storage::to_string).collect();
    let heads = std::iter::once("KL in nats").chain(names.iter().map(String::as_str));
    let mut rows = table(&heads.collect::<Vec<_>>());
    for (name, costs) in table_of {
        let cell = |storage| costs.get(storage).map_or(String::new(), |&kl| shade(kl));
        let name = name.trim_end_matches(".weight").to_owned();
        rows.add_row(std::iter::once(name).chain(storages.iter().map(cell)));
    }
    rows.to_string()
}

fn shade(kl: f64) -> String {
    let level = ((kl.max(1e-9).log10() + 6.0) / 1.2).clamp(0.0, 4.0) as usize;
    format!("{} {kl:.0e}", [' ', '░', '▒', '▓', '█'][level])
}
