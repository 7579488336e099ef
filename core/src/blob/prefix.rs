//! The dimensions of a blob from its first bytes, at compile time where the blob is there.

use super::{Block, Chain, Dimensions, FORMAT_VERSION, MAGIC, PREAMBLE_LEN};
use crate::error::Error;

impl Dimensions {
    /// Reads the dimensions of a blob. For a blob in the program this works at compile time, so
    /// that the session memory can be a static of the right size:
    ///
    /// ```
    /// use resnet_bk_core::blob::Dimensions;
    ///
    /// static BLOB: &[u8] =
    ///     resnet_bk_core::include_blob!("../../tests/golden/v3/half-int4.rbk");
    /// const DIMS: Dimensions = match Dimensions::of_blob(BLOB) {
    ///     Ok(dims) => dims,
    ///     Err(_) => panic!("not a blob of this version"),
    /// };
    /// static MEMORY: [u32; DIMS.session_words()] = [0; DIMS.session_words()];
    /// assert_eq!(MEMORY.len(), DIMS.session_words());
    /// ```
    ///
    /// The dimensions are the first fields of the header (`docs/format.md`), so the first
    /// [`Self::PREFIX`] bytes of a blob suffice. The rest is not validated;
    /// [`crate::Model::from_bytes`] does that.
    ///
    /// # Errors
    ///
    /// [`Error::NotABlob`], [`Error::Version`], [`Error::Truncated`], [`Error::Header`] or
    /// [`Error::Dimension`].
    pub const fn of_blob(bytes: &[u8]) -> Result<Self, Error> {
        let header_len = match header_len(bytes) {
            Ok(len) => len,
            Err(error) => return Err(error),
        };
        let mut fields = [0; 9];
        let (mut at, mut i) = (PREAMBLE_LEN, 0);
        while i < fields.len() {
            (fields[i], at) = match varint(bytes, at) {
                Ok(read) => read,
                Err(error) => return Err(error),
            };
            i += 1;
        }
        let (chain, at) = match varint(bytes, at) {
            Ok((0, end)) => (Chain::Full, end),
            Ok((1, end)) => (Chain::Half, end),
            Ok(_) => return Err(Error::Header),
            Err(error) => return Err(error),
        };
        let (block, at) = match varint(bytes, at) {
            Ok((0, end)) => (Block::Resolvent, end),
            Ok((1, end)) => match varint(bytes, end) {
                Ok((channels, end)) => (Block::Gated { channels }, end),
                Err(error) => return Err(error),
            },
            Ok(_) => return Err(Error::Header),
            Err(error) => return Err(error),
        };
        if at - PREAMBLE_LEN > header_len as usize {
            return Err(Error::Header);
        }
        let [vocab, width, layers, experts, top_k, hidden, potentials, positions, token_classes] =
            fields;
        let dims = Self {
            vocab,
            width,
            layers,
            experts,
            top_k,
            hidden,
            potentials,
            positions,
            token_classes,
            chain,
            block,
        };
        match dims.validate() {
            Ok(()) => Ok(dims),
            Err(error) => Err(error),
        }
    }

    /// Largest prefix of a blob that [`Self::of_blob`] reads: the preamble and twelve varints.
    pub const PREFIX: usize = PREAMBLE_LEN + 12 * VARINT;
}

/// Most bytes of a 32-bit varint.
const VARINT: usize = 5;

/// The length of the header, after checking magic and version.
const fn header_len(bytes: &[u8]) -> Result<u32, Error> {
    let mut i = 0;
    while i < MAGIC.len() && i < bytes.len() {
        if bytes[i] != MAGIC[i] {
            return Err(Error::NotABlob);
        }
        i += 1;
    }
    let (Some((_, fields)), true) = (bytes.split_first_chunk::<8>(), bytes.len() >= PREAMBLE_LEN)
    else {
        return Err(Error::Truncated { needed: PREAMBLE_LEN, given: bytes.len() });
    };
    let [v0, v1, v2, v3, h0, h1, h2, h3, ..] = fields else {
        return Err(Error::Truncated { needed: PREAMBLE_LEN, given: bytes.len() });
    };
    let found = u32::from_le_bytes([*v0, *v1, *v2, *v3]);
    if found != FORMAT_VERSION {
        return Err(Error::Version { found, supported: FORMAT_VERSION });
    }
    Ok(u32::from_le_bytes([*h0, *h1, *h2, *h3]))
}

/// Decodes a postcard varint of a `u32` at offset `at`; returns it and the offset after it.
const fn varint(bytes: &[u8], mut at: usize) -> Result<(u32, usize), Error> {
    let (mut value, mut shift) = (0u32, 0);
    while at < bytes.len() {
        let byte = bytes[at];
        at += 1;
        // The fifth byte holds the top four bits and ends the number.
        if shift == 28 && byte > 0x0f {
            return Err(Error::Header);
        }
        value |= ((byte & 0x7f) as u32) << shift;
        if byte < 0x80 {
            return Ok((value, at));
        }
        shift += 7;
    }
    Err(Error::Truncated { needed: at + 1, given: bytes.len() })
}
