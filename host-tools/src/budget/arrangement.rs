//! Chooses the experts whose hidden units are equalized or permuted.

use rayon::prelude::*;
use resnet_bk_core::blob::{Precision, TensorId};

use super::Bench;
use crate::error::Result;
use crate::quantize::calibration::Calibration;
use crate::quantize::encode::Decoded;
use crate::quantize::symmetry::{Symmetries, Symmetry};
use crate::tensors::{layer_name, weight_name};
use crate::threads::Progress;
use resnet_bk_schema::Storage;

/// Storage used to compare symmetries: coarse enough for differences to show.
const STORAGE: Storage = Storage::grouped(Precision::Int3, 32);

/// Tries every symmetry that `steps` allows on each expert alone, with everything else in FP32, and
/// keeps those that lower the KL divergence; with `estimates`, the loss of rounding to nearest,
/// which takes neither a forward pass nor a search of codes. `progress` receives the completed
/// fraction.
pub fn choose_arrangement(
    bench: &Bench<'_>,
    calibration: &Calibration,
    estimates: bool,
    progress: impl Fn(f64) + Sync,
) -> Result<Symmetries> {
    let source = bench.source();
    let experts: Vec<(u32, u32)> = source.experts().collect();
    let progress = Progress::new(experts.len(), progress);
    let chosen: Vec<Option<(String, Symmetry)>> = experts
        .par_iter()
        .map(|&(l, e)| {
            let id = TensorId::ExpertDown(l, e);
            let weights = &source.folded.tensors[&weight_name(id)].data;
            let loss = |symmetry: Option<Symmetry>| {
                let hidden = source.dims.hidden as usize;
                let rearrangement =
                    symmetry.map(|symmetry| symmetry.rearrangement(weights, hidden));
                let rearrangement = rearrangement.as_ref();
                if estimates {
                    return source.rounding_loss(id, STORAGE, rearrangement, calibration);
                }
                let Decoded { weights, biases } =
                    source.rounded(id, STORAGE, rearrangement, calibration)?;
                bench.kl_with(id, &weights, Some(&biases))
            };
            let mut best = (loss(None)?, None);
            for symmetry in Symmetry::allowed(source.steps) {
                let loss = loss(Some(symmetry))?;
                if loss < best.0 {
                    best = (loss, Some((layer_name(id), symmetry)));
                }
            }
            progress.add(1);
            Ok(best.1)
        })
        .collect::<Result<_>>()?;
    Ok(chosen.into_iter().flatten().collect())
}
