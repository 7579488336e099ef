//! Estimates entries of the table of sensitivities from others.
//!
//! To second order a matrix's error E costs tr(G E A Eᵀ) ([`crate::quantize::calibration`]); with
//! the diagonals of A and G alone, and E that of rounding without compensation, that is a cheap
//! guess c of every entry. Guesses are off by a factor that belongs to the tensor, which one
//! measured entry of it tells, and by one that belongs to the storage (compensation helps coarse
//! ones more), which tensors tell that were measured in every storage:
//!
//! ```text
//! cost(t, s) = measured(t, a) · c(t, s) / c(t, a) · r(s) / r(a)
//! r(s) / r(a) = geometric mean of the same over the tensors that were measured in s and a
//! ```

use std::collections::BTreeMap;

use rayon::prelude::*;
use resnet_bk_schema::Storage;

use super::{Bench, Sensitivities};
use crate::error::Result;
use crate::tensors::weight_name;

/// Guesses and costs below this are zero but for rounding.
const LEAST: f64 = 1e-12;

/// Adds estimates of all entries that are not in `measured`, which holds at least one of each
/// tensor.
pub fn estimate(bench: &Bench<'_>, measured: &Sensitivities) -> Result<Sensitivities> {
    let source = bench.source();
    let ids: Vec<_> = source.dims.tensors().collect();
    let guesses: Vec<BTreeMap<Storage, f64>> = ids
        .par_iter()
        .map(|&id| {
            let guess = |storage| {
                let loss = source.rounding_loss(id, storage, None, bench.calibration())?;
                Ok((storage, loss.max(LEAST)))
            };
            Storage::candidates(source.shape(id).1).map(guess).collect()
        })
        .collect::<Result<_>>()?;
    let known = |t: usize, storage: &Storage| {
        let costs = measured.get(&weight_name(ids[t]))?;
        costs.get(storage).map(|cost| cost.max(LEAST))
    };
    // ln(measured / guess) of every entry that was measured.
    let off = |t: usize, storage: &Storage| Some((known(t, storage)? / guesses[t][storage]).ln());
    // Mean difference of that between two storages, over the tensors that were measured in both.
    let between = |s: &Storage, anchor: &Storage| {
        let all: Vec<f64> = (0..ids.len())
            .filter(|&t| guesses[t].contains_key(s) && guesses[t].contains_key(anchor))
            .filter_map(|t| Some(off(t, s)? - off(t, anchor)?))
            .collect();
        all.iter().sum::<f64>() / all.len().max(1) as f64
    };
    let mut shifts = BTreeMap::new();
    let mut table = measured.clone();
    for (t, &id) in ids.iter().enumerate() {
        let Some(anchor) = guesses[t].keys().copied().find(|s| known(t, s).is_some()) else {
            continue;
        };
        let costs = table.entry(weight_name(id)).or_default();
        for (&storage, guess) in &guesses[t] {
            let shift =
                *shifts.entry((storage, anchor)).or_insert_with(|| between(&storage, &anchor));
            let estimated = guess * (off(t, &anchor).unwrap_or(0.0) + shift).exp();
            costs.entry(storage).or_insert(estimated);
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Entries, measure};
    use crate::eval::sample::sample;
    use crate::quantize::Source;
    use crate::quantize::calibration::Calibration;
    use crate::quantize::tests::{random_checkpoint, random_gated};
    use crate::reference::Model;

    /// Measured entries stay, and estimates are of the right order.
    #[test]
    fn estimates_are_near_what_would_be_measured() {
        for checkpoint in [random_checkpoint(3, 2), random_gated(3, (24, 1, 1))] {
            let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
            let model = Model::from_checkpoint(&source.folded);
            let tokens = sample(&model, 1024, 1, |_| {}).unwrap();
            let calibration = Calibration::collect(&model, &tokens, 16, 1, |_| {}).unwrap();
            let bench = Bench::new(&source, &calibration, &tokens, 16);
            let none = Sensitivities::new();
            let table = |entries| measure(&bench, &none, entries, |_, _| Ok(())).unwrap();
            let (whole, some) = (table(Entries::WHOLE), table(Entries::Sample));
            let count = |table: &Sensitivities| table.values().map(BTreeMap::len).sum::<usize>();
            assert!(count(&some) < count(&whole) && some.len() == whole.len());
            let all = estimate(&bench, &some).unwrap();
            assert_eq!(count(&all), count(&whole));
            let mut errors = Vec::new();
            for (tensor, costs) in &whole {
                for (storage, cost) in costs {
                    let found = all[tensor][storage];
                    match some[tensor].get(storage) {
                        Some(measured) => assert_eq!(found, *measured),
                        None => errors.push((found.max(LEAST) / cost.max(LEAST)).ln().abs()),
                    }
                }
            }
            errors.sort_by(f64::total_cmp);
            let median = errors[errors.len() / 2];
            assert!(median < 2.0f64.ln(), "off by a factor of {}", median.exp());
        }
    }
}
