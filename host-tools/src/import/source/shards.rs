//! Checkpoints of several files, and folders that hold one: an index, `*.index.json`, says which
//! tensor is in which file, as the Hugging Face libraries write it for safetensors and for PyTorch.

use crate::import::refusal::Refusal;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// End of an index's name.
const INDEX: &str = ".index.json";

/// Ends of the names of checkpoints, in the order of preference.
const KINDS: [&[&str]; 2] = [&["safetensors"], &["pt", "pth", "bin", "ckpt"]];

/// Maximum size of an index.
const LONGEST_INDEX: u64 = 64 << 20;

/// The files of a checkpoint.
#[derive(Debug)]
pub(super) struct Shards {
    /// The index, if there is one.
    pub(super) index: Option<PathBuf>,
    pub(super) files: Vec<PathBuf>,
    /// The file of each tensor by the index.
    pub(super) of: BTreeMap<String, usize>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The files of the checkpoint at `path`: a file, an index or a folder. A refusal comes with the
/// file that it is about.
pub(super) fn find(path: &Path) -> Result<Shards, (PathBuf, Refusal)> {
    let path = if path.is_dir() {
        within(path).map_err(|refusal| (path.to_path_buf(), refusal))?
    } else {
        path.to_path_buf()
    };
    if is_index(&path) {
        return by_index(&path).map_err(|refusal| (path, refusal));
    }
    Ok(Shards { index: None, files: vec![path], of: BTreeMap::new() })
}

/// The index beside a file that names it, if any.
pub(super) fn index_of(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let names_it = |index: &PathBuf| {
        let shards = by_index(index);
        shards.is_ok_and(|s| s.files.iter().any(|file| file.file_name() == path.file_name()))
    };
    entries(folder.unwrap_or(Path::new("."))).ok()?.into_iter().find(|p| is_index(p) && names_it(p))
}

fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(INDEX))
}

/// The files in a folder, by name.
fn entries(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<std::io::Result<Vec<_>>>()?;
    paths.retain(|path| path.is_file());
    paths.sort();
    Ok(paths)
}

/// The checkpoint in a folder: an index, or else the only file of a kind.
fn within(folder: &Path) -> Result<PathBuf, Refusal> {
    let list = |found: &[&PathBuf]| {
        let names = found.iter().filter_map(|path| path.file_name());
        names.map(|name| format!("`{}`", name.to_string_lossy())).collect::<Vec<_>>().join(", ")
    };
    let paths = entries(folder).map_err(|error| {
        Refusal::new(format!("the folder cannot be read: {error}"), "try `ls -l {file}`")
    })?;
    let is_of = |path: &Path, kinds: &[&str]| {
        kinds.iter().any(|kind| path.extension().is_some_and(|extension| extension == *kind))
    };
    let is_index_of = |path: &Path, kinds: &[&str]| {
        // `model.safetensors.index.json` and `pytorch_model.bin.index.json`.
        let plain = path.to_string_lossy();
        is_index(path) && is_of(Path::new(plain.trim_end_matches(INDEX)), kinds)
    };
    for kinds in KINDS {
        let indexes = paths.iter().filter(|path| is_index_of(path, kinds)).collect::<Vec<_>>();
        let files = paths.iter().filter(|path| is_of(path, kinds)).collect::<Vec<_>>();
        match (&indexes[..], &files[..]) {
            ([one], _) | ([], [one]) => return Ok((*one).clone()),
            ([], []) => {}
            ([], several) | (several, _) => {
                let problem =
                    format!("the folder has {} checkpoints: {}", several.len(), list(several));
                let first = several[0].display();
                return Err(Refusal::new(
                    problem,
                    format!("choose one: `resnet-bk import {first} --out model.safetensors`"),
                ));
            }
        }
    }
    Err(Refusal::new(
        "the folder has no file that ends in .safetensors, .pt, .pth, .bin, .ckpt or .index.json",
        "name the file: `resnet-bk import {file}/NAME --out model.safetensors`",
    ))
}

fn by_index(path: &Path) -> Result<Shards, Refusal> {
    const LIST: &str = "look at it: `python -m json.tool {file}`; it is expected as \
                        `save_pretrained` writes it, {\"weight_map\": {\"TENSOR\": \"FILE\"}}";
    let bad = |reason: String| Refusal::new(format!("it is not an index: {reason}"), LIST);
    let length = std::fs::metadata(path).map_err(|e| bad(e.to_string()))?.len();
    if length > LONGEST_INDEX {
        return Err(bad(format!("it has {length} bytes")));
    }
    let text = std::fs::read(path).map_err(|e| bad(e.to_string()))?;
    let index: Index = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    let mut problems = Vec::new();
    for name in &names {
        // An index of someone else's must not lead out of its folder.
        let mut parts = Path::new(name).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            problems.push(format!("`{name}` is not the name of a file in the same folder"));
        } else if !path.with_file_name(name).is_file() {
            problems.push(format!("its file `{name}` is missing"));
        }
    }
    if names.is_empty() {
        problems.push("its `weight_map` names no file".into());
    }
    if !problems.is_empty() {
        let remedy = "put all files of the checkpoint into the folder of the index: \
                      `huggingface-cli download REPOSITORY --local-dir FOLDER` fetches them";
        return Err(Refusal { problems, remedy: remedy.into() });
    }
    let files = names.iter().map(|name| path.with_file_name(name)).collect();
    let position = |file: &String| names.iter().position(|name| *name == file).unwrap_or_default();
    let of = index.weight_map.iter().map(|(name, file)| (name.clone(), position(file))).collect();
    Ok(Shards { index: Some(path.to_path_buf()), files, of })
}
