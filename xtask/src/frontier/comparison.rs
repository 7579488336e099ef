//! Budgets against every other kind of policy, each at the nearest size that is not smaller.
//!
//! Uniform precisions come in groups of 8 to 64 inputs. The published policies have one size as
//! published; other sizes come from other precisions for the three kinds of layers that they tell
//! apart, in descending order.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::points::{Blob, Kind, Maker};
use super::table::Row;
use crate::tools::Tools;

/// Precisions of published policies, from large to small.
const LADDER: [&str; 6] = ["fp16", "int8", "int6", "int5", "int4", "int3"];
/// Group sizes of uniform precisions.
const GROUPS: [usize; 4] = [8, 16, 32, 64];

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
    let kinds = [uniform(), published("static"), published("dynamic")];
    let mut sizes: Vec<Vec<(u64, String)>> = Vec::new();
    for policies in kinds {
        let size =
            |policy: String| Ok((tools.predict(&["--policy", &policy], importance)?, policy));
        sizes.push(policies.into_iter().map(size).collect::<Result<_>>()?);
    }
    let mut rivals = Vec::new();
    for &ratio in ratios {
        let budget = maker.ratio(ratio, importance)?;
        let mut others = Vec::new();
        for kind in &sizes {
            let nearest = kind.iter().filter(|(bytes, _)| *bytes >= budget.bytes).min();
            let Some((_, policy)) = nearest else { continue };
            if !blobs.iter().any(|blob| blob.name == *policy) {
                blobs.push(maker.policy(policy, importance)?);
            }
            others.push(policy.clone());
        }
        rivals.push(Rivals { ratio, budget: budget.name, others });
    }
    Ok(rivals)
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
        for (m, middle) in LADDER.iter().enumerate().skip(h + 1) {
            for low in &LADDER[m + 1..] {
                policies.push(match (*high, *middle, *low) {
                    ("fp16", "int8", "int4") => base.to_owned(),
                    _ => format!("{base}:{high},{middle},{low}"),
                });
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
