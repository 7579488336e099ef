//! What a blob can hold of a tokenizer.

use resnet_bk_core::tokenizer::MAX_TEXT_BYTES;

use super::byte_level::ByteLevel;
use super::file::Parts;
use super::table;
use crate::error::{Error, Result};

/// Mark and kind of a section with the bytes of every token.
const TABLE: [u16; 2] = [u16::MAX, 2];

/// What a blob can hold of a tokenizer.
pub(super) enum Stored {
    /// All of it: it follows this module's rules.
    Own(Parts),
    /// All of it: it follows GPT-2's rules.
    ByteLevel(ByteLevel),
    /// The bytes of every token: it decodes, but does not encode, for this reason.
    Table(Vec<Vec<u8>>, String),
    /// Nothing, for this reason.
    Nothing(String),
}

impl Stored {
    /// What a blob can hold of a tokenizer that does not follow this module's rules.
    pub(super) fn of(inner: &tokenizers::Tokenizer) -> Self {
        let table = match table::table(inner) {
            Ok(table) => table,
            Err(reason) => return Self::Nothing(reason),
        };
        let file = serde_json::to_value(inner).expect("a tokenizer serialises");
        match ByteLevel::parse(&file, table.clone()) {
            Ok(byte_level) => Self::ByteLevel(byte_level),
            Err(reason) => Self::Table(table, reason),
        }
    }

    /// The bytes of every token, if a text is nothing but the bytes of its tokens.
    pub(super) fn table(&self) -> Option<&[Vec<u8>]> {
        match self {
            Self::Own(Parts { tokens: table, .. })
            | Self::ByteLevel(ByteLevel { table, .. })
            | Self::Table(table, _) => Some(table),
            Self::Nothing(_) => None,
        }
    }

    /// The same, if also every text comes back when it is encoded and decoded.
    pub(super) fn lossless(&self) -> Option<&[Vec<u8>]> {
        match self {
            Self::Own(_) | Self::ByteLevel(_) => self.table(),
            Self::Table(..) | Self::Nothing(_) => None,
        }
    }

    /// Why a device does not encode with it, if it does not.
    pub(super) fn only_decodes(&self) -> Option<&str> {
        match self {
            Self::Own(_) | Self::ByteLevel(_) => None,
            Self::Table(_, reason) | Self::Nothing(reason) => Some(reason),
        }
    }

    /// The section of a blob that [`resnet_bk_core::Tokenizer`] reads.
    pub(super) fn section(&self) -> Result<Vec<u8>> {
        match self {
            Self::Own(parts) => Ok(own(parts)),
            Self::ByteLevel(byte_level) => Ok(byte_level.section()),
            Self::Table(table, _) => of_table(table).map_err(Error::TokenizerOnDevice),
            Self::Nothing(reason) => Err(Error::TokenizerOnDevice(reason.clone())),
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

/// Number, lengths and bytes of all tokens.
fn of_table(table: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    if table.len() > 1 << 16 {
        return Err(format!("it has {} tokens; a device knows at most 65536", table.len()));
    }
    let length = |(token, bytes): (usize, &Vec<u8>)| {
        let length = bytes.len();
        u8::try_from(length)
            .map_err(|_| format!("token {token} has {length} bytes; a device knows at most 255"))
    };
    let lengths = table.iter().enumerate().map(length).collect::<Result<Vec<u8>, String>>()?;
    let text = table.concat();
    if text.len() > MAX_TEXT_BYTES as usize {
        return Err(format!("all tokens together have more than {MAX_TEXT_BYTES} bytes"));
    }
    let head = TABLE.into_iter().flat_map(u16::to_le_bytes);
    let count = (table.len() as u32).to_le_bytes();
    Ok(head.chain(count).chain([0; 4]).chain(lengths).chain(text).collect())
}
