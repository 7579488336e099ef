//! Budgets against every other kind of policy, each at the nearest size that is not smaller.
//!
//! Uniform precisions have groups of 8 to 64 inputs. The published policies have one size as
//! published; other sizes come from other precisions, in descending order, for their three tiers of
//! layers. Among nearly equal sizes the rival is the one with the least predicted loss.
//!
//! Budgets may store token classes separately and prune hidden units, unlike their rivals; budgets
//! of whole tensors show the gain from the choice of precisions alone.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, ensure};
use resnet_bk_core::blob::{Precision, TensorLayout, align_up};
use resnet_bk_schema::frontier::{Compared, Comparison, Kind, Point, Row};
use resnet_bk_schema::outputs::{Preview, StoredTensor};
use resnet_bk_schema::{Ladder, Storage};
use serde::Deserialize;

use super::points::{Blob, Maker};
use super::rows::{Measured, less_kl};
use crate::tools::Tools;

/// Group sizes of uniform precisions.
const GROUPS: [usize; 4] = [8, 16, 32, 64];
/// Largest ratio to a budget's size that counts as the same size.
const SAME: f64 = 1.02;

/// Allowance in bytes for the name of a policy.
const NAME: u64 = 32;

/// A possible rival of a budget.
struct Candidate {
    policy: String,
    /// Size of the blob, up to a few bytes for the policy's name in the header.
    bytes: u64,
    /// Sum of the losses of its tensors, each alone; infinite if one was not measured.
    predicted_kl: f64,
}

/// Two budgets of the same size and their rivals, by name.
pub(super) struct Rivals {
    ratio: f64,
    budget: String,
    /// The budget of whole tensors.
    whole: String,
    others: Vec<String>,
}

/// Caption of the comparisons.
pub(super) const CAPTION: &str = "Budgets against the nearest size, not smaller, of every other kind. \
Every budget and rival gets the same quantization of each tensor; only budgets may also store token \
classes apart and prune hidden units; \"tensors whole\" are budgets without either.";

/// Finds the rivals of the budgets with these ratios, and makes those not yet among `blobs`.
pub(super) fn rivals(
    tools: &Tools,
    maker: &Maker<'_>,
    ratios: &[f64],
    blobs: &mut Vec<Blob>,
) -> Result<Vec<Rivals>> {
    let importance = maker.importance();
    let table: Table = serde_json::from_slice(&fs::read(importance)?)?;
    let mut kinds = Vec::new();
    for base in ["uniform-int8", "static", "dynamic"] {
        let preview = tools.preview(&["--policy", base], importance)?;
        let policies = if base == "uniform-int8" { uniform() } else { published(base) };
        kinds.push(
            policies
                .into_iter()
                .map(|(policy, ladder)| table.candidate(policy, &preview, ladder))
                .collect::<Result<Vec<_>>>()?,
        );
    }
    let mut rivals = Vec::new();
    for &ratio in ratios {
        let (budget, whole) = (maker.ratio(ratio)?, maker.whole(ratio)?);
        let bytes = budget.bytes.max(whole.bytes);
        let mut others = Vec::new();
        for candidates in &kinds {
            let Some(policy) = nearest(candidates, bytes) else { continue };
            if !blobs.iter().any(|blob| blob.name == *policy) {
                blobs.push(maker.policy(policy)?);
            }
            others.push(policy.to_owned());
        }
        rivals.push(Rivals { ratio, budget: budget.name, whole: whole.name.clone(), others });
        blobs.push(whole);
    }
    Ok(rivals)
}

/// The rival of a budget of `bytes` bytes.
fn nearest(candidates: &[Candidate], bytes: u64) -> Option<&str> {
    let not_smaller = || candidates.iter().filter(|c| c.bytes >= bytes + NAME);
    let same = not_smaller().filter(|c| c.bytes as f64 <= SAME * bytes as f64);
    let best = same.min_by(|a, b| a.predicted_kl.total_cmp(&b.predicted_kl));
    best.or_else(|| not_smaller().min_by_key(|c| c.bytes)).map(|c| c.policy.as_str())
}

/// The sensitivities of an importance file: KL divergence by tensor and storage.
#[derive(Deserialize)]
struct Table {
    measured: BTreeMap<String, BTreeMap<Storage, f64>>,
}

impl Table {
    /// Loss of a tensor in a storage, summed over its token classes.
    fn cost(&self, tensor: &str, storage: Storage) -> f64 {
        let layer = tensor.trim_end_matches(".weight");
        let is_part = |name: &str| {
            name == tensor
                || name.strip_prefix(layer).is_some_and(|rest| rest.starts_with(".class"))
        };
        let parts = self.measured.iter().filter(|(name, _)| is_part(name));
        let costs: Vec<f64> =
            parts.map(|(_, costs)| costs.get(&storage).copied().unwrap_or(f64::INFINITY)).collect();
        if costs.is_empty() { f64::INFINITY } else { costs.iter().sum() }
    }

