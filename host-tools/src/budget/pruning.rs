//! Prunes hidden units of experts.

use resnet_bk_core::blob::TensorId;

use super::Bench;
use crate::error::Result;
use crate::quantize::calibration::Calibration;
use crate::quantize::division::{contributions, least_last};
use crate::tensors::layer_name;

/// Pruning granularity: hidden units that kernels process at once, and a group of codes.
pub(super) const UNITS: usize = 32;
/// Largest rise in KL divergence, in nats per token, that pruning one expert may cause. For scale:
/// the best mixes at a fifth of FP32's size lose 0.01 to 0.02.
const LARGEST_RISE: f64 = 2e-5;

/// Number of hidden units that an expert must keep; `None` if none can be pruned.
pub(super) fn needed(
    bench: &Bench<'_>,
    calibration: &Calibration,
    down: TensorId,
) -> Result<Option<usize>> {
    let source = bench.source();
    let (width, hidden) = source.shape(down);
    let layer = layer_name(down);
    let weights = &source.folded.tensors[&format!("{layer}.weight")].data;
    let adds = contributions(weights, &calibration.statistics(&layer, width, hidden));
    let rises = |kept: usize| {
        let dropped = &least_last(&adds, kept)[kept..];
        let mut without = weights.clone();
        for row in without.chunks_exact_mut(hidden) {
            dropped.iter().for_each(|&unit| row[unit] = 0.0);
        }
        Ok(bench.kl_with(down, &without, None)? > LARGEST_RISE)
    };
    let most = hidden.saturating_sub(1) / UNITS;
    let kept = |steps: usize| (most + 1 - steps) * UNITS;
    let steps = longest(most, |steps| rises(kept(steps)))?;
    Ok((steps > 0).then(|| kept(steps)))
}

/// The largest number of steps, at most `most`, that is not too many; every larger one is. Doubles
/// it until it is too many, then halves the interval.
fn longest(most: usize, mut too_many: impl FnMut(usize) -> Result<bool>) -> Result<usize> {
    let (mut enough, mut limit) = (0, most + 1);
    while limit - enough > 1 {
        let steps = (2 * enough).max(1).min((enough + limit) / 2);
        if too_many(steps)? {
            limit = steps;
        } else {
            enough = steps;
        }
    }
    Ok(enough)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_trials_find_the_largest_number_of_steps() {
        for most in [0, 1, 2, 7, 79] {
            for largest in 0..=most {
                let mut trials = 0;
                let found = longest(most, |steps| {
                    trials += 1;
                    Ok(steps > largest)
                });
                assert_eq!(found.unwrap(), largest);
                assert!(trials <= 13, "{trials} trials for {largest} of {most}");
                assert!(largest > 0 || trials <= 1, "{trials} trials where there is nothing");
            }
        }
    }
}
