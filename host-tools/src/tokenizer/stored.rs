//! What a blob can hold of a tokenizer.

use super::file::Parts;
use super::table;
use crate::error::{Error, Result};

/// What a blob can hold of a tokenizer.
pub(super) enum Stored {
    /// All of it: it follows this module's rules.
    Own(Parts),
    /// The bytes of every token: it decodes.
    Table(Vec<Vec<u8>>),
    /// Nothing, for this reason.
    Nothing(String),
}

impl Stored {
    /// What a blob can hold of a tokenizer that does not follow this module's rules.
    pub(super) fn of(inner: &tokenizers::Tokenizer) -> Self {
        match table::table(inner) {
            Ok(table) => Self::Table(table),
            Err(reason) => Self::Nothing(reason),
        }
    }

    /// The bytes of every token, if a text is nothing but the bytes of its tokens.
    pub(super) fn table(&self) -> Option<&[Vec<u8>]> {
        match self {
            Self::Own(parts) => Some(&parts.tokens),
            Self::Table(table) => Some(table),
            Self::Nothing(_) => None,
        }
    }

    /// The same, if also every text comes back when it is encoded and decoded.
    pub(super) fn lossless(&self) -> Option<&[Vec<u8>]> {
        match self {
            Self::Own(parts) => Some(&parts.tokens),
            Self::Table(_) | Self::Nothing(_) => None,
        }
    }

    /// The section of a blob that [`resnet_bk_core::Tokenizer`] reads.
    pub(super) fn section(&self) -> Result<Vec<u8>> {
        let refuse = |reason: &str| Err(Error::TokenizerOnDevice(reason.to_owned()));
        match self {
            Self::Own(parts) => Ok(own(parts)),
            Self::Table(_) => refuse("its rules are none that a device follows"),
            Self::Nothing(reason) => refuse(reason),
        }
    }
}

/// The token of each byte, then the pair of each merge by rank, all `u16`, little-endian.
fn own(Parts { tokens, merges }: &Parts) -> Vec<u8> {
    let mut byte_tokens = [0; 256];
    for (token, bytes) in (0u16..).zip(&tokens[..256]) {
        byte_tokens[usize::from(bytes[0])] = token;
    }
    let pairs = merges.iter().flat_map(|m| [m.left as u16, m.right as u16]);
    byte_tokens.into_iter().chain(pairs).flat_map(u16::to_le_bytes).collect()
}
