//! The tokenizer section of a blob.

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// The section that the core's tokenizer reads: the token of each byte, then the merges by rank.
pub fn section(tokenizer: &Tokenizer) -> Result<Vec<u8>> {
    let refuse = |reason: String| Err(Error::Tokenizer(reason));
    let mut byte_tokens = [u16::MAX; 256];
    for (token, bytes) in tokenizer.tokens().iter().enumerate().take(256) {
        match bytes[..] {
            [byte] => byte_tokens[byte as usize] = token as u16,
            _ => return refuse(format!("token {token} is not a byte: the first 256 must be")),
        }
    }
    let mut section: Vec<u8> = byte_tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
    for (rank, merge) in tokenizer.merges().iter().enumerate() {
        if merge.result as usize != 256 + rank || merge.result > u32::from(u16::MAX) {
            return refuse(format!(
                "merge {rank} makes token {}, not {}: merges must number their tokens in order",
                merge.result,
                256 + rank
            ));
        }
        section.extend((merge.left as u16).to_le_bytes());
        section.extend((merge.right as u16).to_le_bytes());
    }
    Ok(section)
}
