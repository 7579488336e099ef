//! Imports published ResNet-BK checkpoints, `.pt` and safetensors.
//!
//! The model is that of T. Arai's `Project-ResNet-BK-An-O-N-Language-Model-Architecture` at commit
//! 518528f. Dimensions are inferred from the tensors; only the number of experts per token is not
//! in the file. Its buffers (`h0_diag_base`, `h0_sub_base`, `h0_super_base`, `z`) become the
//! trained `diagonal` and `log_eta` and the constant `off_diagonal`. A file of another revision,
//! with other tensors or buffers, would load but compute nonsense, so it is rejected by name.

mod buffers;
mod element;
mod options;
mod pickle;
mod published;
mod pytorch;
mod refusal;
mod state;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod written;

pub use options::Options;

use crate::checkpoint::{Checkpoint, IMPORTED_KEY};
use crate::digest::sha256;
use crate::error::{Error, Result};
use crate::files;
use element::{Element, Entries, Entry};
use refusal::Refusal;
use safetensors::SafeTensors;
use state::{Dictionary, State};
use std::collections::BTreeMap;
use std::path::Path;

/// Provenance key for the tensors that were not imported, separated by spaces.
pub const LEFT_OUT_KEY: &str = "imported_without";

/// Reads the published checkpoint at `path`.
pub fn import(path: &Path, options: Options) -> Result<Checkpoint> {
    from_bytes(&files::read(path)?, path, options)
}

/// Imports the bytes of a published checkpoint and detects the format by content. `path` is for
/// messages and provenance.
pub fn from_bytes(bytes: &[u8], path: &Path, options: Options) -> Result<Checkpoint> {
    let state = entries(bytes, options.state.as_deref());
    let imported = state.and_then(|state| {
        let (config, tensors) = published::convert(state.tensors, options)?;
        Ok((config, tensors, state.name, state.left_out))
    });
    let (config, tensors, state, left_out) = imported.map_err(|Refusal { problems, remedy }| {
        Error::Import { path: path.to_path_buf(), problems, remedy }
    })?;
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let mut provenance = BTreeMap::from([
        (IMPORTED_KEY.to_string(), file.into_owned()),
        ("imported_sha256".to_string(), sha256(bytes)),
    ]);
    if state != state::OUTERMOST {
        provenance.insert("imported_state".into(), state);
    }
    if !left_out.is_empty() {
        provenance.insert(LEFT_OUT_KEY.into(), left_out.join(" "));
    }
    Checkpoint::new(config, tensors, provenance)
}

fn entries(bytes: &[u8], wanted: Option<&str>) -> Result<State<Entry>, Refusal> {
    if pytorch::is_archive(bytes) {
        pytorch::read(bytes, wanted)
    } else if bytes.get(8) == Some(&b'{') {
        from_safetensors(bytes, wanted)
    } else {
        Err(pytorch::refuse_other(bytes))
    }
}

fn from_safetensors(bytes: &[u8], wanted: Option<&str>) -> Result<State<Entry>, Refusal> {
    const AGAIN: &str =
        "write it again with `safetensors.torch.save_file(model.state_dict(), path)`";
    const REAL: &str = "convert these tensors with `t.float()` and write the file again with \
                        `safetensors.torch.save_file`";
    let file = SafeTensors::deserialize(bytes)
        .map_err(|e| Refusal::new(format!("it is not a valid safetensors file: {e}"), AGAIN))?;
    let views = file.iter().map(|(name, view)| (name.to_string(), view)).collect();
    let dictionary = Dictionary { path: String::new(), tensors: views };
    let State { name, tensors, left_out } = state::choose(&[dictionary], wanted)?;
    let mut entries = Entries::new();
    let mut problems = Vec::new();
    for (name, view) in tensors {
        match Element::of_safetensors(view.dtype()) {
            Some(element) => {
                let values = element.decode(view.data());
                entries.insert(name, Entry { shape: view.shape().to_vec(), values });
            }
            None => {
                let dtype = view.dtype();
                problems.push(format!("`{name}` has elements of type {dtype:?}, not supported"));
            }
        }
    }
    if problems.is_empty() {
        Ok(State { name, tensors: entries, left_out })
    } else {
        Err(Refusal { problems, remedy: REAL.into() })
    }
}
