//! The resume file: everything that a killed run needs to go on as if nothing had happened.

use crate::checkpoint::safetensors::{self, Container};
use crate::checkpoint::{ModelConfig, Tensor};
use crate::error::{Error, Result};
use crate::files;
use crate::reference::Model;
use crate::train::trainer::{Recipe, Trainer};
use std::collections::BTreeMap;
use std::path::Path;

const ARRAYS: [&str; 3] = ["parameters", "first_moments", "second_moments"];

/// Writes the state of a run, wholly or not at all. `data` names the data that the run depends on,
/// such as the hash of its tokenizer: a run is only resumed with the same.
pub fn save(trainer: &Trainer, data: &BTreeMap<String, String>, path: &Path) -> Result<()> {
    let arrays = [trainer.model.parameters(), &trainer.first, &trainer.second];
    let tensor = |data: &[f32]| Tensor { shape: vec![data.len()], data: data.to_vec() };
    let mut metadata = settings(trainer.model.config(), &trainer.recipe, data);
    metadata.insert("step".into(), trainer.step.to_string());
    let container = Container {
        tensors: ARRAYS.iter().zip(arrays).map(|(n, a)| (n.to_string(), tensor(a))).collect(),
        metadata,
    };
    files::write_atomically(path, &safetensors::to_bytes(&container))
}

/// Continues the run whose state `path` holds. The recipe, the dimensions and the data must be
/// those that it was started with; the number of threads may differ.
pub fn load(
    path: &Path,
    config: ModelConfig,
    recipe: Recipe,
    data: &BTreeMap<String, String>,
    threads: usize,
) -> Result<Trainer> {
    let mut container = safetensors::from_bytes(&files::read(path)?, path)?;
    let bad =
        |reason: String| Error::Format { kind: "training state", path: path.to_path_buf(), reason };
    let step = container.metadata.remove("step").and_then(|s| s.parse().ok());
    let step = step.ok_or_else(|| bad("it does not say which step it was saved at".into()))?;
    let wanted = settings(&config, &recipe, data);
    let keys: std::collections::BTreeSet<&String> =
        wanted.keys().chain(container.metadata.keys()).collect();
    let show = |value: Option<&String>| value.map_or("nothing", String::as_str).to_string();
    let differences: Vec<String> = keys
        .into_iter()
        .filter(|&key| wanted.get(key) != container.metadata.get(key))
        .map(|key| {
            let (found, wanted) = (container.metadata.get(key), wanted.get(key));
            format!("{key} was {} and is now {}", show(found), show(wanted))
        })
        .collect();
    if !differences.is_empty() {
        return Err(Error::ResumeMismatch { path: path.to_path_buf(), differences });
    }
    let mut model = Model::<f32>::zeros(config)?;
    let mut array = |name: &str| {
        let tensor = container.tensors.remove(name);
        let tensor = tensor.filter(|t| t.data.len() == model.parameters().len());
        tensor.map(|t| t.data).ok_or_else(|| bad(format!("`{name}` is missing or cut short")))
    };
    let [parameters, first, second] = ARRAYS.map(&mut array);
    let (parameters, first, second) = (parameters?, first?, second?);
    model.parameters_mut().copy_from_slice(&parameters);
    Ok(Trainer::from_parts(model, recipe, step, first, second, threads))
}

/// Every setting as text: `recipe.batch`, `model.width` and so on.
fn settings(
    config: &ModelConfig,
    recipe: &Recipe,
    data: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut add = |group: &str, value: serde_json::Result<serde_json::Value>| {
        if let Ok(serde_json::Value::Object(fields)) = value {
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
