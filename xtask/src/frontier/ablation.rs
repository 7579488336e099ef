//! Ablation of the steps of quantization at equal bytes.

use std::path::PathBuf;

use anyhow::{Context, Result};
use resnet_bk_schema::Step;
use resnet_bk_schema::frontier::{Ablation, Kind};

use super::points::Maker;
use crate::tools::Tools;

/// Steps in the order in which the ablation enables them.
const STEPS: [&[Step]; 8] = [
    &[Step::ScaleSearch],
    &[Step::BiasCorrection],
    &[Step::Gptq],
    &[Step::Descent],
    &[Step::Refit],
    &[Step::Outputs],
    &[Step::Equalize, Step::Permute],
    &[Step::Prefix],
];

/// A policy with steps added one by one, then the budget of the same bytes.
pub(super) fn ablation(
    tools: &Tools,
    maker: &Maker<'_>,
    policy: &str,
    tokens: &[&str],
) -> Result<Vec<Ablation>> {
    let mut blobs = Vec::new();
    let mut names = vec!["round to nearest".to_owned()];
    for count in 0..=STEPS.len() {
        let without: Vec<&str> =
            STEPS[count..].iter().copied().flatten().map(|s| s.name()).collect();
        let without = without.join(",");
        let mut arguments = vec!["--policy", policy];
        if !without.is_empty() {
            arguments.extend(["--without", &without]);
        }
        let name = format!("{policy} {count} steps");
        blobs.push(maker.make(&name, Kind::Uniform, &arguments)?);
        names.extend(STEPS.get(count).map(|steps| {
            let steps: Vec<&str> = steps.iter().map(|step| step.description()).collect();
            format!("+ {}", steps.join(", "))
        }));
    }
    let bytes = blobs[0].bytes.to_string();
    let target = ["--target-bytes", &bytes];
    let name = format!("budget as {policy}, tensors whole");
    blobs.push(maker.undivided(&name, &target)?);
    names.push("+ a precision for every tensor (budget)".to_owned());
    blobs.push(maker.make(&format!("budget as {policy}"), Kind::Budget, &target)?);
    names.push("+ token classes, pruned hidden units".to_owned());
    let paths: Vec<PathBuf> = blobs.iter().map(|blob| blob.path.clone()).collect();
    let evaluation = tools.evaluate(&paths, tokens)?;
    names
        .into_iter()
        .zip(&blobs)
        .zip(&evaluation.blobs)
        .map(|((steps, blob), scored)| {
            let fidelity =
                scored.quality.fidelity.as_ref().context("no fidelity in an ablation")?;
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
