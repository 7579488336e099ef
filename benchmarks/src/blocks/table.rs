//! The comparison: models by kind and size, each the mean over its seeds.

use resnet_bk_schema::statistics::{Estimate, paired_error, with_error};
use serde_json::{Value, json};

use super::cost::Cost;
use super::scores::{FP32, Scores, UNIFORM, budget_name};
use super::scoring::bits_per_byte;

/// Models of one kind and size, trained from different seeds.
pub(super) struct Group {
    pub(super) label: String,
    /// Whether it is a gated chain.
    pub(super) ours: bool,
    pub(super) parameters: usize,
    pub(super) cost: Cost,
    /// Scores of each seed.
    pub(super) seeds: Vec<Scores>,
}

/// One line: a group in one storage.
pub(super) struct Line<'a> {
    group: &'a Group,
    storage: String,
    /// Mean bytes over seeds.
    bytes: usize,
    /// Mean bits per byte over seeds.
    bits: Estimate,
    /// Standard deviation over seeds; `None` for a single one.
    spread: Option<f64>,
    /// Difference to the first gated chain in the same storage, and its standard error by blocks
    /// of the text, paired.
    difference: Option<(f64, Option<f64>)>,
}

/// Every group in every storage that all its seeds were scored in.
pub(super) fn lines<'a>(groups: &'a [Group], budgets: &[usize]) -> Vec<Line<'a>> {
    let mut storages = vec![FP32.to_owned()];
    storages.extend(UNIFORM.iter().map(ToString::to_string));
    storages.extend(budgets.iter().copied().map(budget_name));
    let ours = groups.iter().find(|group| group.ours);
    let mut lines = Vec::new();
    for storage in &storages {
        let reference = ours.and_then(|group| mean(group, storage));
        for group in groups {
            let Some((bytes, bits, spread)) = mean(group, storage) else { continue };
            let is_reference = ours.is_some_and(|ours| std::ptr::eq(ours, group));
            let difference = reference.as_ref().filter(|_| !is_reference).map(|(_, own, _)| {
                let error = paired_error(&bits.replicates, &own.replicates, |a, b| a - b);
                (bits.value - own.value, error)
            });
            let storage = storage.clone();
            lines.push(Line { group, storage, bytes, bits, spread, difference });
        }
    }
    lines
}

/// Bytes, bits per byte and their deviation over the seeds of a group in one storage.
fn mean(group: &Group, storage: &str) -> Option<(usize, Estimate, Option<f64>)> {
    let scores: Option<Vec<_>> = group.seeds.iter().map(|seed| seed.get(storage)).collect();
    let scores = scores.filter(|scores| !scores.is_empty())?;
    let count = scores.len() as f64;
    let each: Vec<Estimate> = scores.iter().map(|score| bits_per_byte(&score.blocks)).collect();
    let value = each.iter().map(|bits| bits.value).sum::<f64>() / count;
    let replicates = (0..each[0].replicates.len())
        .map(|i| each.iter().map(|bits| bits.replicates[i]).sum::<f64>() / count)
        .collect();
    let squares = each.iter().map(|bits| (bits.value - value).powi(2)).sum::<f64>();
    let spread = (count > 1.0).then(|| (squares / (count - 1.0)).sqrt());
    let bytes = scores.iter().map(|score| score.bytes).sum::<usize>() / scores.len();
    Some((bytes, Estimate { value, replicates }, spread))
}

