//! Searches mixes: solves the knapsack, then remeasures and improves.

use resnet_bk_core::blob::align_up;

use super::steps::{Step, around, nearest};
use super::{Bench, Choice, Limit, Sensitivities, solve};
use crate::error::{Error, Result};
use crate::tensors::weight_name;
use resnet_bk_schema::Storage;

/// Maximum number of remeasuring rounds.
const ROUNDS: usize = 4;
/// A mix replaces another only if its KL divergence is below this fraction of the other's.
const WORTH: f64 = 0.998;
/// Bounds of the factor by which a measured step rescales the table's steps beyond it.
const RESCALING: (f64, f64) = (0.25, 4.0);

/// Range of prices of an instruction, in nats per token: with the first nothing changes, with the
/// last nothing else counts. Losses are around 0.01, instructions around a million.
const PRICES: (f64, f64) = (1e-14, 1e-2);
/// Halvings of that range, on a logarithmic scale.
const PRICE_HALVINGS: usize = 16;

/// A mix of precisions with its predicted and measured loss.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Storage of every matrix in canonical order.
    pub storage: Vec<Storage>,
    /// Aligned bytes of all sections.
    pub bytes: usize,
    /// Predicted KL divergence: the sum of the tensors' own costs.
    pub predicted: f64,
    /// Measured KL divergence.
    pub measured: f64,
}

/// Progress of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Progress {
    /// Found a mix of this measured KL divergence.
    Mix(f64),
    /// Measuring steps around the mix; the completed fraction.
    Steps(f64),
}

/// A search over the mixes of one model.
#[derive(Debug)]
pub struct Search<'a> {
    bench: &'a Bench<'a>,
    /// Per tensor, ascending in bytes: choices on the Pareto front of bytes, cost and, under a
    /// limit, instructions.
    options: Vec<Vec<(Storage, Choice)>>,
    /// Instructions of each of these, and how many a mix may take.
    limit: Option<(Vec<Vec<f64>>, f64)>,
    /// The most steps that a round measures.
    remeasured: usize,
}

impl<'a> Search<'a> {
    /// Prepares a search; the table must cover every tensor.
    pub fn new(bench: &'a Bench<'a>, table: &Sensitivities, limit: Option<&Limit>) -> Result<Self> {
        let source = bench.source();
        let instructions =
            |id, storage| limit.map_or(0.0, |limit| limit.instructions(source, id, storage));
        let dims = &source.dims;
        let options = dims.tensors().map(|id| {
            let name = weight_name(id);
            let cols = bench.source().shape(id).1;
            let costs = table.get(&name);
            let mut all = Vec::new();
            for storage in Storage::candidates(cols) {
                let cost =
                    costs.and_then(|costs| costs.get(&storage)).copied().ok_or_else(|| {
                        Error::Policy(format!(
                            "the importance file has no entry for `{name}` in {storage}"
                        ))
                    })?;
                let bytes = bench.source().section_len(id, storage);
                all.push((storage, Choice { bytes, cost: cost.max(0.0) }));
            }
            all.sort_by(|a, b| {
                (a.1.bytes, a.1.cost).partial_cmp(&(b.1.bytes, b.1.cost)).expect("no NaN")
            });
            let mut kept: Vec<(f64, f64)> = Vec::new();
            all.retain(|&(storage, choice)| {
                let own = (choice.cost, instructions(id, storage));
                let keep = kept.iter().all(|other| own.0 < other.0 || own.1 < other.1);
                if keep {
                    kept.push(own);
                }
                keep
            });
            Ok(all)
        });
        let options: Vec<Vec<(Storage, Choice)>> = options.collect::<Result<_>>()?;
        let limit = limit.map(|limit| {
            let of_tensor = |(id, options): (_, &Vec<(Storage, Choice)>)| {
                options.iter().map(|option| instructions(id, option.0)).collect()
            };
            (dims.tensors().zip(&options).map(of_tensor).collect(), limit.total(source))
        });
        Ok(Self { bench, options, limit, remeasured: usize::MAX })
    }

