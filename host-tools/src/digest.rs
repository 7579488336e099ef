//! SHA-256 in hexadecimal.

use sha2::{Digest, Sha256};

/// SHA-256 of bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of tokens as little-endian u32, in hexadecimal.
pub(crate) fn sha256_of_tokens(tokens: &[u32]) -> String {
    sha256(&tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>())
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
