//! The `.pt` files of `torch.save`: a ZIP archive with one pickle that describes the tensors, and
//! one entry with the bytes of each storage.
//!
//! Not read by a library because every published checkpoint contains a complex number, `z`:
//! pytorch-reader 0.22.1 and burn-store 0.22.1, which is built on it, reject the whole file for it,
//! and candle-core 0.11.1 drops `z`, so that η could not be checked. The part of the format needed
//! here is small, and `zip` alone is 19 crates to build, against 38, 140 and 131.

use super::contents::Contents;
use super::input::Input;
use super::object;
use crate::import::pickle::Pickle;
use crate::import::refusal::{COPY_AGAIN, PASS_A_MODEL, Refusal, SAVE_AGAIN};
use crate::import::view::Place;
use std::io::Read;
use zip::ZipArchive;

const UNSCRIPT: &str = "convert it: `python -c 'import torch; \
     torch.save(torch.jit.load(\"{file}\", map_location=\"cpu\").state_dict(), \"weights.pt\")'`";

/// Maximum size of the pickle; a larger one describes millions of tensors or is damaged.
pub(super) const LARGEST_PICKLE: u64 = 64 << 20;

pub(super) fn is_archive(head: &[u8]) -> bool {
    head.starts_with(b"PK\x03\x04")
}

/// The archive and the name of its only folder.
pub(super) struct Archive<'a> {
    zip: ZipArchive<Box<dyn Input + 'a>>,
    folder: String,
    /// Bytes of the file.
    length: u64,
}

impl<'a> Archive<'a> {
    pub(super) fn open(input: Box<dyn Input + 'a>, length: u64) -> Result<Self, Refusal> {
        let zip = ZipArchive::new(input).map_err(|e| {
            Refusal::new(format!("it is not a complete ZIP archive: {e}"), COPY_AGAIN)
        })?;
        // PyTorch writes only UTF-8 names.
        let names: Vec<String> = zip.file_names().flatten().map(|name| name.into_owned()).collect();
        if names.iter().any(|name| name.ends_with("/constants.pkl") || name.contains("/code/")) {
            return Err(Refusal::new("it is a TorchScript archive, not a state_dict", UNSCRIPT));
        }
        let folder = names.iter().find_map(|name| name.strip_suffix("data.pkl"));
        let Some(folder) = folder.map(String::from) else {
            let some: Vec<&String> = names.iter().take(5).collect();
            let problem = format!("it is a ZIP archive, but not one of PyTorch: it has {some:?}");
            let unpack = "if the checkpoint is in it, unpack it first: `unzip {file}`; otherwise ";
            return Err(Refusal::new(problem, format!("{unpack}{PASS_A_MODEL}")));
        };
        let mut archive = Self { zip, folder, length };
        // Archives of PyTorch before 2.1 lack this entry and are little-endian.
        if archive.entry("byteorder", 16).is_ok_and(|order| order != b"little") {
            return Err(Refusal::new("it was saved on a big-endian machine", SAVE_AGAIN));
        }
        Ok(archive)
    }

    /// What the pickle describes.
    pub(super) fn contents(&mut self, file: usize) -> Result<Contents, Refusal> {
        let bytes = self
            .entry("data.pkl", LARGEST_PICKLE)
            .map_err(|reason| Refusal::new(format!("its pickle {reason}"), COPY_AGAIN))?;
        let pickle = Pickle::parse(&bytes).map_err(|reason| {
            Refusal::new(format!("its pickle cannot be read: {reason}"), SAVE_AGAIN)
        })?;
        object::contents(&pickle, file, &|key| Ok(Place::Entry(format!("data/{key}"))))
    }

    /// Reads an entry of at most `limit` bytes and verifies the archive's checksum.
    pub(super) fn entry(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        let path = format!("{}{name}", self.folder);
        let mut file =
            self.zip.by_name(&path).map_err(|e| format!("cannot be read from `{path}`: {e}"))?;
        if file.size() > limit {
            return Err(format!("is {} bytes long, which is too long", file.size()));
        }
        // Entries are not compressed, so that none is longer than the file.
        let mut bytes = Vec::with_capacity(file.size().min(self.length) as usize);
        file.read_to_end(&mut bytes).map_err(|e| format!("cannot be read from `{path}`: {e}"))?;
        Ok(bytes)
    }
}
