//! What quantizing one tensor costs: the rise in KL divergence when only that tensor is at a
//! precision and everything else stays FP32.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::error::Result;
use crate::eval::divergence::Divergence;
use crate::quantize::Source;
use crate::quantize::calibration::Calibration;
use crate::quantize::encode::Storage;
use crate::quantize::names::{layer_name, weight_name};
use crate::reference::Model;

/// The precisions that are measured.
const STORAGES: [Storage; 3] = [Storage::INT4, Storage::INT8, Storage::FP16];

/// KL divergence in nats per token to the FP32 model by tensor and precision, over windows of
/// `window` tokens. `progress` is told the share that is done.
pub fn measure(
    source: &Source,
    calibration: &Calibration,
    tokens: &[u32],
    window: usize,
    progress: impl Fn(f64) + Sync,
) -> Result<BTreeMap<String, BTreeMap<String, f64>>> {
    let reference = Model::from_checkpoint(&source.folded);
    let tokens = &tokens[..tokens.len() / window * window];
    let exact = reference.forward(tokens, window);
    let vocab = source.dims.vocab as usize;
    let jobs: Vec<_> =
        source.dims.tensors().flat_map(|id| STORAGES.map(|storage| (id, storage))).collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let measured: Vec<_> = jobs
        .par_iter()
        .map(|&(id, storage)| {
            let encoded = source.encode(id, storage, calibration)?;
            let mut model = reference.clone();
            let name = weight_name(id);
            model
                .tensor_mut(&name)
                .expect("a matrix of the model")
                .copy_from_slice(&encoded.decoded);
            if let Some(bias) = model.tensor_mut(&format!("{}.bias", layer_name(id))) {
                bias.copy_from_slice(&encoded.decoded_biases);
            }
            let logits = model.forward(tokens, window);
            let mut total = Divergence::default();
            for (p, q) in exact.chunks_exact(vocab).zip(logits.chunks_exact(vocab)) {
                total.add(p, q);
            }
            let count = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            progress(count as f64 / jobs.len() as f64);
            Ok((name, storage, total.mean()))
        })
        .collect::<Result<_>>()?;
    let mut table: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for (name, storage, kl) in measured {
        table.entry(name).or_default().insert(storage.precision.name().into(), kl);
    }
    Ok(table)
}
