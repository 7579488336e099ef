//! Reads published ResNet-BK checkpoints, `.pt` and safetensors, into ours.
//!
//! The model is that of T. Arai's `Project-ResNet-BK-An-O-N-Language-Model-Architecture` at commit
//! 518528f. Its dimensions are counted from the tensors; only how many experts a token is routed to
//! is not in the file. Its buffers (`h0_diag_base`, `h0_sub_base`, `h0_super_base`, `z`) become the
//! trained `diagonal` and `log_eta` and the constant `off_diagonal`. A file of another revision, with
//! other tensors or other buffers, would load and compute nonsense, so it is refused by name.

mod buffers;
mod element;
mod pickle;
mod published;
mod pytorch;
#[cfg(test)]
mod tests;

use crate::checkpoint::{Chain, Checkpoint, IMPORTED_KEY};
use crate::error::{Error, Result};
use crate::files;
use element::{Element, Entry};
use safetensors::SafeTensors;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// What a published checkpoint does not say about itself.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Experts that each token is routed to; as many as there are means dense gating.
    pub top_k: usize,
    /// Chain kind; published models have the full chain.
    pub chain: Chain,
}

/// Reads the published checkpoint at `path`.
pub fn import(path: &Path, options: Options) -> Result<Checkpoint> {
    from_bytes(&files::read(path)?, path, options)
}

/// Reads the bytes of a published checkpoint; what they are is told by the content. `path` is for
/// messages and the provenance.
pub fn from_bytes(bytes: &[u8], path: &Path, options: Options) -> Result<Checkpoint> {
    let imported = entries(bytes).and_then(|entries| published::convert(entries, options));
    let (config, tensors) = imported.map_err(|Refusal { problems, remedy }| Error::Import {
        path: path.to_path_buf(),
        problems,
        remedy,
    })?;
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let provenance = BTreeMap::from([
        (IMPORTED_KEY.to_string(), file.into_owned()),
        ("imported_sha256".to_string(), digest),
    ]);
    Checkpoint::new(config, tensors, provenance)
}

/// The tensors of a foreign checkpoint by name.
type Entries = BTreeMap<String, Entry>;

/// Why a checkpoint is not taken, and what to do about it.
#[derive(Debug)]
struct Refusal {
    problems: Vec<String>,
    remedy: String,
}

impl Refusal {
    fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problems: vec![problem.into()], remedy: remedy.into() }
    }
}

fn entries(bytes: &[u8]) -> Result<Entries, Refusal> {
    if pytorch::is_archive(bytes) {
        pytorch::read(bytes)
    } else if bytes.get(8) == Some(&b'{') {
        from_safetensors(bytes)
    } else {
        Err(pytorch::refuse_other(bytes))
    }
}

fn from_safetensors(bytes: &[u8]) -> Result<Entries, Refusal> {
    const REMEDY: &str =
        "write it again with `safetensors.torch.save_file(model.state_dict(), path)`";
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| Refusal::new(format!("it is not a valid safetensors file: {e}"), REMEDY))?;
    let mut entries = Entries::new();
    for (name, view) in file.iter() {
        let Some(element) = Element::of_safetensors(view.dtype()) else {
            let dtype = view.dtype();
            return Err(Refusal::new(
                format!("`{name}` has elements of type {dtype:?}, which is not supported"),
                REMEDY,
            ));
        };
        let entry = Entry { shape: view.shape().to_vec(), values: element.decode(view.data()) };
        entries.insert(name.into(), entry);
    }
    Ok(entries)
}
