//! The safetensors container: named tensors and text metadata.
//!
//! Serialized here so that equal models give equal files: the `safetensors` crate keeps metadata in
//! a hash map, whose order changes from run to run.

use crate::checkpoint::Tensor;
use crate::error::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// Magic number of a ZIP archive, as PyTorch writes it.
const ZIP: &[u8] = b"PK\x03\x04";

/// Elements that are written at a time.
const PART: usize = 1 << 14;

/// Content of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Text by key.
    pub metadata: BTreeMap<String, String>,
}

/// Serializes a container, as [`write()`] does.
pub fn to_bytes(container: &Container) -> Vec<u8> {
    let tensors = container.tensors.iter();
    let tensors = tensors.map(|(name, t)| (name.as_str(), t.shape.as_slice(), t.data.as_slice()));
    let mut bytes = Vec::new();
    write(tensors, &container.metadata, &mut bytes).expect("a vector takes everything");
    bytes
}

/// Writes tensors (names ascending, shapes, elements): an 8-byte little-endian header length, the
/// JSON header, then the elements as little-endian F32.
pub fn write<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [f32])> + Clone,
    metadata: &BTreeMap<String, String>,
    out: &mut dyn Write,
) -> io::Result<()> {
    // `serde_json::Map` sorts its keys; `__metadata__` sorts before every lower-case name.
    let mut header = Map::new();
    let metadata: Map<String, Value> =
        metadata.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
    header.insert("__metadata__".into(), Value::Object(metadata));
    let mut offset = 0;
    for (name, shape, data) in tensors.clone() {
        let end = offset + 4 * data.len();
        header.insert(
            name.into(),
            json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, end] }),
        );
        offset = end;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Pads with spaces to align the data for memory mapping.
    header.resize(header.len().next_multiple_of(8), b' ');
    out.write_all(&(header.len() as u64).to_le_bytes())?;
    out.write_all(&header)?;
    let mut bytes = Vec::new();
    for (_, _, data) in tensors {
        for part in data.chunks(PART) {
            bytes.clear();
            bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
            out.write_all(&bytes)?;
        }
    }
    Ok(())
}

/// Reads a container; F16 and BF16 tensors are widened, other types are rejected by name. `path` is
/// for messages.
pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Container> {
    let bad = |reason: String| Error::Format {
        kind: "safetensors file",
        path: path.to_path_buf(),
        reason,
    };
    let wrong = |found, remedy| {
        let (path, wanted) = (path.to_path_buf(), "a checkpoint (safetensors)");
        Err(Error::WrongKind { path, found, wanted, remedy })
    };
    if bytes.starts_with(&resnet_bk_core::blob::MAGIC) {
        return wrong(
            "a blob",
            "pass the model.safetensors that it was quantized from: a blob does not contain \
             the original weights",
        );
    }
    if bytes.starts_with(ZIP) {
        return wrong(
            "a PyTorch checkpoint",
            "import it first: `resnet-bk import FILE --top-k N --out model.safetensors`",
        );
    }
    let parsed = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| bad(e.to_string()))?;
    let metadata = header.metadata().iter().flatten();
    let mut container = Container {
        tensors: BTreeMap::new(),
        metadata: metadata.map(|(k, v)| (k.clone(), v.clone())).collect(),
    };
    for (name, view) in parsed.iter() {
        let data: Vec<f32> = match view.dtype() {
            Dtype::F32 => chunks(view.data()).map(f32::from_le_bytes).collect(),
            Dtype::F16 => {
                chunks(view.data()).map(|b| half::f16::from_le_bytes(b).to_f32()).collect()
            }
            Dtype::BF16 => {
                chunks(view.data()).map(|b| half::bf16::from_le_bytes(b).to_f32()).collect()
            }
            other => {
                return Err(bad(format!(
                    "tensor `{name}` is of type {other:?}; F32, F16 and BF16 are supported"
                )));
            }
        };
        container.tensors.insert(name.to_string(), Tensor { shape: view.shape().to_vec(), data });
    }
    Ok(container)
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_gives_the_same_bytes_and_comes_back() {
        let mut container = Container::default();
        for i in 0..20 {
            container.metadata.insert(format!("key {i}"), format!("value \"{i}\" é"));
            let data = (0..i).map(|j| j as f32 * 0.5).collect();
            container.tensors.insert(format!("t{i}"), Tensor { shape: vec![i], data });
        }
        container.tensors.insert("scalar".into(), Tensor { shape: vec![], data: vec![1.5] });
        let bytes = to_bytes(&container);
        assert_eq!(bytes, to_bytes(&container.clone()));
        assert_eq!(from_bytes(&bytes, Path::new("x")).unwrap(), container);
    }

    #[test]
    fn damaged_files_are_refused() {
        let mut container = Container::default();
        container.tensors.insert("t".into(), Tensor { shape: vec![2], data: vec![1.0, 2.0] });
        let bytes = to_bytes(&container);
        for length in 0..bytes.len() {
            assert!(from_bytes(&bytes[..length], Path::new("x")).is_err());
        }
    }

    #[test]
    fn half_precision_tensors_are_widened() {
        let header = br#"{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[2,4]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(&half::f16::from_f32(1.5).to_le_bytes());
        bytes.extend_from_slice(&half::bf16::from_f32(-2.0).to_le_bytes());
        let container = from_bytes(&bytes, Path::new("x")).unwrap();
        assert_eq!(container.tensors["a"].data, [1.5]);
        assert_eq!(container.tensors["b"].data, [-2.0]);
    }
}
