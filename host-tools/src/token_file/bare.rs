//! Bare little-endian numbers.

use std::path::Path;

use super::refusal::{Refusal, rewrite};

/// Width of a token in a file of bare numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TokenType {
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
}

/// Reads all of them.
pub(super) fn parse(bytes: &[u8], width: TokenType, path: &Path) -> Result<Vec<u32>, Refusal> {
    let (size, other) = match width {
        TokenType::U16 => (2, "u32"),
        TokenType::U32 => (4, "u16"),
    };
    if bytes.is_empty() {
        return Err(("it is empty".into(), rewrite(path)));
    }
    if !bytes.len().is_multiple_of(size) {
        let reason = format!("{} bytes are no whole number of tokens of {size}", bytes.len());
        return Err((reason, format!("copy it again, or read it as {other} (--token-type)")));
    }
    let token =
        |bytes: &[u8]| bytes.iter().rev().fold(0, |token, &byte| token << 8 | u32::from(byte));
    Ok(bytes.chunks_exact(size).map(token).collect())
}
