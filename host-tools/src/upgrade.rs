//! Converts blobs of format version 2 to the current version: the same weights, the same logits.

use crate::error::{Error, Result};
use resnet_bk_core::Model;
use resnet_bk_core::blob::{
    Block, Chain, Dimensions, FORMAT_VERSION, Header, MAGIC, PREAMBLE_LEN, Preamble, Provenance,
    Section, align_up, checksum,
};
use serde::Deserialize;
use std::path::Path;

/// The version that can be converted.
const OLD: u32 = 2;

/// The header of version 2: its dimensions have no kind of block.
#[derive(Deserialize)]
struct OldHeader<'a> {
    dims: OldDimensions,
    chain_frac: u8,
    off_diagonal: u32,
    potentials_int8: bool,
    chain: Section,
    tokenizer: Option<Section>,
    token_classes: Option<Section>,
    records: &'a [u8],
    #[serde(borrow)]
    provenance: Provenance<'a>,
}

#[derive(Deserialize)]
struct OldDimensions {
    vocab: u32,
    width: u32,
    layers: u32,
    experts: u32,
    top_k: u32,
    hidden: u32,
    potentials: u32,
    positions: u32,
    token_classes: u32,
    chain: Chain,
}

impl From<OldDimensions> for Dimensions {
    fn from(old: OldDimensions) -> Self {
        Self {
            vocab: old.vocab,
            width: old.width,
            layers: old.layers,
            experts: old.experts,
            top_k: old.top_k,
            hidden: old.hidden,
            potentials: old.potentials,
            positions: old.positions,
            token_classes: old.token_classes,
            chain: old.chain,
            block: Block::Resolvent,
        }
    }
}

/// The blob in the current version. One that already is comes back as it is. `path` is named in
/// errors.
///
/// # Errors
///
/// [`Error::Format`] for bytes that are not an intact blob of version 2 or of the current one.
pub fn upgrade(bytes: &[u8], path: &Path) -> Result<Vec<u8>> {
    let refused = |reason: String| Error::Format { kind: "blob", path: path.into(), reason };
    let word = |at: usize| {
        let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
        field.map_or(0, |field| u32::from_le_bytes(*field))
    };
    let is_old = bytes.starts_with(&MAGIC) && word(8) == OLD;
    let new = if is_old { convert(bytes, word).map_err(refused)? } else { bytes.to_vec() };
    Model::from_bytes(&new).map_err(|error| refused(error.to_string()))?;
    Ok(new)
}

fn convert(bytes: &[u8], word: impl Fn(usize) -> u32) -> Result<Vec<u8>, String> {
    let (header_len, total, stored) = (word(12) as usize, word(16) as usize, word(20));
    if bytes.len() != total {
        return Err(format!("it has {} bytes instead of {total}", bytes.len()));
    }
    let computed = checksum(bytes);
    if computed != stored {
        return Err(format!("its checksum is {computed:08x} instead of {stored:08x}"));
    }
    let undecodable = || "its header cannot be decoded".to_string();
    let encoded = bytes[PREAMBLE_LEN..].get(..header_len).ok_or_else(undecodable)?;
    let old: OldHeader<'_> = postcard::from_bytes(encoded).map_err(|_| undecodable())?;
    // Offsets are relative to the first section, so that sections stay as they are.
    let sections = bytes.get(align_up(PREAMBLE_LEN + header_len)..).ok_or_else(undecodable)?;
    let header = Header {
        dims: old.dims.into(),
        chain_frac: old.chain_frac,
        off_diagonal: old.off_diagonal,
        potentials_int8: old.potentials_int8,
        chain: old.chain,
        tokenizer: old.tokenizer,
        token_classes: old.token_classes,
        records: old.records,
        provenance: old.provenance,
    };
    let header = postcard::to_allocvec(&header).map_err(|error| error.to_string())?;
    let base = Preamble { header_len: header.len() as u32, total_len: 0 }.base();
    let total_len = u32::try_from(base + sections.len())
        .map_err(|_| format!("format {FORMAT_VERSION} would take more than 4 GiB"))?;
    let preamble = Preamble { header_len: header.len() as u32, total_len };
    let mut new = [&preamble.to_bytes()[..], &header].concat();
    new.resize(base, 0);
    new.extend(sections);
    let sum = checksum(&new);
    new[20..24].copy_from_slice(&sum.to_le_bytes());
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(version: u32, name: &str) -> Vec<u8> {
        let root = env!("CARGO_MANIFEST_DIR");
        std::fs::read(format!("{root}/../core/tests/golden/v{version}/{name}.rbk")).unwrap()
    }

    /// The golden blobs of version 3, whose logits the core's tests check, were made from the same
    /// recipes, with the same digests, as those of version 2.
    #[test]
    fn golden_blobs_of_version_2_become_those_of_version_3() {
        let names = ["full-int8", "half-classes", "half-fp16", "half-int4", "half-mixed"];
        for name in names.into_iter().chain(["half-planes", "half-wild"]) {
            let old = golden(2, name);
            let new = upgrade(&old, Path::new(name)).unwrap();
            assert!(new == golden(3, name), "{name}");
            assert!(upgrade(&new, Path::new(name)).unwrap() == new, "{name}");
            assert!(Model::from_bytes(&old).is_err());
        }
    }

    #[test]
    fn damaged_blobs_are_refused() {
        let old = golden(2, "half-planes");
        for (at, expected) in [(8, "format"), (12, "checksum"), (16, "bytes"), (400, "checksum")] {
            let mut bytes = old.clone();
            bytes[at] ^= 0x10;
            let error = upgrade(&bytes, Path::new("a.rbk")).unwrap_err().to_string();
            assert!(error.contains(expected), "{at}: {error}");
        }
        for len in 0..old.len() {
            assert!(upgrade(&old[..len], Path::new("a.rbk")).is_err(), "{len}");
        }
    }

    /// A header that lies, under a correct checksum.
    #[test]
    fn forged_headers_are_refused() {
        let old = golden(2, "half-planes");
        for at in PREAMBLE_LEN..PREAMBLE_LEN + 60 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = old.clone();
                bytes[at] = value;
                let sum = checksum(&bytes);
                bytes[20..24].copy_from_slice(&sum.to_le_bytes());
                // No panic; whatever is accepted is a valid model.
                let _ = upgrade(&bytes, Path::new("a.rbk"));
            }
        }
    }
}
