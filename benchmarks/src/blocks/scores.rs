//! Scores of one trained model in every storage, kept in a file beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use resnet_bk_core::blob::Precision;
use resnet_bk_schema::Storage;
use resnet_bk_tools::eval::sums::Sums;
use resnet_bk_tools::files;
use serde_json::{Value, json};

use super::budget::{Bench, Table};
use super::network::build;
use super::scoring::Text;
use super::storage::{self, Moments};
use super::tensors::{Failure, Tensors};
use super::trained::Trained;

/// The uniform storages of the comparison, by decreasing bits.
pub(super) const UNIFORM: [Storage; 5] = [
    Storage::INT8,
    Storage::grouped(Precision::Int6, 32),
    Storage::grouped(Precision::Int5, 32),
    Storage::INT4,
    Storage::grouped(Precision::Int3, 32),
];

/// Name of the unquantized model.
pub(super) const FP32: &str = "fp32";

/// One model in one storage.
#[derive(Clone, Debug)]
pub(super) struct Score {
    /// Bytes of the whole model with its tokenizer.
    pub(super) bytes: usize,
    /// Sums of each block of the text.
    pub(super) blocks: Vec<Sums>,
}

/// Scores by the name of the storage.
pub(super) type Scores = BTreeMap<String, Score>;

/// A folder with a trained model, and what is scored.
pub(super) struct Run<'a> {
    pub(super) folder: PathBuf,
    pub(super) trained: Trained,
    /// The scored text and its name.
    pub(super) text: (Text<'a>, &'a str),
    /// The text on which budgets are measured.
    pub(super) held_out: Text<'a>,
    /// Bytes of the tokenizer's section.
    pub(super) tokenizer: usize,
}

impl Run<'_> {
    /// Scores in FP32, uniform storages and budgets of so many bytes, computing what is missing;
    /// without statistics only in FP32.
    pub(super) fn scores(&self, budgets: &[usize]) -> Result<Scores, Failure> {
        let (text, name) = &self.text;
        let cache = self.folder.join(format!("scores-{name}.json"));
        let mut scores = self.read(&cache, text)?;
        let mut add = |name: &str, make: &dyn Fn() -> Result<Option<(usize, Tensors)>, Failure>| {
            if scores.contains_key(name) {
                return Ok(());
            }
            let Some((bytes, tensors)) = make()? else { return Ok(()) };
            let blocks = text.score(&*build(&self.trained.dims, &tensors)?)?;
            eprintln!("{}: {name}, {bytes} bytes", self.folder.display());
            scores.insert(name.to_owned(), Score { bytes, blocks });
            write(&cache, &scores)
        };
        let fp32 = 4 * self.trained.parameters + self.tokenizer;
        add(FP32, &|| Ok(Some((fp32, self.trained.tensors.clone()))))?;
        let statistics = self.folder.join("statistics.safetensors");
        if !statistics.exists() {
            return Ok(scores);
        }
        let moments = Moments::read(&statistics)?;
        for storage in UNIFORM {
            let uniform = || self.stored(&moments, |_| storage).map(Some);
            add(&storage.to_string(), &uniform)?;
        }
        for &budget in budgets {
            add(&budget_name(budget), &|| self.within(budget, &moments))?;
        }
        Ok(scores)
    }

    /// Bytes and weights with every matrix in the storage that `choose` says.
    fn stored(
        &self,
        moments: &Moments,
        choose: impl Fn(&str) -> Storage,
    ) -> Result<(usize, Tensors), Failure> {
        let mut tensors = self.trained.tensors.clone();
        let mut bytes = self.tokenizer;
        for (name, role) in storage::roles(&self.trained.tensors) {
            let own = &self.trained.tensors;
            let stored = storage::store(own, &name, role, choose(&name), moments)?;
            bytes += stored.bytes;
            tensors.0.extend(stored.values);
        }
        Ok((bytes, tensors))
    }

    /// The best mix within so many bytes; `None` if none fits.
    fn within(
        &self,
        budget: usize,
        moments: &Moments,
    ) -> Result<Option<(usize, Tensors)>, Failure> {
        let path = self.folder.join("sensitivities.json");
        let mut bench = Bench::new(&self.trained, moments, self.held_out)?;
        let mut table = if self.is_newer(&path) { read_table(&path)? } else { Table::new() };
        bench.measure(&mut table, |table, share| {
            eprintln!("{}: sensitivities, {:.0} %", self.folder.display(), 100.0 * share);
            let json = serde_json::to_vec(table)?;
            files::write_atomically(&path, &json).map_err(Failure::from)
        })?;
        // What is no matrix is stored alike in every mix.
        let own = &self.trained.tensors;
        let mut rest = self.tokenizer;
        for (name, role) in storage::roles(own).into_iter().filter(|(_, role)| !role.is_matrix()) {
            rest += storage::bytes(own.get(&name)?, role, Storage::INT8);
        }
        let Some(capacity) = budget.checked_sub(rest) else { return Ok(None) };
        let Some(mix) = bench.best(&table, capacity)? else { return Ok(None) };
        let choose = |name: &str| mix.get(name).copied().unwrap_or(Storage::INT8);
        self.stored(moments, choose).map(Some)
    }

    /// Whether a file was written after the model and its statistics.
    fn is_newer(&self, path: &Path) -> bool {
        let time = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        let sources = ["model.safetensors", "statistics.safetensors"];
        let newest = sources.iter().filter_map(|name| time(&self.folder.join(name))).max();
        time(path) >= newest && time(path).is_some()
    }

    /// Scores of an earlier call on the same text.
    fn read(&self, cache: &Path, text: &Text<'_>) -> Result<Scores, Failure> {
        if !self.is_newer(cache) {
            return Ok(Scores::new());
        }
        let json: Value = serde_json::from_slice(&files::read(cache)?)?;
        let mut scores = Scores::new();
        for (name, entry) in json.as_object().into_iter().flatten() {
            let number = |value: &Value| value.as_u64().map(|n| n as usize);
            let block = |block: &Value| {
                Some(Sums {
                    nats: block[0].as_f64()?,
                    bytes: number(&block[1])?,
                    predictions: number(&block[2])?,
                    ..Sums::default()
                })
            };
            let blocks = entry["blocks"].as_array().into_iter().flatten().map(block);
            let blocks: Option<Vec<Sums>> = blocks.collect();
            let found = number(&entry["bytes"]).zip(blocks);
            let (bytes, blocks) =
                found.ok_or_else(|| format!("{} is damaged: remove it", cache.display()))?;
            if blocks.len() == text.blocks.windows.len() {
                scores.insert(name.clone(), Score { bytes, blocks });
            }
        }
        Ok(scores)
    }
}

/// Name of a budget.
pub(super) fn budget_name(bytes: usize) -> String {
    format!("budget {bytes}")
}

fn write(cache: &Path, scores: &Scores) -> Result<(), Failure> {
    let block = |sums: &Sums| json!([sums.nats, sums.bytes, sums.predictions]);
    let entry = |(name, score): (&String, &Score)| {
        let blocks: Vec<Value> = score.blocks.iter().map(block).collect();
        (name.clone(), json!({ "bytes": score.bytes, "blocks": blocks }))
    };
    let json: Value = scores.iter().map(entry).collect::<serde_json::Map<_, _>>().into();
    files::write_atomically(cache, json.to_string().as_bytes()).map_err(Failure::from)
}

fn read_table(path: &Path) -> Result<Table, Failure> {
    Ok(serde_json::from_slice(&files::read(path)?)?)
}