    /// The same, measuring in each round only the `most` steps nearest the decision: for models
    /// whose measurements take long.
    #[must_use]
    pub fn remeasuring(self, most: usize) -> Self {
        Self { remeasured: most, ..self }
    }

    /// The mix of the smallest summed cost within `capacity` aligned bytes and the limit.
    fn solve(&self, costs: &[Vec<Choice>], capacity: usize) -> Option<Vec<usize>> {
        let Some((instructions, limit)) = &self.limit else { return solve(costs, capacity) };
        let at = |price: f64| {
            let priced = |(costs, instructions): (&Vec<Choice>, &Vec<f64>)| {
                let each = costs.iter().zip(instructions);
                each.map(|(c, count)| Choice { cost: c.cost + price * count, ..*c }).collect()
            };
            let priced: Vec<Vec<Choice>> = costs.iter().zip(instructions).map(priced).collect();
            let mix = solve(&priced, capacity)?;
            let taken: f64 = mix.iter().zip(instructions).map(|(&i, counts)| counts[i]).sum();
            (taken <= *limit).then_some(mix)
        };
        if let Some(mix) = at(0.0) {
            return Some(mix);
        }
        let (mut low, mut high) = (PRICES.0.ln(), PRICES.1.ln());
        let mut best = at(high.exp())?;
        for _ in 0..PRICE_HALVINGS {
            let middle = low.midpoint(high);
            match at(middle.exp()) {
                Some(mix) => (high, best) = (middle, mix),
                None => low = middle,
            }
        }
        Some(best)
    }

    /// Aligned bytes of the smallest and the largest mix.
    pub fn range(&self) -> (usize, usize) {
        let bytes = |option: Option<&(Storage, Choice)>| option.map_or(0, |o| align_up(o.1.bytes));
        let smallest = self.options.iter().map(|options| bytes(options.first())).sum();
        let largest = self.options.iter().map(|options| bytes(options.last())).sum();
        (smallest, largest)
    }

    /// Best mix within `capacity` aligned bytes by the table alone, without remeasuring; `None` if
    /// none fits.
    pub fn first(&self, capacity: usize) -> Result<Option<Mix>> {
        let costs = self.costs();
        self.solve(&costs, capacity).map(|mix| self.found(&mix)).transpose()
    }

    /// Best mix within `capacity` aligned bytes: alternates solving and remeasuring until nothing
    /// better is found; `None` if none fits.
    pub fn best(&self, capacity: usize, progress: impl FnMut(Progress)) -> Result<Option<Mix>> {
        let Some(mix) = self.solve(&self.costs(), capacity) else { return Ok(None) };
        self.around(mix, capacity, progress).map(Some)
    }

    /// Best mix within `capacity` aligned bytes found by remeasuring from `storage`; `None` if
    /// `storage` contains a choice that another dominates by the table.
    pub fn improve(
        &self,
        storage: &[Storage],
        capacity: usize,
        progress: impl FnMut(Progress),
    ) -> Result<Option<Mix>> {
        let place = |(options, storage): (&Vec<(Storage, Choice)>, &Storage)| {
            options.iter().position(|option| option.0 == *storage)
        };
        let mix: Option<Vec<usize>> = self.options.iter().zip(storage).map(place).collect();
        mix.map(|mix| self.around(mix, capacity, progress)).transpose()
    }

    fn around(
        &self,
        mut mix: Vec<usize>,
        capacity: usize,
        mut progress: impl FnMut(Progress),
    ) -> Result<Mix> {
        let mut costs = self.costs();
        let mut best = self.found(&mix)?;
        progress(Progress::Mix(best.measured));
        for _ in 0..ROUNDS {
            self.remeasure(&mix, best.measured, &mut costs, &mut progress)?;
            let Some(next) = self.solve(&costs, capacity).filter(|next| *next != mix) else {
                break;
            };
            let found = self.found(&next)?;
            if found.measured >= best.measured * WORTH {
                break;
            }
            progress(Progress::Mix(found.measured));
            (best, mix) = (found, next);
        }
        Ok(best)
    }

