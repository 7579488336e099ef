//! The published dynamic policy.
//!
//! Source: T. Arai, ResNet-BK, 2025, `DynamicQuantizationPolicy`: of n layers ranked by importance
//! the first max(1, ⌊0.2·n⌋) are FP16, those up to ⌊0.6·n⌋ INT8 and the rest INT4. Embeddings
//! and the convolutions of gated chains are not Linear layers: not ranked, they take the published
//! default, INT8. Potentials stay in full precision. A [`Ladder`] replaces the three precisions.

use std::collections::BTreeMap;

use resnet_bk_core::blob::Dimensions;
use resnet_bk_schema::{Ladder, Storage};

use crate::error::{Error, Result};
use crate::importance::Importance;
use crate::tensors::{Assignment, is_linear, layer_name};

const HIGH: f64 = 0.2;
const LOW: f64 = 0.4;

pub(super) fn assign(
    name: String,
    dims: &Dimensions,
    importance: &Importance,
    ladder: Ladder,
) -> Result<Assignment> {
    let layers: Vec<String> = dims.tensors().filter(|&id| is_linear(id)).map(layer_name).collect();
    let mut ranked = Vec::with_capacity(layers.len());
    for layer in &layers {
        let score = importance.score(layer).ok_or_else(|| {
            Error::Policy(format!("the importance file has no entry for `{layer}`"))
        })?;
        ranked.push((layer.as_str(), score));
    }
    // Descending; the stable sort keeps equal scores in canonical order.
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1));
    let count = ranked.len() as f64;
    let high = ((count * HIGH) as usize).max(1);
    let low = ((count * (1.0 - LOW)) as usize).max(high + 1);
    let by_layer: BTreeMap<&str, Storage> = ranked
        .iter()
        .enumerate()
        .map(|(rank, &(layer, _))| {
            let storage = match rank {
                rank if rank < high => ladder.high,
                rank if rank < low => ladder.middle,
                _ => ladder.low,
            };
            (layer, storage)
        })
        .collect();
    let storage = dims
        .tensors()
        .map(|id| by_layer.get(layer_name(id).as_str()).copied().unwrap_or(ladder.middle))
        .collect();
    Ok(Assignment { name, storage, potentials_int8: false })
}
