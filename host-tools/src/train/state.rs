//! The resume file: everything needed to continue an interrupted run with the same result.

use crate::checkpoint::ModelConfig;
use crate::checkpoint::safetensors;
use crate::error::{Error, Result};
use crate::files;
use crate::reference::Model;
use crate::train::trainer::{Recipe, Trainer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const ARRAYS: [&str; 3] = ["parameters", "first_moments", "second_moments"];
/// Metadata entry with the progress, beside the settings.
const PROGRESS: &str = "step";

/// Saves the state of a run atomically. `data` identifies the data that the run depends on, such as
/// the hash of its tokenizer.
pub fn save(trainer: &Trainer, data: &BTreeMap<String, String>, path: &Path) -> Result<()> {
    let arrays = [trainer.model.parameters(), &trainer.first, &trainer.second];
    let settings = settings(trainer.model.config(), &trainer.recipe, data);
    write(path, ARRAYS.into_iter().zip(arrays), settings, &trainer.step)
}

/// Loads the state at `path`. Recipe, dimensions and data must match those it was saved with.
pub fn load(
    path: &Path,
    config: ModelConfig,
    recipe: Recipe,
    data: &BTreeMap<String, String>,
) -> Result<Trainer> {
    let mut model = Model::<f32>::zeros(config)?;
    let wanted = settings(model.config(), &recipe, data);
    let names = ARRAYS.map(|name| (name, model.parameters().len()));
    let (step, [parameters, first, second]) = read(path, names, &wanted)?;
    model.parameters_mut().copy_from_slice(&parameters);
    Ok(Trainer::from_parts(model, recipe, step, first, second))
}

/// Writes named arrays with their settings and the progress of the run.
pub(crate) fn write<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (&'static str, &'a [f32])>,
    mut settings: BTreeMap<String, String>,
    progress: &impl Serialize,
) -> Result<()> {
    let mut arrays: Vec<_> = arrays.into_iter().map(|(name, a)| (name, [a.len()], a)).collect();
    arrays.sort_unstable_by_key(|&(name, ..)| name);
    let progress = serde_json::to_string(progress).expect("a plain struct serialises");
    settings.insert(PROGRESS.into(), progress);
    let tensors = arrays.iter().map(|(name, shape, array)| (*name, shape.as_slice(), *array));
    files::write_atomically_by(path, |out| safetensors::write(tensors, &settings, out))
}

/// Reads the progress and arrays of these lengths, if the settings match.
pub(crate) fn read<P: DeserializeOwned, const N: usize>(
    path: &Path,
    arrays: [(&'static str, usize); N],
    wanted: &BTreeMap<String, String>,
) -> Result<(P, [Vec<f32>; N])> {
    let mut container = safetensors::from_bytes(&files::read(path)?, path)?;
    let bad =
        |reason: String| Error::Format { kind: "training state", path: path.to_path_buf(), reason };
    let progress = container.metadata.remove(PROGRESS);
    let progress = progress.and_then(|text| serde_json::from_str(&text).ok());
    let progress =
        progress.ok_or_else(|| bad("it does not record the progress of the run".into()))?;
    let found = &container.metadata;
    let keys: BTreeSet<&String> = wanted.keys().chain(found.keys()).collect();
    let show = |value: Option<&String>| value.map_or("nothing", String::as_str).to_string();
    let differences: Vec<String> = keys
        .into_iter()
        .filter(|&key| wanted.get(key) != found.get(key))
        .map(|key| {
            format!("{key} was {} and is now {}", show(found.get(key)), show(wanted.get(key)))
        })
        .collect();
    if !differences.is_empty() {
        return Err(Error::ResumeMismatch { path: path.to_path_buf(), differences });
    }
    let mut read = arrays.map(|_| Vec::new());
    for (read, (name, length)) in read.iter_mut().zip(arrays) {
        let tensor = container.tensors.remove(name).filter(|t| t.data.len() == length);
        *read = tensor.ok_or_else(|| bad(format!("`{name}` is missing or truncated")))?.data;
    }
    Ok((progress, read))
}

/// Flattens every setting to text: `recipe.batch`, `model.width` and so on.
pub(crate) fn settings(
    config: &ModelConfig,
    recipe: &impl Serialize,
    data: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut add = |group: &str, value: serde_json::Result<Value>| {
        if let Ok(Value::Object(fields)) = value {
            for (name, value) in fields {
                all.insert(format!("{group}.{name}"), value.to_string());
            }
        }
    };
    add("model", serde_json::to_value(config));
    add("recipe", serde_json::to_value(recipe));
    for (name, value) in data {
        all.insert(format!("data.{name}"), value.clone());
    }
    all
}
