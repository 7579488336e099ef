//! The records of a container. Every one has a checksum of its own, so that a reader finds the next
//! one after a damaged one.

use resnet_bk_core as core;

/// Bytes of text in the largest chunk, which bounds the memory that a reader needs.
pub const MAX_CHUNK: usize = 16 << 20;
/// First eight bytes of a container.
pub const MAGIC: [u8; 8] = *b"RBKtexts";
/// Version that is written and read.
const VERSION: u32 = 1;
/// Bytes of the header.
const HEADER: usize = 32;
/// Bytes of a record before a chunk's body.
const RECORD: usize = 20;
/// Bytes of a checksum.
pub(super) const CHECK: usize = 4;
const CHUNK: [u8; 4] = *b"RBKc";
const END: [u8; 4] = *b"RBKe";

static CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// CRC-32C.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    CRC.checksum(bytes)
}

/// How text was coded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Every line is a message, otherwise every chunk.
    pub lines: bool,
    /// A line is coded after those before it in its chunk.
    pub carried: bool,
}

/// The beginning of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Checksum and length of the blob.
    pub model: (u32, u32),
    /// How the text was coded.
    pub flags: Flags,
    /// CRC-32C of the text that the model read before; 0 for none.
    pub prime: u32,
}

/// Chunks that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Number of the first one, from 0.
    pub first: u32,
    /// Number of the last one; none if the container has no end.
    pub last: Option<u32>,
}

/// A chunk that has not been decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    pub(super) index: u32,
    pub(super) text_len: usize,
    pub(super) body: &'a [u8],
}

/// A container, divided into its chunks.
#[derive(Debug)]
pub struct Container<'a> {
    /// Its header.
    pub header: Header,
    /// Chunks in order, and what is missing between them.
    pub(super) pieces: Vec<Result<Chunk<'a>, Lost>>,
}

impl Header {
    pub(super) fn new(model: &core::Model<'_>, flags: Flags, prime: &[u8]) -> Self {
        Self { model: model.identity(), flags, prime: checksum(prime) }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let flags = u32::from(self.flags.lines) | u32::from(self.flags.carried) << 1;
        let words = [VERSION, self.model.0, self.model.1, flags, self.prime];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(checksum(&bytes).to_le_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        if !bytes.starts_with(&MAGIC) {
            return Err("its first bytes are not those of a compressed text".into());
        }
        let Some(fixed) = bytes.first_chunk::<HEADER>() else {
            return Err("it is cut short within its header".into());
        };
        let word = |at: usize| word(fixed, at);
        if word(8) != VERSION {
            return Err(format!("it has format {}, this version reads {VERSION}", word(8)));
        }
        if word(HEADER - CHECK) != checksum(&fixed[..HEADER - CHECK]) {
            return Err("its header is damaged".into());
        }
        let flags = Flags { lines: word(20) & 1 != 0, carried: word(20) & 2 != 0 };
        if word(20) > 3 || flags.carried && !flags.lines {
            return Err("its header asks for what this version does not know".into());
        }
        Ok(Self { model: (word(12), word(16)), flags, prime: word(24) })
    }

    /// Whether the container was made with this model, after this text: `Err` says what is not.
    pub fn check(&self, model: &core::Model<'_>, prime: &[u8]) -> Result<(), String> {
        let own = model.identity();
        if self.model != own {
            return Err(format!(
                "it was compressed with a blob of {} bytes and checksum {:08x}, this one has {} \
                 and {:08x}",
                self.model.1, self.model.0, own.1, own.0
            ));
        }
        match (self.prime, checksum(prime)) {
            (0, 0) => Ok(()),
            (found, given) if found == given => Ok(()),
            (0, _) => Err("it was compressed without a text before it: leave out --prime".into()),
            (_, 0) => Err("it was compressed after another text: pass it with --prime".into()),
            _ => Err("the text of --prime is not the one that it was compressed after".into()),
        }
    }
}

impl<'a> Container<'a> {
    /// Finds the chunks of a container, whatever is damaged but its header.
    ///
    /// # Errors
    ///
    /// What is wrong with the header.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let header = Header::parse(bytes)?;
        let (mut pieces, mut at, mut next) = (Vec::new(), HEADER, 0);
        let lose = |pieces: &mut Vec<_>, first: u32, until: u32| {
            if first < until {
                pieces.push(Err(Lost { first, last: Some(until - 1) }));
            }
        };
        while at < bytes.len() {
            match Record::parse(&bytes[at..]) {
                Some(Record::Chunk(chunk)) if chunk.index >= next => {
                    lose(&mut pieces, next, chunk.index);
                    next = chunk.index.saturating_add(1);
                    at += RECORD + chunk.body.len();
                    pieces.push(Ok(chunk));
                }
                Some(Record::End(count)) if count >= next => {
                    lose(&mut pieces, next, count);
                    return Ok(Self { header, pieces });
                }
                // Damaged, or bytes of a damaged chunk.
                _ => at += 1,
            }
        }
        pieces.push(Err(Lost { first: next, last: None }));
        Ok(Self { header, pieces })
    }
}

enum Record<'a> {
    Chunk(Chunk<'a>),
    /// The end, with the number of chunks.
    End(u32),
}

impl<'a> Record<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, rest) = bytes.split_at_checked(RECORD)?;
        let kind = fixed.first_chunk()?;
        if ![CHUNK, END].contains(kind)
            || word(fixed, RECORD - CHECK) != checksum(&fixed[..RECORD - CHECK])
        {
            return None;
        }
        let index = word(fixed, 4);
        if *kind == END {
            return Some(Self::End(index));
        }
        let (text_len, len) = (word(fixed, 8) as usize, word(fixed, 12) as usize);
        let body = rest.get(..len)?;
        (text_len <= MAX_CHUNK).then_some(Self::Chunk(Chunk { index, text_len, body }))
    }
}

/// Appends a chunk.
pub(super) fn append_chunk(out: &mut Vec<u8>, index: u32, text: &[u8], body: &[u8]) {
    append_record(out, CHUNK, [index, text.len() as u32, body.len() as u32]);
    out.extend(body);
}

/// Appends the end: the number of chunks and the length of the text.
pub(super) fn append_end(out: &mut Vec<u8>, chunks: u32, text_len: u64) {
    append_record(out, END, [chunks, text_len as u32, (text_len >> 32) as u32]);
}

fn append_record(out: &mut Vec<u8>, kind: [u8; 4], words: [u32; 3]) {
    let start = out.len();
    out.extend(kind);
    out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    out.extend(checksum(&out[start..]).to_le_bytes());
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes.get(at..).and_then(<[u8]>::first_chunk);
    word.map_or(0, |word| u32::from_le_bytes(*word))
}
