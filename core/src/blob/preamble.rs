//! The preamble: the fixed first 32 bytes.

use crate::error::Error;

/// First eight bytes of every blob.
pub const MAGIC: [u8; 8] = *b"ResNetBK";
/// Format version that this crate reads and the tools write.
pub const FORMAT_VERSION: u32 = 3;
/// Bytes before the postcard header.
pub const PREAMBLE_LEN: usize = 32;
/// Alignment of every section, in bytes from the start of the blob.
pub const ALIGN: usize = 16;

const CRC_FIELD: core::ops::Range<usize> = 20..24;
pub(crate) static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// The fixed fields before the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    /// Bytes of postcard header.
    pub header_len: u32,
    /// Bytes of the whole blob.
    pub total_len: u32,
}

impl Preamble {
    /// Checks magic, version, length and checksum, in that order; the error is the first problem.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::read::<true>(bytes)
    }

    /// [`Preamble::parse`], without the checksum unless `VERIFY`.
    #[inline]
    pub(crate) fn read<const VERIFY: bool>(bytes: &[u8]) -> Result<Self, Error> {
        let Some(fixed) = bytes.first_chunk::<PREAMBLE_LEN>() else {
            return Err(if bytes.starts_with(&MAGIC) || MAGIC.starts_with(bytes) {
                Error::Truncated { needed: PREAMBLE_LEN, given: bytes.len() }
            } else {
                Error::NotABlob
            });
        };
        if fixed[..8] != MAGIC {
            return Err(Error::NotABlob);
        }
        let word = |at: usize| {
            u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]])
        };
        let version = word(8);
        if version != FORMAT_VERSION {
            return Err(Error::Version { found: version, supported: FORMAT_VERSION });
        }
        let preamble = Self { header_len: word(12), total_len: word(16) };
        let total = preamble.total_len as usize;
        if bytes.len() < total {
            return Err(Error::Truncated { needed: total, given: bytes.len() });
        }
        if bytes.len() > total {
            return Err(Error::TrailingBytes { expected: total, given: bytes.len() });
        }
        if VERIFY {
            let stored = stored_checksum(bytes);
            let computed = checksum(bytes);
            if stored != computed {
                return Err(Error::Checksum { stored, computed });
            }
        }
        let header_end = PREAMBLE_LEN as u64 + preamble.header_len as u64;
        if header_end > total as u64 {
            return Err(Error::Header);
        }
        Ok(preamble)
    }

    /// The 32 bytes with a checksum of zero; [`checksum`] of the finished blob belongs at byte 20.
    pub fn to_bytes(self) -> [u8; PREAMBLE_LEN] {
        let mut bytes = [0; PREAMBLE_LEN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.header_len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.total_len.to_le_bytes());
        bytes
    }

    /// Offset of the first section.
    pub fn base(self) -> usize {
        super::align_up(PREAMBLE_LEN + self.header_len as usize)
    }
}

/// The checksum stored in a blob; 0 if the field is out of bounds.
pub(crate) fn stored_checksum(blob: &[u8]) -> u32 {
    let field = blob.get(CRC_FIELD).and_then(<[u8]>::first_chunk);
    field.map_or(0, |field| u32::from_le_bytes(*field))
}

/// CRC-32C of a blob with its checksum field taken as zero.
pub fn checksum(blob: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    // A loop, so that `update` is inlined only once.
    let before = blob.get(..CRC_FIELD.start).unwrap_or(blob);
    for part in [before, &[0; 4], blob.get(CRC_FIELD.end..).unwrap_or(&[])] {
        digest.update(part);
    }
    digest.finalize()
}
