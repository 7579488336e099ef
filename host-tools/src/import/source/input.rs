//! Files and bytes in memory, read piece by piece.

use std::io::{Read, Seek, SeekFrom};

/// Something to read from at any position.
pub(super) trait Input: Read + Seek {}

impl<T: Read + Seek> Input for T {}

/// Reads `length` bytes at `start`; the file must have as many.
pub(super) fn bytes_at(input: &mut dyn Input, start: u64, length: u64) -> Result<Vec<u8>, String> {
    let mut read = || {
        input.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::with_capacity(length as usize);
        input.take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes: Vec<u8> = read().map_err(|e: std::io::Error| e.to_string())?;
    if bytes.len() as u64 == length {
        Ok(bytes)
    } else {
        Err(format!("the file ends {} bytes too early", length - bytes.len() as u64))
    }
}