    fn costs(&self) -> Vec<Vec<Choice>> {
        self.options.iter().map(|options| options.iter().map(|o| o.1).collect()).collect()
    }

    fn found(&self, mix: &[usize]) -> Result<Mix> {
        let chosen: Vec<(Storage, Choice)> =
            mix.iter().zip(&self.options).map(|(&i, options)| options[i]).collect();
        let storage: Vec<Storage> = chosen.iter().map(|c| c.0).collect();
        let measured = self.bench.kl(&self.stored(mix))?;
        Ok(Mix {
            storage,
            bytes: chosen.iter().map(|c| align_up(c.1.bytes)).sum(),
            predicted: chosen.iter().map(|c| c.1.cost).sum(),
            measured,
        })
    }

    /// Storages of a mix.
    fn stored(&self, mix: &[usize]) -> Vec<Option<Storage>> {
        mix.iter().zip(&self.options).map(|(&i, options)| Some(options[i].0)).collect()
    }

    /// Replaces costs by the measured cost of moving tensors one step up or down from this mix, all
    /// of them or those nearest the decision. Costs of steps beyond are rescaled by the ratio of
    /// measured to tabulated.
    fn remeasure(
        &self,
        mix: &[usize],
        base: f64,
        costs: &mut [Vec<Choice>],
        progress: &mut impl FnMut(Progress),
    ) -> Result<()> {
        let steps = nearest(around(mix, costs), mix, costs, self.remeasured);
        let mixed = self.bench.base(&self.stored(mix))?;
        let mut deltas = Vec::with_capacity(steps.len());
        for part in steps.chunks(8) {
            let storage = |step: &Step| (step.tensor, self.options[step.tensor][step.choice].0);
            let part: Vec<_> = part.iter().map(storage).collect();
            let measured = self.bench.kl_of_each(&mixed, &part)?;
            deltas.extend(measured.into_iter().map(|measured| measured - base));
            progress(Progress::Steps(deltas.len() as f64 / steps.len() as f64));
        }
        let old: Vec<Vec<Choice>> = self.costs();
        for (&Step { tensor: t, choice: i }, delta) in steps.iter().zip(deltas) {
            let (here, old) = (mix[t], &old[t]);
            let own = costs[t][here].cost;
            // Under a limit on instructions, choices of more bytes may cost as much.
            let factor = match delta / (old[i].cost - old[here].cost) {
                ratio if ratio.is_nan() => 1.0,
                ratio => ratio.clamp(RESCALING.0, RESCALING.1),
            };
            costs[t][i].cost = own + delta;
            let beyond: Vec<usize> =
                if i < here { (0..i).collect() } else { (i + 1..old.len()).collect() };
            for o in beyond {
                costs[t][o].cost = costs[t][i].cost + factor * (old[o].cost - old[i].cost);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::{Entries, Part, measure};
    use crate::eval::sample::sample;
    use crate::quantize::Source;
    use crate::quantize::calibration::Calibration;
    use crate::quantize::tests::random_checkpoint;
    use crate::reference::Model;

    /// On a real bench: mixes stay within budget, and a search never ends worse than its first mix
    /// or than a uniform precision of no more bytes.
    #[test]
    fn mixes_keep_their_budget_and_beat_uniform_precisions() {
        let checkpoint = random_checkpoint(3, 2);
        let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
        let model = Model::from_checkpoint(&source.folded);
        let tokens = sample(&model, 512, 1, |_| {}).unwrap();
        let calibration = Calibration::collect(&model, &tokens, 16, 1, |_| {}).unwrap();
        let bench = Bench::new(&source, &calibration, &tokens, 16);
        let mut saved = Sensitivities::new();
        let table = measure(&bench, &saved.clone(), Entries::WHOLE, |table, _| {
            saved.clone_from(table);
            Ok(())
        })
        .unwrap();
        assert_eq!(table, saved);
        // A complete table is not measured again.
        let again = measure(&bench, &table, Entries::WHOLE, |_, _| {
            unreachable!("nothing is left to measure")
        });
        assert_eq!(again.unwrap(), table);
        // Parts are measured alone, and add up to it.
        let mut joined = Sensitivities::new();
        for number in 0..=3 {
            let part = Entries::Part(Part { number, of: 3 });
            let own = measure(&bench, &Sensitivities::new(), part, |_, _| Ok(())).unwrap();
            assert_eq!(own.is_empty(), number == 0);
            for (tensor, costs) in own {
                joined.entry(tensor).or_default().extend(costs);
            }
        }
        assert_eq!(joined, table);

        let search = Search::new(&bench, &table, None).unwrap();
        let (smallest, largest) = search.range();
        assert!(search.first(smallest - 1).unwrap().is_none());
        for uniform in [Storage::INT4, Storage::INT8] {
            let bytes = |id| align_up(source.section_len(id, uniform));
            let capacity: usize = source.dims.tensors().map(bytes).sum();
            let found = search.best(capacity, |_| {}).unwrap().unwrap();
            let first = search.first(capacity).unwrap().unwrap();
            assert!(found.bytes <= capacity && capacity < largest);
            assert!(found.measured <= first.measured);
            let alone = bench.kl(&vec![Some(uniform); source.dims.tensor_count()]).unwrap();
            assert!(found.measured < alone, "{uniform}: {} against {alone}", found.measured);
        }
    }

    #[test]
    fn a_limit_on_instructions_is_kept() {
        let config = crate::checkpoint::ModelConfig {
            width: 64,
            hidden: 32,
            ..random_checkpoint(3, 2).config
        };
        let checkpoint = crate::quantize::tests::random_checkpoint_of(config, 3);
        let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
        let model = Model::from_checkpoint(&source.folded);
        let tokens = sample(&model, 512, 1, |_| {}).unwrap();
        let calibration = Calibration::collect(&model, &tokens, 16, 1, |_| {}).unwrap();
        let bench = Bench::new(&source, &calibration, &tokens, 16);
        let table = measure(&bench, &Sensitivities::new(), Entries::WHOLE, |_, _| Ok(())).unwrap();
        let core = resnet_bk_core::kernels::Core::CortexM4F;
        let capacity = Search::new(&bench, &table, None).unwrap().range().1 / 2;
        let mut before: Option<(f64, f64)> = None;
        for per_mac in [100.0, 2.4, 2.1, 1.9] {
            let limit = Limit::new(core, per_mac).unwrap();
            let search = Search::new(&bench, &table, Some(&limit)).unwrap();
            let found = search.first(capacity).unwrap().unwrap();
            let taken: f64 = source
                .dims
                .tensors()
                .zip(&found.storage)
                .map(|(id, &storage)| limit.instructions(&source, id, storage))
                .sum();
            assert!(found.bytes <= capacity && taken <= limit.total(&source));
            let (predicted, more) = before.unwrap_or((0.0, f64::INFINITY));
            assert!(found.predicted >= predicted && taken <= more);
            before = Some((found.predicted, taken));
        }
        let impossible = Limit::new(core, 0.1).unwrap();
        let search = Search::new(&bench, &table, Some(&impossible)).unwrap();
        assert!(search.first(usize::MAX).unwrap().is_none());
    }

    #[test]
    fn a_table_of_another_model_is_refused() {
        let checkpoint = random_checkpoint(3, 2);
        let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
        let calibration = Calibration::default();
        let bench = Bench::new(&source, &calibration, &[1; 32], 16);
        let error = Search::new(&bench, &Sensitivities::new(), None).unwrap_err().to_string();
        assert!(error.contains("token_embedding.weight"), "{error}");
    }
}
