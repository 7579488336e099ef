//! Snapshots: the state of a stream as bytes, to survive power loss.
//!
//! ```text
//! byte  0   magic "RBKstate"
//!       8   version             u32, little endian like every number here
//!      12   checksum of blob    u32, as its preamble has it
//!      16   length of blob      u32
//!      20   position            u64
//!      28   state               block by block: 1/L of the last position, i32 [2K]; in a gated
//!                               chain the memory, i32 [C], and the convolution's tail
//!   len−4   CRC-32C             u32, over all bytes before it
//! ```
//!
//! `docs/format.md` specifies it.

use crate::blob::{Block, CRC, Dimensions, TAPS};
use crate::error::{Error, SnapshotProblem};
use crate::layers::memory;
use crate::memory::{product, total};
use crate::numeric::Scale;
use crate::session::Session;

/// First eight bytes of every snapshot.
const MAGIC: [u8; 8] = *b"RBKstate";
/// Format version that is written and read.
const VERSION: u32 = 1;
/// Bytes of the fields before the state.
const HEAD: usize = 28;
/// Bytes of the checksum.
const CHECKSUM: usize = 4;

impl Dimensions {
    /// Bytes of a [`Session::snapshot`].
    pub const fn snapshot_len(&self) -> usize {
        total([HEAD, product([4, self.state_words()]), CHECKSUM])
    }
}

impl<M: AsRef<[u32]> + AsMut<[u32]>> Session<'_, M> {
    /// Writes the stream's state and position to the first [`Dimensions::snapshot_len`] bytes of
    /// `bytes` and returns their number. A session of the same blob that restores them continues
    /// bit for bit, on this machine or another.
    ///
    /// ```
    /// # use resnet_bk_core::{Error, Model, Session};
    /// # static BLOB: &[u8] =
    /// #     resnet_bk_core::include_blob!("../tests/golden/v3/half-int4.rbk");
    /// let model = Model::from_bytes(BLOB)?;
    /// let mut memory = [vec![0; model.dims().session_words()], vec![]];
    /// memory[1] = memory[0].clone();
    /// let [first, second] = &mut memory;
    ///
    /// let mut session = Session::new(model.clone(), &mut first[..])?;
    /// session.feed(3)?;
    /// let mut saved = [0; 256];
    /// let len = session.snapshot(&mut saved)?; // to flash, say
    ///
    /// let mut restored = Session::new(model, &mut second[..])?; // after the loss of power
    /// restored.restore(&saved[..len])?;
    /// assert_eq!(restored.position(), 1);
    /// assert_eq!(restored.step(7)?, session.step(7)?); // the same bits
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] while a token is in progress, [`Error::Buffer`] if `bytes` is too short;
    /// `bytes` are then unchanged.
    pub fn snapshot(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        if self.is_busy() {
            return Err(Error::Busy);
        }
        let (needed, given) = (self.model().dims().snapshot_len(), bytes.len());
        let Some(bytes) = bytes.get_mut(..needed) else {
            return Err(Error::Buffer { needed, given });
        };
        let (content, sum) = bytes.split_at_mut(needed - CHECKSUM);
        let (checksum, len) = self.model().identity();
        content[..8].copy_from_slice(&MAGIC);
        content[8..12].copy_from_slice(&VERSION.to_le_bytes());
        content[12..16].copy_from_slice(&checksum.to_le_bytes());
        content[16..20].copy_from_slice(&len.to_le_bytes());
        content[20..HEAD].copy_from_slice(&(self.position() as u64).to_le_bytes());
        let words = content[HEAD..].as_chunks_mut().0.iter_mut().zip(self.state());
        for (index, (bytes, &word)) in words.enumerate() {
            *bytes = self.swap(index, word).to_le_bytes();
        }
        sum.copy_from_slice(&CRC.checksum(content).to_le_bytes());
        Ok(needed)
    }

    /// Restores the state and position that [`Session::snapshot`] wrote; `bytes` must be exactly
    /// the snapshot. Drops a token in progress. There are no logits until the next token.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] with the first problem: not a snapshot, another version, model or
    /// length, corrupt, or a state outside the proven range. The session is then unchanged,
    /// including a token in progress.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let position = self.check_snapshot(bytes).map_err(Error::Snapshot)?;
        self.rewind(position);
        let words = bytes[HEAD..].as_chunks().0;
        for index in 0..self.state().len() {
            let word = self.swap(index, u32::from_le_bytes(words[index]));
            self.state_mut()[index] = word;
        }
        Ok(())
    }

    /// A word of the state between the machine's order of bytes and that of a snapshot: a word of
    /// four codes has them in the order of channels on every machine.
    fn swap(&self, index: usize, word: u32) -> u32 {
        let dims = self.model().dims();
        match dims.block {
            Block::Gated { channels } => {
                let tail = 2 * dims.potentials as usize + channels as usize + (TAPS - 1);
                if index % dims.block_state_words() < tail { word } else { word.to_le() }
            }
            Block::Resolvent => word,
        }
    }

    /// Validates a snapshot against this session's model and returns its position.
    fn check_snapshot(&self, bytes: &[u8]) -> Result<usize, SnapshotProblem> {
        let dims = self.model().dims();
        if !bytes.starts_with(&MAGIC) {
            return Err(SnapshotProblem::NotASnapshot);
        }
        let word = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk);
        let word = |at: usize| word(at).map(|word| u32::from_le_bytes(*word));
        let found = word(8).ok_or(SnapshotProblem::Length)?;
        if found != VERSION {
            return Err(SnapshotProblem::Version { found, supported: VERSION });
        }
        let identity = word(12).zip(word(16)).ok_or(SnapshotProblem::Length)?;
        if identity != self.model().identity() {
            return Err(SnapshotProblem::Model);
        }
        if bytes.len() != dims.snapshot_len() {
            return Err(SnapshotProblem::Length);
        }
        let (content, sum) = bytes.split_at(bytes.len() - CHECKSUM);
        if sum != CRC.checksum(content).to_le_bytes() {
            return Err(SnapshotProblem::Checksum);
        }
        let [low, high] = [word(20), word(24)].map(|word| u64::from(word.unwrap_or(0)));
        let position = low | high << 32;
        if dims.positions != 0 && position > u64::from(dims.positions) {
            return Err(SnapshotProblem::State);
        }
        let blocks = content[HEAD..].chunks_exact(4 * dims.block_state_words());
        if !(0..dims.layers).zip(blocks).all(|(layer, block)| self.admits_state(layer, block)) {
            return Err(SnapshotProblem::State);
        }
        // Saturates on 32-bit machines, as the position of a session does.
        Ok(usize::try_from(position).unwrap_or(usize::MAX))
    }

    /// Whether the state of a block is within the ranges that inference never leaves.
    fn admits_state(&self, layer: u32, state: &[u8]) -> bool {
        let (dims, format) = (self.model().dims(), self.model().chain_format());
        let (re, rest) = state.split_at(4 * dims.potentials as usize);
        let (im, rest) = rest.split_at(re.len());
        let parameters = self.model().chain_parameters(layer);
        let mut chain = words(re).zip(words(im)).zip(parameters.iter());
        if !chain.all(|(state, (_, eta))| format.admits_state(eta, state)) {
            return false;
        }
        let Block::Gated { channels } = dims.block else { return true };
        let (memory, rest) = rest.split_at(4 * channels as usize);
        let (scales, codes) = rest.split_at(4 * (TAPS - 1));
        words(memory).all(memory::admits)
            && words(scales).all(|scale| Scale::is_packed(scale as u32))
            && codes.iter().all(|&code| code != 0x80)
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = i32> {
    bytes.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word))
}
