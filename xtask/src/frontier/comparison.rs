//! Budgets against every other kind of policy, each at the nearest size that is not smaller.
//!
//! Uniform precisions come in groups of 8 to 64 inputs. The published policies have one size as
//! published; other sizes come from other precisions for the three kinds of layers that they tell
//! apart, none larger than the one before. Of sizes that are nearly the same, the rival is the one that
//! is predicted to lose least.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::points::{Blob, Kind, Maker};
use super::table::Row;
use crate::tools::{Stored, Tools};

/// Storages of published policies, from large to small: those that sensitivities are measured for.
const LADDER: [&str; 9] =
    ["fp16", "int8", "int6", "int5", "int4/16", "int4", "int4/64", "int3/16", "int3"];
/// Group sizes of uniform precisions.
const GROUPS: [usize; 4] = [8, 16, 32, 64];
/// Sizes that far above a budget's count as the same.
const SAME: f64 = 1.02;

/// A policy that a budget may be compared with.
struct Candidate {
    policy: String,
    bytes: u64,
    /// What its tensors cost on their own, together; infinite where that was not measured.
    predicted_kl: f64,
}

/// A budget and the others that it is compared with, by name.
pub(super) struct Rivals {
    ratio: f64,
    budget: String,
    others: Vec<String>,
}

/// The figures.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    pub(super) ratio: f64,
    pub(super) budget: Point,
    pub(super) others: Vec<Point>,
    /// How much less KL divergence than the best of the others.
    pub(super) less_kl_percent: f64,
}

/// A blob in a comparison.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Point {
    pub(super) name: String,
    pub(super) blob_bytes: u64,
    pub(super) kl: f64,
}

/// Finds the rivals of the budgets with these ratios, which are among `blobs`, and makes those that are
/// not.
pub(super) fn rivals(
    tools: &Tools,
    maker: &Maker<'_>,
    ratios: &[f64],
    blobs: &mut Vec<Blob>,
    importance: &Path,
) -> Result<Vec<Rivals>> {
    let table: Table = serde_json::from_slice(&fs::read(importance)?)?;
    let mut kinds: Vec<Vec<Candidate>> = Vec::new();
    for policies in [uniform(), published("static"), published("dynamic")] {
        let candidate = |policy: String| {
            let preview = tools.preview(&["--policy", &policy], importance)?;
            let predicted_kl = preview.tensors.iter().map(|tensor| table.cost(tensor)).sum();
            Ok(Candidate { policy, bytes: preview.blob_bytes, predicted_kl })
        };
        kinds.push(policies.into_iter().map(candidate).collect::<Result<_>>()?);
    }
    let mut rivals = Vec::new();
    for &ratio in ratios {
        let budget = maker.ratio(ratio, importance)?;
        let mut others = Vec::new();
        for candidates in &kinds {
            let Some(policy) = nearest(candidates, budget.bytes) else { continue };
            if !blobs.iter().any(|blob| blob.name == *policy) {
                blobs.push(maker.policy(policy, importance)?);
            }
            others.push(policy.to_owned());
        }
        rivals.push(Rivals { ratio, budget: budget.name, others });
    }
    Ok(rivals)
}

/// The rival of a budget of so many bytes.
fn nearest(candidates: &[Candidate], bytes: u64) -> Option<&str> {
    let not_smaller = || candidates.iter().filter(|c| c.bytes >= bytes);
    let same = not_smaller().filter(|c| c.bytes as f64 <= SAME * bytes as f64);
    let best = same.min_by(|a, b| a.predicted_kl.total_cmp(&b.predicted_kl));
    best.or_else(|| not_smaller().min_by_key(|c| c.bytes)).map(|c| c.policy.as_str())
}

/// What an importance file says of tensors.
#[derive(Deserialize)]
struct Table {
    measured: BTreeMap<String, BTreeMap<String, f64>>,
}

impl Table {
    fn cost(&self, tensor: &Stored) -> f64 {
        let storage = match tensor.group {
            0 => tensor.precision.clone(),
            group => format!("{}/{group}", tensor.precision),
        };
        let costs = self.measured.get(&tensor.name);
        costs.and_then(|costs| costs.get(&storage)).copied().unwrap_or(f64::INFINITY)
    }
}

fn uniform() -> Vec<String> {
    let mut policies = vec!["uniform-int8".to_owned(), "uniform-fp16".to_owned()];
    for precision in ["int3", "int4", "int5", "int6"] {
        for group in GROUPS {
            policies.push(match group {
                32 => format!("uniform-{precision}"),
                group => format!("uniform-{precision}/{group}"),
            });
        }
    }
    policies
}

fn published(base: &str) -> Vec<String> {
    let mut policies = Vec::new();
    for (h, high) in LADDER.iter().enumerate() {
        for (m, middle) in LADDER.iter().enumerate().skip(h) {
            for low in &LADDER[m..] {
                match (*high, *middle, *low) {
                    ("fp16", "int8", "int4") => policies.push(base.to_owned()),
                    // That would be a uniform policy.
                    (high, _, low) if high == low => {}
                    _ => policies.push(format!("{base}:{high},{middle},{low}")),
                }
            }
        }
    }
    policies
}

/// The figures of rivals, all of which are among the rows.
pub(super) fn compare(rivals: &[Rivals], rows: &[Row]) -> Result<Vec<Comparison>> {
    let point = |name: &String| -> Result<Point> {
        let row = rows.iter().find(|row| row.name == *name && row.kind != Kind::General);
        let row = row.with_context(|| format!("`{name}` was not evaluated"))?;
        Ok(Point { name: name.clone(), blob_bytes: row.blob_bytes, kl: row.kl })
    };
    rivals
        .iter()
        .map(|rivals| {
            let budget = point(&rivals.budget)?;
            let others = rivals.others.iter().map(point).collect::<Result<Vec<_>>>()?;
            let best = others.iter().map(|other| other.kl).fold(f64::INFINITY, f64::min);
            let less_kl_percent = 100.0 * (1.0 - budget.kl / best);
            Ok(Comparison { ratio: rivals.ratio, budget, others, less_kl_percent })
        })
        .collect()
}
