//! Sensitivities: the loss of quantizing each tensor alone, in each storage.

use std::collections::BTreeMap;
use std::str::FromStr;

use resnet_bk_schema::Storage;

use super::Bench;
use crate::error::Result;
use crate::tensors::weight_name;

/// KL divergence in nats per token by tensor and storage.
pub type Sensitivities = BTreeMap<String, BTreeMap<Storage, f64>>;

/// Measurements of each thread between two calls of `save`: with one, threads would wait for the
/// slowest.
const SAVED: usize = 4;

/// Tensor index, tensor name, storage.
type Entry = (usize, String, Storage);

/// A share of the table, for measuring on several machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which one, from 1 on; 0 is none of the table.
    pub number: usize,
    /// Number of parts, at least 1.
    pub of: usize,
}

impl Part {
    /// Whether the entry at this place belongs to the part.
    fn has(self, place: usize) -> bool {
        place % self.of + 1 == self.number
    }
}

impl FromStr for Part {
    type Err = String;

    /// Parses `3/8`.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').map(|(number, of)| (number.parse(), of.parse()));
        match numbers {
            Some((Ok(number), Ok(of))) if of > 0 && number <= of => Ok(Self { number, of }),
            _ => Err("it must be like 3/8, the third of eight parts".into()),
        }
    }
}

/// Which entries of the table are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entries {
    /// Those of a part. Parts take turns, so that each has an equal share of every tensor.
    Part(Part),
    /// What [`super::estimate()`] needs: one of every tensor, all of a few tensors.
    Sample,
}

/// Tensors of which [`Entries::Sample`] has all entries.
const SAMPLED: usize = 8;

impl Entries {
    /// All of them.
    pub const WHOLE: Self = Self::Part(Part { number: 1, of: 1 });

    /// These entries of a model's table.
    fn of<'a>(self, bench: &'a Bench<'_>) -> impl Iterator<Item = Entry> + 'a {
        let source = bench.source();
        let stride = source.dims.tensor_count().div_ceil(SAMPLED);
        let all = source.dims.tensors().enumerate().flat_map(move |(index, id)| {
            let cols = source.shape(id).1;
            let candidates: Vec<Storage> = Storage::candidates(cols).collect();
            let middle = candidates[candidates.len() / 2];
            let wanted = move |storage: &Storage| {
                self != Self::Sample || *storage == middle || index % stride == stride / 2
            };
            let entry = move |storage| (index, weight_name(id), storage);
            candidates.into_iter().filter(wanted).map(entry)
        });
        let wanted = move |place| match self {
            Self::Part(part) => part.has(place),
            Self::Sample => true,
        };
        all.enumerate().filter(move |(place, _)| wanted(*place)).map(|(_, entry)| entry)
    }
}

fn is_known(known: &Sensitivities, (_, name, storage): &Entry) -> bool {
    known.get(name).is_some_and(|costs| costs.contains_key(storage))
}

/// Whether [`measure`] has nothing left to measure.
pub fn is_complete(bench: &Bench<'_>, known: &Sensitivities, entries: Entries) -> bool {
    entries.of(bench).all(|entry| is_known(known, &entry))
}

/// Measures tensors in the storages of these entries, everything else in FP32, skipping those in
/// `known`. Every now and then `save` receives the table and the completed fraction.
pub fn measure(
    bench: &Bench<'_>,
    known: &Sensitivities,
    entries: Entries,
    mut save: impl FnMut(&Sensitivities, f64) -> Result<()>,
) -> Result<Sensitivities> {
    let all: Vec<Entry> = entries.of(bench).collect();
    let jobs: Vec<_> = all.iter().filter(|entry| !is_known(known, entry)).collect();
    let mut table = known.clone();
    let mut left = jobs.len();
    for jobs in jobs.chunks(SAVED * rayon::current_num_threads()) {
        let steps: Vec<_> = jobs.iter().map(|&&(index, _, storage)| (index, storage)).collect();
        let measured = bench.kl_of_each(bench.exact(), &steps)?;
        for ((_, name, storage), kl) in jobs.iter().zip(measured) {
            table.entry(name.clone()).or_default().insert(*storage, kl);
        }
        left -= jobs.len();
        save(&table, 1.0 - left as f64 / all.len() as f64)?;
    }
    Ok(table)
}
