//! The mix of storages with the least loss within a number of bytes, for any architecture: the
//! product's table of sensitivities and its knapsack, measured once more around the first mix.

use std::collections::BTreeMap;

use resnet_bk_schema::Storage;
use resnet_bk_tools::budget::{Choice, solve};

use super::network::{Network, build};
use super::scoring::Text;
use super::storage::{self, Moments, Role, Stored};
use super::tensors::{Failure, Tensors};
use super::trained::Trained;

/// KL divergence in nats per token by matrix and storage.
pub(super) type Table = BTreeMap<String, BTreeMap<Storage, f64>>;

/// Rounds of measuring around a mix.
const ROUNDS: usize = 2;

/// A model whose storages are searched.
pub(super) struct Bench<'a> {
    trained: &'a Trained,
    moments: &'a Moments,
    text: Text<'a>,
    exact: Vec<Vec<f32>>,
    matrices: Vec<(String, Role)>,
    /// Every matrix in every storage that was needed so far.
    stored: BTreeMap<(usize, Storage), Stored>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        trained: &'a Trained,
        moments: &'a Moments,
        text: Text<'a>,
    ) -> Result<Self, Failure> {
        let network = build(&trained.dims, &trained.tensors)?;
        let exact = text.probabilities(&*network)?;
        let mut matrices = storage::roles(&trained.tensors);
        matrices.retain(|(_, role)| role.is_matrix());
        Ok(Self { trained, moments, text, exact, matrices, stored: BTreeMap::new() })
    }

    /// Completes a table of single matrices; `save` receives it after each of them.
    pub(super) fn measure(
        &mut self,
        table: &mut Table,
        mut save: impl FnMut(&Table, f64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for index in 0..self.matrices.len() {
            let name = self.matrices[index].0.clone();
            let known = table.entry(name.clone()).or_default().clone();
            let missing: Vec<Storage> =
                self.candidates(index)?.filter(|s| !known.contains_key(s)).collect();
            if missing.is_empty() {
                continue;
            }
            for storage in missing {
                let loss = self.loss(&[(index, storage)])?;
                table.entry(name.clone()).or_default().insert(storage, loss);
            }
            save(table, (index + 1) as f64 / self.matrices.len() as f64)?;
        }
        Ok(())
    }

    /// The best storage of every matrix within so many bytes of matrices, by name; `None` if none
    /// fits.
    pub(super) fn best(
        &mut self,
        table: &Table,
        capacity: usize,
    ) -> Result<Option<BTreeMap<String, Storage>>, Failure> {
        let mut options = Vec::new();
        for (index, (name, role)) in self.matrices.clone().into_iter().enumerate() {
            let tensor = self.trained.tensors.get(&name)?;
            let costs = table.get(&name).ok_or_else(|| format!("no entry for {name}"))?;
            let choice = |storage: Storage| {
                let cost = costs.get(&storage).copied().unwrap_or(f64::INFINITY).max(0.0);
                (storage, Choice { bytes: storage::bytes(tensor, role, storage), cost })
            };
            options.push(self.candidates(index)?.map(choice).collect::<Vec<_>>());
        }
        let mut costs: Vec<Vec<Choice>> =
            options.iter().map(|o| o.iter().map(|option| option.1).collect()).collect();
        let Some(mut mix) = solve(&costs, capacity) else { return Ok(None) };
        let chosen = |mix: &[usize]| -> Vec<(usize, Storage)> {
            mix.iter().zip(&options).map(|(&i, o)| o[i].0).enumerate().collect()
        };
        let mut least = self.loss(&chosen(&mix))?;
        for _ in 0..ROUNDS {
            for t in 0..mix.len() {
                for step in [mix[t].wrapping_sub(1), mix[t] + 1] {
                    let Some(&(storage, _)) = options[t].get(step) else { continue };
                    let mut moved = chosen(&mix);
                    moved[t].1 = storage;
                    costs[t][step].cost = costs[t][mix[t]].cost + self.loss(&moved)? - least;
                }
            }
            let Some(next) = solve(&costs, capacity).filter(|next| *next != mix) else { break };
            let loss = self.loss(&chosen(&next))?;
            if loss >= least {
                break;
            }
            (least, mix) = (loss, next);
        }
        let named = chosen(&mix).into_iter().map(|(t, s)| (self.matrices[t].0.clone(), s));
        Ok(Some(named.collect()))
    }

    fn candidates(&self, index: usize) -> Result<impl Iterator<Item = Storage> + use<>, Failure> {
        let (name, role) = &self.matrices[index];
        let tensor = self.trained.tensors.get(name)?;
        Ok(Storage::candidates(storage::columns(tensor, *role)))
    }

    /// KL divergence with these matrices stored, everything else in FP32.
    fn loss(&mut self, mix: &[(usize, Storage)]) -> Result<f64, Failure> {
        let mut tensors: Tensors = self.trained.tensors.clone();
        for &(index, storage) in mix {
            if !self.stored.contains_key(&(index, storage)) {
                let (name, role) = &self.matrices[index];
                let own = &self.trained.tensors;
                let stored = storage::store(own, name, *role, storage, self.moments)?;
                self.stored.insert((index, storage), stored);
            }
            tensors.0.extend(self.stored[&(index, storage)].values.iter().cloned());
        }
        let network: Box<dyn Network> = build(&self.trained.dims, &tensors)?;
        self.text.divergence(&*network, &self.exact)
    }
}