    /// The policy with a ladder instead of the FP16, INT8 and INT4 of `preview`.
    fn candidate(&self, policy: String, preview: &Preview, ladder: Ladder) -> Result<Candidate> {
        let mut bytes = preview.blob_bytes;
        let mut predicted_kl = 0.0;
        for tensor in &preview.tensors {
            let storage = match tensor.precision.as_str() {
                "fp16" => ladder.high,
                "int8" => ladder.middle,
                _ => ladder.low,
            };
            predicted_kl += self.cost(&tensor.name, storage);
            bytes += align_up(self::bytes(tensor, storage)?) as u64;
            bytes -= align_up(tensor.bytes) as u64;
        }
        Ok(Candidate { policy, bytes, predicted_kl })
    }
}

/// Bytes of a tensor's section in another storage.
fn bytes(tensor: &StoredTensor, storage: Storage) -> Result<usize> {
    let StoredTensor { name, rows, cols, .. } = tensor;
    ensure!(*cols > 0, "`{name}` has no columns");
    let biased = !name.contains("embedding");
    Ok(TensorLayout::new(storage.precision, *rows, *cols, storage.group, biased).len())
}

/// Uniform policies, for a preview with every tensor in INT8.
fn uniform() -> Vec<(String, Ladder)> {
    let grouped = Precision::ALL.into_iter().filter(|precision| precision.is_grouped());
    let grouped =
        grouped.flat_map(|precision| GROUPS.map(|group| Storage::grouped(precision, group)));
    let policy =
        |storage: Storage| (format!("uniform-{}", storage.short_name()), Ladder::uniform(storage));
    [Storage::INT8, Storage::FP16].into_iter().chain(grouped).map(policy).collect()
}

/// A published policy with every ladder that is not a uniform policy.
fn published(base: &str) -> Vec<(String, Ladder)> {
    let descending = || Storage::CANDIDATES.into_iter().rev();
    let mut policies = Vec::new();
    for (h, high) in descending().enumerate() {
        for (m, middle) in descending().enumerate().skip(h) {
            for low in descending().skip(m).filter(|&low| low != high) {
                let ladder = Ladder { high, middle, low };
                policies.push((format!("{base}{ladder}"), ladder));
            }
        }
    }
    policies
}

/// Comparisons of budgets with their rivals, all of which are among the rows.
pub(super) fn compare(rivals: &[Rivals], rows: &[Measured]) -> Result<Vec<Comparison>> {
    let find = |name: &String| -> Result<&Measured> {
        let is_it = |row: &Row| row.name == *name && row.kind != Kind::General;
        let found = rows.iter().find(|point| is_it(&point.row));
        found.with_context(|| format!("`{name}` was not evaluated"))
    };
    rivals
        .iter()
        .map(|rivals| {
            let others = rivals.others.iter().map(find).collect::<Result<Vec<_>>>()?;
            let best = others.iter().min_by(|a, b| a.row.kl.total_cmp(&b.row.kl));
            let best =
                best.with_context(|| format!("no policy to compare with {}", rivals.budget))?;
            Ok(Comparison {
                ratio: rivals.ratio,
                budget: beside(find(&rivals.budget)?, best),
                whole: beside(find(&rivals.whole)?, best),
                others: others.iter().map(|other| point(&other.row)).collect(),
            })
        })
        .collect()
}

fn point(row: &Row) -> Point {
    let Row { name, blob_bytes, kl, kl_se, .. } = row;
    Point { name: name.clone(), blob_bytes: *blob_bytes, kl: *kl, kl_se: *kl_se }
}

/// A budget compared with the best of the others.
fn beside(budget: &Measured, best: &Measured) -> Compared {
    let Point { name, blob_bytes, kl, kl_se } = point(&budget.row);
    let (less_kl_percent, less_kl_percent_se) =
        less_kl((kl, &budget.kl_replicates), (best.row.kl, &best.kl_replicates));
    Compared { name, blob_bytes, kl, kl_se, less_kl_percent, less_kl_percent_se }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bits_are_among_the_rivals() {
        let uniform: Vec<String> = uniform().into_iter().map(|(policy, _)| policy).collect();
        for policy in ["uniform-int2/8", "uniform-int2/16", "uniform-int2", "uniform-int2/64"] {
            assert!(uniform.iter().any(|name| name == policy), "{policy}: {uniform:?}");
        }
        for base in ["static", "dynamic"] {
            let published = published(base);
            let has = |name: &str| published.iter().any(|(policy, _)| policy == name);
            assert!(has(base) && has(&format!("{base}:int4,int3,int2/16")));
            assert!(!has(&format!("{base}:int2/16,int2/16,int2/16")), "that is a uniform policy");
        }
    }

    #[test]
    fn the_nearest_is_not_smaller_and_of_the_same_size_the_better() {
        let candidate = |policy: &str, bytes, predicted_kl| Candidate {
            policy: policy.to_owned(),
            bytes,
            predicted_kl,
        };
        let candidates = [
            candidate("smaller", 1_000_000, 0.001),
            candidate("as large", 1_000_100, 0.02),
            candidate("as large, better", 1_015_000, 0.01),
            candidate("larger", 1_100_000, 0.0),
        ];
        assert_eq!(nearest(&candidates, 1_000_000), Some("as large, better"));
        assert_eq!(nearest(&candidates, 1_050_000), Some("larger"));
        assert_eq!(nearest(&candidates, 1_100_000), None);
    }
}
