//! Sensitivities: the loss of quantizing each tensor alone, in each storage.

use std::collections::BTreeMap;

use resnet_bk_schema::Storage;

use super::Bench;
use crate::error::Result;
use crate::tensors::weight_name;

/// KL divergence in nats per token by tensor and storage.
pub type Sensitivities = BTreeMap<String, BTreeMap<Storage, f64>>;

/// Measurements between two calls of `save`.
const PART: usize = 24;

/// Tensor index, tensor name, storage.
type Entry = (usize, String, Storage);

/// All entries of a complete table.
fn entries<'a>(bench: &'a Bench<'_>) -> impl Iterator<Item = Entry> + 'a {
    bench.source().dims.tensors().enumerate().flat_map(|(index, id)| {
        let name = weight_name(id);
        let cols = bench.source().shape(id).1;
        Storage::candidates(cols).map(move |storage| (index, name.clone(), storage))
    })
}

fn is_known(known: &Sensitivities, (_, name, storage): &Entry) -> bool {
    known.get(name).is_some_and(|costs| costs.contains_key(storage))
}

/// Whether [`measure`] has nothing left to measure.
pub fn is_complete(bench: &Bench<'_>, known: &Sensitivities) -> bool {
    entries(bench).all(|entry| is_known(known, &entry))
}

/// Measures every tensor in every storage, everything else in FP32, skipping entries in `known`.
/// After each part, `save` receives the table and the completed fraction.
pub fn measure(
    bench: &Bench<'_>,
    known: &Sensitivities,
    mut save: impl FnMut(&Sensitivities, f64) -> Result<()>,
) -> Result<Sensitivities> {
    let all: Vec<Entry> = entries(bench).collect();
    let jobs: Vec<_> = all.iter().filter(|entry| !is_known(known, entry)).collect();
    let mut table = known.clone();
    let mut left = jobs.len();
    for part in jobs.chunks(PART) {
        let steps: Vec<_> = part.iter().map(|&&(index, _, storage)| (index, storage)).collect();
        let measured = bench.kl_of_each(bench.exact(), &steps)?;
        for ((_, name, storage), kl) in part.iter().zip(measured) {
            table.entry(name.clone()).or_default().insert(*storage, kl);
        }
        left -= part.len();
        save(&table, 1.0 - left as f64 / all.len() as f64)?;
    }
    Ok(table)
}
