//! Safetensors: a JSON header with the place of each tensor, of which each is read by itself.

use super::contents::Contents;
use super::input::{Input, bytes_at};
use crate::import::element::Element;
use crate::import::refusal::{COPY_AGAIN, Refusal};
use crate::import::state::Dictionary;
use crate::import::view::{Place, Stored, View};
use safetensors::tensor::Metadata;

/// Bytes in front of the header: its length.
const PREFIX: u64 = 8;

/// Maximum length of the header, as in the library.
const LONGEST_HEADER: u64 = 100_000_000;

pub(super) fn is_safetensors(head: &[u8]) -> bool {
    head.get(PREFIX as usize) == Some(&b'{')
}

/// What is in a file of `length` bytes.
pub(super) fn contents(
    input: &mut dyn Input,
    length: u64,
    file: usize,
) -> Result<Contents, Refusal> {
    let bad = |reason: String| {
        Refusal::new(format!("it is not a valid safetensors file: {reason}"), COPY_AGAIN)
    };
    let prefix = bytes_at(input, 0, PREFIX).map_err(bad)?;
    let header = u64::from_le_bytes(prefix.try_into().expect("eight bytes"));
    if header > LONGEST_HEADER.min(length - PREFIX) {
        return Err(bad(format!("its header of {header} bytes is longer than the file")));
    }
    let json = bytes_at(input, PREFIX, header).map_err(bad)?;
    // Checks that tensors follow each other and have as many bytes as their shape says.
    let parsed: Metadata = serde_json::from_slice(&json).map_err(|e| bad(e.to_string()))?;
    let start = PREFIX + header;
    let tensors = parsed.tensors();
    let end = tensors.values().map(|info| info.data_offsets.1).max().unwrap_or(0) as u64;
    if start.checked_add(end) != Some(length) {
        let reason = format!("its header describes {end} bytes, but {} follow", length - start);
        return Err(bad(reason));
    }
    let tensors = parsed.offset_keys().into_iter().map(|name| {
        let info = tensors[&name];
        let (from, to) = info.data_offsets;
        let place = Place::Span { start: start + from as u64, length: (to - from) as u64 };
        let element = Element::of_safetensors(info.dtype)
            .ok_or_else(|| format!("has elements of type {:?}, not supported", info.dtype));
        let view = element.map(|element| View::whole(element, place, info.shape.clone()));
        (name.clone(), Stored { name, file, view })
    });
    let dictionary = Dictionary { path: String::new(), tensors: tensors.collect() };
    let metadata = parsed.metadata().iter().flatten();
    let metadata = metadata.map(|(key, value)| (key.clone(), value.clone())).collect();
    Ok(Contents { dictionaries: vec![dictionary], metadata, ..Contents::default() })
}