/// Prints both tables: what a model costs, and what it predicts in which storage.
pub(super) fn print(groups: &[Group], lines: &[Line<'_>], text: &str, errors_by: &str) {
    let width = groups.iter().map(|g| g.label.chars().count()).max().unwrap_or(0).max(5);
    println!(
        "{:<width$} {:>5} {:>10} {:>11} {:>10}",
        "model", "seeds", "parameters", "state bytes", "MAC/token"
    );
    for Group { label, parameters, cost, seeds, .. } in groups {
        let (seeds, state, macs) = (seeds.len(), 4 * cost.state, cost.macs);
        println!("{label:<width$} {seeds:>5} {parameters:>10} {state:>11} {macs:>10}");
    }
    let mut last = "";
    for Line { group, storage, bytes, bits, spread, difference } in lines {
        if storage != last {
            println!(
                "\n{storage:<width$} {:>10} {:>17} {:>10} {:>18}",
                "bytes", "bits per byte", "of seeds", "to gated chain"
            );
            last = storage;
        }
        let value = with_error(format!("{:.4}", bits.value), bits.standard_error(), 4);
        let spread = spread.map_or("–".into(), |spread| format!("± {spread:.4}"));
        let difference = match *difference {
            Some((value, error)) => with_error(format!("{value:+.4}"), error, 4),
            None => String::new(),
        };
        let label = &group.label;
        println!("{label:<width$} {bytes:>10} {value:>17} {spread:>10} {difference:>18}");
    }
    println!(
        "\n{text}; quantized: weights alone, activations in FP32; bytes with the tokenizer, without \
         a header; ± are standard errors by {errors_by}, of seeds their deviation"
    );
}

/// The comparison as JSON.
pub(super) fn json(lines: &[Line<'_>], text: &str, errors_by: &str) -> Value {
    let line = |line: &Line<'_>| {
        let Group { label, parameters, cost, seeds, .. } = line.group;
        json!({
            "model": label,
            "seeds": seeds.len(),
            "parameters": parameters,
            "state_bytes_fp32": 4 * cost.state,
            "macs_per_token": cost.macs,
            "storage": line.storage,
            "bytes": line.bytes,
            "bits_per_byte": line.bits.value,
            "bits_per_byte_se": line.bits.standard_error(),
            "bits_per_byte_sd_of_seeds": line.spread,
            "difference": line.difference.map(|(value, _)| value),
            "difference_se": line.difference.and_then(|(_, error)| error),
        })
    };
    let lines: Vec<Value> = lines.iter().map(line).collect();
    json!({ "text": text, "errors_by": errors_by, "lines": lines })
}

#[cfg(test)]
mod tests {
    use resnet_bk_tools::eval::sums::Sums;

    use super::super::scores::Score;
    use super::*;

    /// A group whose seeds lose so many bits per byte on each of three blocks.
    fn group(ours: bool, seeds: &[[f64; 3]]) -> Group {
        let sums = |bits: f64| Sums {
            nats: bits * 100.0 * std::f64::consts::LN_2,
            bytes: 100,
            predictions: 40,
            ..Sums::default()
        };
        let scores = |bits: &[f64; 3]| {
            Scores::from([(FP32.into(), Score { bytes: 8, blocks: bits.map(sums).to_vec() })])
        };
        Group {
            label: if ours { "ours" } else { "theirs" }.into(),
            ours,
            parameters: 2,
            cost: Cost { state: 1, macs: 1 },
            seeds: seeds.iter().map(scores).collect(),
        }
    }

    #[test]
    fn differences_are_paired_and_seeds_averaged() {
        let groups = [
            group(true, &[[1.0, 2.0, 3.0], [1.2, 2.2, 3.2]]),
            group(false, &[[1.5, 2.5, 3.5], [1.5, 2.5, 3.5]]),
        ];
        let lines = lines(&groups, &[]);
        assert_eq!(lines.len(), 2);
        assert!((lines[0].bits.value - 2.1).abs() < 1e-12);
        assert!((lines[0].spread.unwrap() - 0.02f64.sqrt()).abs() < 1e-12);
        assert!(lines[0].difference.is_none());
        let (value, error) = lines[1].difference.unwrap();
        assert!((value - 0.4).abs() < 1e-12 && error.unwrap() < 1e-12);
        let json = json(&lines, "text", "3 articles");
        assert!((json["lines"][1]["difference"].as_f64().unwrap() - 0.4).abs() < 1e-12);
    }
}
