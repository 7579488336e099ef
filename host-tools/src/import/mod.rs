//! Imports models trained elsewhere: `.pt`, safetensors, and checkpoints of several files.
//!
//! Either the published ResNet-BK, T. Arai's `Project-ResNet-BK-An-O-N-Language-Model-Architecture`
//! at commit 518528f, or a model with our names of tensors (`docs/checkpoint.md`), as the modules
//! in `pytorch/` have them. Dimensions are inferred from the tensors; the few that are not in the
//! file are given, or assumed. Published buffers (`h0_diag_base`, `h0_sub_base`, `h0_super_base`,
//! `z`) become the trained `diagonal` and `log_eta` and the constant `off_diagonal`. A file of
//! another revision would load but compute nonsense, so it is rejected by name.
//!
//! The way of a tensor: `source` finds it in a file, `state` finds the model that it belongs
//! to, `layout` checks its name and shape, then it is read and converted.

mod buffers;
mod dimensions;
mod element;
mod layout;
#[cfg(test)]
mod mutated;
mod names;
mod options;
mod pickle;
mod refusal;
#[cfg(test)]
mod refused;
#[cfg(test)]
mod saved;
mod shapes;
mod source;
mod state;
mod survey;
mod surveying;
#[cfg(test)]
mod tests;
mod tying;
mod variants;
mod view;
#[cfg(test)]
mod written;

pub use dimensions::Dimensions;
pub use options::Options;
pub use survey::{Added, Ignored, Mapped, Reason, Survey};

use crate::checkpoint::{CONFIG_KEY, Checkpoint, FORMAT_KEY, IMPORTED_KEY, ModelConfig};
use crate::error::{Error, Result};
use refusal::Refusal;
use shapes::{Shape, Shapes};
use source::Source;
use state::State;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use view::Stored;

/// Provenance key for the tensors that were not imported, separated by spaces.
pub const LEFT_OUT_KEY: &str = "imported_without";

/// An imported model.
#[derive(Debug)]
pub struct Imported {
    /// The model in our layout.
    pub checkpoint: Checkpoint,
    /// What the file holds, and what became of it.
    pub survey: Survey,
}

/// Imports the checkpoint at `path`: a file, an index of several, or a folder with one of them.
pub fn import(path: &Path, options: &Options) -> Result<Imported> {
    let source = Source::open(path)?;
    let sha256 = source::sha256(&source.files)?;
    from_source(source, path, sha256, options).map_err(|error| match error {
        Error::Import { path, problems, .. }
            if problems.iter().any(|problem| problem.ends_with("is missing"))
                && let Some(index) = source::index_of(&path) =>
        {
            let remedy = format!(
                "it is one of several files, import all of them: `resnet-bk import {} \
                 --out model.safetensors`",
                index.display()
            );
            Error::Import { path, problems, remedy }
        }
        error => error,
    })
}

/// Lists the tensors of a checkpoint that is refused.
pub fn contents(path: &Path) -> Result<Vec<Ignored>> {
    Ok(surveying::contents(&Source::open(path)?))
}

/// Imports a checkpoint that is a single file of these bytes. `path` is for messages and
/// provenance.
pub fn from_bytes(bytes: &[u8], path: &Path, options: &Options) -> Result<Imported> {
    let sha256 = crate::digest::sha256(bytes);
    from_source(Source::from_bytes(bytes, path)?, path, sha256, options)
}

/// The files that an import of `path` reads.
pub fn files(path: &Path) -> Vec<PathBuf> {
    source::files(path)
}

fn from_source(
    mut source: Source<'_>,
    path: &Path,
    sha256: String,
    options: &Options,
) -> Result<Imported> {
    let refused = |refusal: Refusal| refusal.of_file(path);
    let recorded = recorded(&source.metadata).map_err(refused)?;
    let states = state::states(&source.dictionaries).map_err(refused)?;
    let plan = |state: &State<Stored>| {
        layout::plan(&shapes(state), recorded.as_ref(), &source.settings, options)
    };
    let wanted = options.state.as_deref();
    let state = state::choose(&states, wanted, |state| plan(state).is_ok()).map_err(refused)?;
    let plan = plan(state).map_err(refused)?;
    let survey = surveying::survey(&source, &states, state, &plan);
    let mut provenance = provenance(&source.metadata, recorded.is_some());
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    provenance.insert(IMPORTED_KEY.into(), file.into_owned());
    provenance.insert("imported_sha256".into(), sha256);
    if state.name != state::OUTERMOST {
        provenance.insert("imported_state".into(), state.name.clone());
    }
    let surplus = plan.surplus.iter().map(|name| state.tensors[name].name.as_str());
    let left_out: Vec<&str> = state.left_out.iter().map(String::as_str).chain(surplus).collect();
    if !left_out.is_empty() {
        provenance.insert(LEFT_OUT_KEY.into(), left_out.join(" "));
    }
    let taken = state.tensors.iter().filter(|(name, _)| plan.takes(name));
    let taken = taken.map(|(name, stored)| (name.clone(), stored.clone())).collect();
    let entries = source.read(taken).map_err(refused)?;
    let (config, tensors) = plan.convert(entries).map_err(refused)?;
    Ok(Imported { checkpoint: Checkpoint::new(config, tensors, provenance)?, survey })
}

/// The dimensions in the metadata of a file of our own.
fn recorded(metadata: &BTreeMap<String, String>) -> Result<Option<Dimensions>, Refusal> {
    let Some(json) = metadata.get(CONFIG_KEY) else { return Ok(None) };
    match serde_json::from_str::<ModelConfig>(json) {
        Ok(config) => Ok(Some(Dimensions::of(&config))),
        Err(error) => Err(Refusal::new(
            format!("its metadata `{CONFIG_KEY}` cannot be parsed: {error}"),
            "write it without metadata: `python -c 'from safetensors.torch import load_file, \
             save_file; save_file(load_file(\"{file}\"), \"weights.safetensors\")'`",
        )),
    }
}

/// What a file of our own says of its origin.
fn provenance(metadata: &BTreeMap<String, String>, is_own: bool) -> BTreeMap<String, String> {
    let mut provenance = if is_own { metadata.clone() } else { BTreeMap::new() };
    provenance.retain(|key, _| ![CONFIG_KEY, FORMAT_KEY].contains(&key.as_str()));
    provenance
}

/// Shapes of the tensors of a state.
fn shapes(state: &State<Stored>) -> Shapes<'_> {
    let tensors = state.tensors.iter();
    tensors
        .map(|(name, stored)| {
            let shape = match &stored.view {
                Ok(view) => Some(Shape { extents: &view.shape, element: view.element }),
                Err(_) => None,
            };
            (name.as_str(), shape)
        })
        .collect()
}
