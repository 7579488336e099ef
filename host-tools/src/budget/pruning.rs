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
    let mut enough = None;
    for kept in (1..hidden).rev().filter(|kept| kept.is_multiple_of(UNITS)) {
        let dropped = &least_last(&adds, kept)[kept..];
        let mut without = weights.clone();
        for row in without.chunks_exact_mut(hidden) {
            dropped.iter().for_each(|&unit| row[unit] = 0.0);
        }
        if bench.kl_with(down, &without, None)? > LARGEST_RISE {
            break;
        }
        enough = Some(kept);
    }
    Ok(enough)
}
