//! Files of checkpoints: what tensors there are, and reading those that are wanted.

mod archive;
mod contents;
mod input;
mod legacy;
mod object;
mod other;
mod part;
mod safetensors;
mod settings;
mod shards;
mod tensor;

use super::dimensions::Dimensions;
use super::element::Entries;
use super::refusal::{COPY_AGAIN, MAKE_CONTIGUOUS, MAKE_PLAIN, MAKE_REAL, Refusal};
use super::state::Dictionary;
use super::view::{Place, Stored, View};
use crate::error::{Error, Result};
use part::Part;
use sha2::{Digest, Sha256};
use shards::Shards;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Cursor};
use std::path::{Path, PathBuf};

/// Maximum total number of elements of tensors beyond those of the files, 1 GiB in FP32: a small
/// file must not exhaust memory by views that repeat a storage.
const MOST_REPEATED: usize = 1 << 28;

/// The files of a checkpoint, open.
pub(super) struct Source<'a> {
    pub(super) files: Vec<PathBuf>,
    /// The tensors, in the dictionaries of the files; those of shards are joined.
    pub(super) dictionaries: Vec<Dictionary<Stored>>,
    /// Text by key; only a single safetensors file has it.
    pub(super) metadata: BTreeMap<String, String>,
    /// What training scripts saved of the dimensions; only files of PyTorch have it.
    pub(super) settings: Vec<Dimensions>,
    parts: Vec<Part<'a>>,
}

/// The files that the checkpoint at `path` consists of, as far as they can be found.
pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    match shards::find(path) {
        Ok(Shards { index, files, .. }) => index.into_iter().chain(files).collect(),
        Err((path, _)) => vec![path],
    }
}

/// The index that lists the file among others, if there is one beside it.
pub(super) fn index_of(path: &Path) -> Option<PathBuf> {
    shards::index_of(path)
}

/// SHA-256 of these files, one after the other, in hexadecimal.
pub(super) fn sha256(files: &[PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files {
        let mut file = File::open(path).map_err(Error::io("read", path))?;
        std::io::copy(&mut file, &mut hash).map_err(Error::io("read", path))?;
    }
    Ok(crate::digest::hex(&hash.finalize()))
}

impl Source<'static> {
    /// Opens the checkpoint at `path`: a file, an index of several or a folder.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let Shards { index, files, of } =
            shards::find(path).map_err(|(path, refusal)| refusal.of_file(&path))?;
        let mut parts = Vec::new();
        for (file, path) in files.iter().enumerate() {
            let input = File::open(path).map_err(Error::io("read", path))?;
            let part = Part::open(Box::new(BufReader::new(input)), file);
            parts.push(part.map_err(|refusal| refusal.of_file(path))?);
        }
        let mut source = Self::of_parts(files, parts);
        if let Some(index) = index {
            source.metadata.clear();
            source.keep(&of).map_err(|refusal| refusal.of_file(&index))?;
        }
        Ok(source)
    }
}

impl<'a> Source<'a> {
    /// The checkpoint with these bytes.
    pub(super) fn from_bytes(bytes: &'a [u8], path: &Path) -> Result<Self> {
        let part = Part::open(Box::new(Cursor::new(bytes)), 0);
        let part = part.map_err(|refusal| refusal.of_file(path))?;
        Ok(Self::of_parts(vec![path.to_path_buf()], vec![part]))
    }

    fn of_parts(files: Vec<PathBuf>, mut parts: Vec<Part<'a>>) -> Self {
        let mut joined: Vec<Dictionary<Stored>> = Vec::new();
        let (mut metadata, mut settings) = (BTreeMap::new(), Vec::new());
        // Positions of the dictionaries of the files before, by path.
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        for part in &mut parts {
            metadata.append(&mut part.contents.metadata);
            settings.append(&mut part.contents.settings);
            let start = joined.len();
            for dictionary in part.contents.dictionaries.drain(..) {
                match known.get(&dictionary.path) {
                    Some(&at) => joined[at].tensors.extend(dictionary.tensors),
                    None => joined.push(dictionary),
                }
            }
            let new = joined.iter().enumerate().skip(start);
            known.extend(new.map(|(at, dictionary)| (dictionary.path.clone(), at)));
        }
        Self { files, dictionaries: joined, metadata, settings, parts }
    }

    /// Keeps the tensors that are in the files that the index says.
    fn keep(&mut self, of: &BTreeMap<String, usize>) -> Result<(), Refusal> {
        let mut found = std::collections::BTreeSet::new();
        for dictionary in &mut self.dictionaries {
            dictionary.tensors.retain(|(name, stored)| {
                let fits = of.get(name).is_none_or(|&file| file == stored.file);
                if fits {
                    found.insert(name.clone());
                }
                fits
            });
        }
        let missing = of.iter().filter(|(name, _)| !found.contains(*name));
        let problems: Vec<String> = missing
            .map(|(name, &file)| {
                format!("`{name}` is not in `{}`, where it should be", self.file_name(file))
            })
            .collect();
        if problems.is_empty() {
            return Ok(());
        }
        let remedy = "the files are not those of the index; copy or download all of them again, \
                      and compare with the originals: `sha256sum FOLDER/*`";
        Err(Refusal { problems, remedy: remedy.into() })
    }

    /// Name of a file, for messages.
    pub(super) fn file_name(&self, file: usize) -> String {
        let path = &self.files[file];
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }

    /// The remedy for tensors that cannot be read.
    pub(super) fn make_plain(&self) -> &'static str {
        let is_pytorch = self.parts.iter().any(|part| part.is_pytorch);
        if is_pytorch { MAKE_PLAIN } else { MAKE_REAL }
    }

    /// Reads these tensors, by the model's names. Each storage is read once, however many tensors
    /// are views of it, and only one is in memory at a time.
    pub(super) fn read(&mut self, tensors: Vec<(String, Stored)>) -> Result<Entries, Refusal> {
        let mut problems = Vec::new();
        let mut storages: BTreeMap<(usize, Place), Vec<(String, View)>> = BTreeMap::new();
        let mut elements = 0usize;
        for (name, Stored { file, view, .. }) in tensors {
            match view {
                Ok(view) => {
                    elements = elements.saturating_add(view.count());
                    storages.entry((file, view.place.clone())).or_default().push((name, view));
                }
                Err(reason) => problems.push(format!("`{name}` {reason}")),
            }
        }
        if !problems.is_empty() {
            return Err(Refusal { problems, remedy: self.make_plain().into() });
        }
        let stored: u64 = self.parts.iter().map(|part| part.length).sum();
        if elements > (stored as usize).saturating_add(MOST_REPEATED) {
            let problem = format!(
                "its tensors have more than {MOST_REPEATED} elements beyond those of their storages"
            );
            return Err(Refusal::new(problem, MAKE_CONTIGUOUS));
        }
        let mut entries = Entries::new();
        for ((file, place), views) in storages {
            let within = if self.files.len() > 1 {
                format!(" of `{}`", self.file_name(file))
            } else {
                String::new()
            };
            let storage = self.parts[file].storage(&place);
            for (name, view) in views {
                let entry = match &storage {
                    Ok(storage) => view.gather(storage),
                    Err(reason) => Err(reason.clone()),
                };
                match entry {
                    Ok(entry) => drop(entries.insert(name, entry)),
                    Err(reason) => problems.push(format!("`{name}`{within} {reason}")),
                }
            }
        }
        if problems.is_empty() {
            Ok(entries)
        } else {
            Err(Refusal { problems, remedy: COPY_AGAIN.into() })
        }
    }
}
