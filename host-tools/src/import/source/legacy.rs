//! The files of `torch.save` before PyTorch 1.6: a pickled magic number, version and description of
//! the machine; the pickled object; the pickled list of its storages; then each storage, its number
//! of elements in front.

use super::archive::LARGEST_PICKLE;
use super::contents::Contents;
use super::input::{Input, bytes_at};
use super::object;
use super::tensor::storage;
use crate::import::element::Element;
use crate::import::pickle::Pickle;
use crate::import::refusal::{COPY_AGAIN, Refusal, SAVE_AGAIN};
use crate::import::view::Place;
use std::collections::HashMap;

/// The pickled magic number.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

pub(super) fn is_legacy(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// What is in a file of `length` bytes.
pub(super) fn contents(
    input: &mut dyn Input,
    length: u64,
    file: usize,
) -> Result<Contents, Refusal> {
    let unreadable = |reason| Refusal::new(format!("it cannot be read: {reason}"), COPY_AGAIN);
    let bytes = bytes_at(input, 0, length.min(LARGEST_PICKLE)).map_err(unreadable)?;
    let mut rest = bytes.as_slice();
    let mut next = || {
        let pickle = Pickle::parse(rest).map_err(|reason| {
            Refusal::new(format!("its pickle cannot be read: {reason}"), SAVE_AGAIN)
        })?;
        rest = &rest[pickle.length()..];
        Ok(pickle)
    };
    let (_magic, _version, _machine) = (next()?, next()?, next()?);
    let (object, keys) = (next()?, next()?);
    let start = (bytes.len() - rest.len()) as u64;
    let places = places(&object, &keys, start, length, input)?;
    object::contents(&object, file, &|key| {
        places.get(key).cloned().ok_or_else(|| format!("has no storage `{key}` in the file"))
    })
}

/// Where each storage is, by its key.
fn places(
    object: &Pickle,
    keys: &Pickle,
    start: u64,
    length: u64,
    input: &mut dyn Input,
) -> Result<HashMap<String, Place>, Refusal> {
    let storages = (0..object.nodes().len()).filter_map(|id| storage(object, id));
    let classes: HashMap<&str, &str> = storages.map(|(class, key)| (key, class)).collect();
    let list = keys.list(keys.root()).ok_or("it has no list of storages");
    let list = list.map_err(|reason| Refusal::new(reason, SAVE_AGAIN))?;
    let mut places = HashMap::new();
    let mut at = start;
    for &key in list {
        let key = keys.text(key).unwrap_or_default();
        let class = classes.get(key).copied().unwrap_or("unknown");
        let Some(element) = Element::of_storage(class) else {
            let problem = format!("storage `{key}` is of type `{class}`, which is not supported");
            return Err(Refusal::new(problem, SAVE_AGAIN));
        };
        let truncated = |reason| {
            let problem = format!("storage `{key}` cannot be read: {reason}");
            Refusal::new(problem, COPY_AGAIN)
        };
        if length - at < 8 {
            return Err(truncated("the file ends in front of it".into()));
        }
        let count = bytes_at(input, at, 8).map_err(truncated)?;
        let count = u64::from_le_bytes(count.try_into().expect("eight bytes"));
        let size = count.checked_mul(element.size() as u64);
        let end = size.and_then(|size| (at + 8).checked_add(size)).filter(|&end| end <= length);
        let Some(end) = end else {
            return Err(truncated(format!("its {count} elements are more than the file has")));
        };
        places.insert(key.to_owned(), Place::Span { start: at + 8, length: end - at - 8 });
        at = end;
    }
    Ok(places)
}
