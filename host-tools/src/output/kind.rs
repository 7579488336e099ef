//! Detects the kind of a file by its content.

use crate::checkpoint::{FORMAT_KEY, IMPORTED_KEY};
use crate::importance::MARKER;
use crate::report::GENERATOR;
use serde_json::Value;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// A kind of file that this tool writes, detected by content, not by name or extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A quantized model.
    Blob,
    /// A checkpoint trained by this tool.
    Checkpoint,
    /// An imported checkpoint, which takes seconds to import again.
    Imported,
    /// Resume file of training or fine-tuning.
    State,
    /// A `tokenizer.json`.
    Tokenizer,
    /// An importance file of any format.
    Importance,
    /// JSON-lines log of training or fine-tuning.
    Log,
    /// HTML page of `report`.
    Page,
    /// A plot as SVG.
    Svg,
    /// A plot as PNG.
    Png,
    /// A container of compressed text.
    Compressed,
}

/// Bytes at the start of a file that identify most kinds.
const HEAD: u64 = 4096;
/// Maximum size of a file, or of a safetensors header, that is parsed for detection: the table of a
/// large model has a few megabytes.
const MOST_JSON: u64 = 64 << 20;

impl Kind {
    /// The kind of the file at `path`; `None` for a kind that this tool does not write.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut bytes = Vec::new();
        file.by_ref().take(HEAD).read_to_end(&mut bytes)?;
        if let Some(kind) = Self::of_head(&bytes) {
            return Ok(Some(kind));
        }
        if let Some(header) = safetensors_header(&bytes, length) {
            file.take(8 + header - bytes.len().min(8 + header as usize) as u64)
                .read_to_end(&mut bytes)?;
            return Ok(Self::of_container(&bytes[8..8 + header as usize]));
        }
        if bytes.first() != Some(&b'{') || length > MOST_JSON {
            return Ok(None);
        }
        file.read_to_end(&mut bytes)?;
        Ok(Self::of_json(&bytes))
    }

    fn of_head(bytes: &[u8]) -> Option<Self> {
        let within = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        match bytes {
            _ if bytes.starts_with(&resnet_bk_core::blob::MAGIC) => Some(Self::Blob),
            _ if bytes.starts_with(&crate::compress::MAGIC) => Some(Self::Compressed),
            [0x89, b'P', b'N', b'G', ..] => Some(Self::Png),
            _ if bytes.starts_with(b"<svg ") => Some(Self::Svg),
            _ if bytes.starts_with(b"<!doctype html>") && within(GENERATOR) => Some(Self::Page),
            _ => None,
        }
    }

    fn of_container(header: &[u8]) -> Option<Self> {
        let header: Value = serde_json::from_slice(header).ok()?;
        let metadata = &header["__metadata__"];
        let has = |key: &str| metadata[key].is_string();
        let settings = || metadata.as_object().into_iter().flat_map(|keys| keys.keys());
        match () {
            () if has(FORMAT_KEY) && has(IMPORTED_KEY) => Some(Self::Imported),
            () if has(FORMAT_KEY) => Some(Self::Checkpoint),
            () if has("step") && settings().any(|key| key.starts_with("recipe.")) => {
                Some(Self::State)
            }
            () => None,
        }
    }

    fn of_json(bytes: &[u8]) -> Option<Self> {
        let first = bytes.split(|&byte| byte == b'\n').next()?;
        if serde_json::from_slice::<Value>(first).is_ok_and(|line| line["step"].is_u64()) {
            return Some(Self::Log);
        }
        let value: Value = serde_json::from_slice(bytes).ok()?;
        match () {
            () if value["kind"] == MARKER => Some(Self::Importance),
            // Formats before 5 had no marker.
            () if value["model_sha256"].is_string() && value["published"].is_object() => {
                Some(Self::Importance)
            }
            // An object of texts, or for Unigram a list with scores.
            () if value["model"]["vocab"].is_object() || value["model"]["vocab"].is_array() => {
                Some(Self::Tokenizer)
            }
            () => None,
        }
    }
}

/// Length of the JSON header, if this is the start of a safetensors file.
fn safetensors_header(bytes: &[u8], length: u64) -> Option<u64> {
    let (header, rest) = bytes.split_first_chunk::<8>()?;
    let header = u64::from_le_bytes(*header);
    let fits = header <= MOST_JSON && header <= length - 8;
    (rest.first() == Some(&b'{') && fits).then_some(header)
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blob => "a blob",
            Self::Checkpoint => "a trained checkpoint",
            Self::Imported => "an imported checkpoint",
            Self::State => "a training state",
            Self::Tokenizer => "a tokenizer",
            Self::Importance => "an importance file",
            Self::Log => "a training log",
            Self::Page => "a report",
            Self::Svg => "an SVG image",
            Self::Png => "a PNG image",
            Self::Compressed => "a compressed text",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::safetensors::{Container, to_bytes};
    use std::fs;

    fn of(bytes: &[u8]) -> Option<Kind> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, bytes).unwrap();
        Kind::of(&path).unwrap()
    }

    fn container(keys: &[&str]) -> Vec<u8> {
        let metadata = keys.iter().map(|key| (key.to_string(), "1".repeat(10_000))).collect();
        to_bytes(&Container { metadata, ..Container::default() })
    }

    #[test]
    fn kinds_are_told_by_content() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny");
        let shipped = |name: &str| Kind::of(&model.join(name)).unwrap();
        assert_eq!(shipped("model.safetensors"), Some(Kind::Checkpoint));
        assert_eq!(shipped("tokenizer.json"), Some(Kind::Tokenizer));
        // Headers longer than the first read.
        assert_eq!(of(&container(&[FORMAT_KEY, IMPORTED_KEY])), Some(Kind::Imported));
        assert_eq!(of(&container(&["step", "recipe.seed"])), Some(Kind::State));
        assert_eq!(of(&container(&["format"])), None);
        assert_eq!(of(b"{\"step\":20,\"loss\":1.5}\n{\"step\":40}\n"), Some(Kind::Log));
        assert_eq!(of(b"{\"step\":20,\"loss\":1.5}"), Some(Kind::Log));
        let old = b"{\n \"format\": 4, \"model_sha256\": \"ab\", \"published\": {} }";
        assert_eq!(of(old), Some(Kind::Importance));
        assert_eq!(of(b"\x89PNG\r\n\x1a\n and so on"), Some(Kind::Png));
        assert_eq!(of(b"RBKtexts and so on"), Some(Kind::Compressed));
        assert_eq!(of(b"<svg width=\"1\"></svg>"), Some(Kind::Svg));
    }

    #[test]
    fn everything_else_is_of_no_kind() {
        for bytes in [
            &b""[..],
            b"{",
            b"{}",
            b"{\"a\": 1}",
            b"[1, 2]",
            b"notes\nof a user\n",
            b"<!doctype html>\n<title>a page</title>",
            // Truncated safetensors files.
            b"\x05\0\0\0\0\0\0\0{",
            b"\xff\xff\xff\xff\xff\xff\xff\xff{}",
            b"\x02\0\0\0\0\0\0\0{}",
            b"\0\0\0\0",
        ] {
            assert_eq!(of(bytes), None, "{bytes:?}");
        }
    }
}
