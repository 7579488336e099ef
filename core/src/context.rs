//! A text that a model reads, token by token, from its very beginning.

use core::fmt;

use half::f16;

use crate::blob::Dimensions;
use crate::error::{Error, SnapshotProblem};
use crate::memory::total;
use crate::model::Model;
use crate::session::Session;

/// A session that computes logits only where they are asked for: also before the first token,
/// and none for tokens that only continue a text.
pub struct Context<'a, M> {
    session: Session<'a, M>,
    latest: Latest,
}

/// The latest token of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Latest {
    /// There is none: the beginning of a text.
    None,
    /// The session has not seen it.
    Unseen(u32),
    /// The session has computed the logits after it.
    Seen,
}

/// Bytes of the latest token in a snapshot.
const LATEST: usize = 4;

impl Dimensions {
    /// Bytes of a [`Context::snapshot`].
    pub const fn context_len(&self) -> usize {
        total([LATEST, self.snapshot_len()])
    }
}

impl<'a, M: AsRef<[u32]> + AsMut<[u32]>> Context<'a, M> {
    /// An empty text: the session is reset.
    pub fn new(mut session: Session<'a, M>) -> Self {
        session.reset();
        Self { session, latest: Latest::None }
    }

    /// The model.
    pub fn model(&self) -> &Model<'a> {
        self.session.model()
    }

    /// Returns to the empty text.
    pub fn clear(&mut self) {
        self.session.reset();
        self.latest = Latest::None;
    }

    /// Appends a token to the text.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] for a token that the model does not have; the text is then unchanged.
    /// [`Error::EndOfPositions`] past the end of the position table.
    pub fn push(&mut self, token: u32) -> Result<(), Error> {
        let vocab = self.model().dims().vocab;
        if token >= vocab {
            return Err(Error::Token { token, vocab });
        }
        if let Latest::Unseen(before) = self.latest {
            self.session.feed(before)?;
        }
        self.latest = Latest::Unseen(token);
        Ok(())
    }

    /// The logits (`[V]`) of the next token: after an empty text those of [`Session::prior`]. The
    /// caller may overwrite them, but must then push a token before asking again.
    ///
    /// # Errors
    ///
    /// [`Error::EndOfPositions`] past the end of the position table.
    pub fn logits(&mut self) -> Result<&mut [f16], Error> {
        match self.latest {
            Latest::None => return self.session.prior(),
            Latest::Unseen(token) => {
                self.session.step(token)?;
                self.latest = Latest::Seen;
            }
            Latest::Seen => {}
        }
        self.session.logits().ok_or(Error::Busy)
    }

    /// Writes the state after the text to the first [`Dimensions::context_len`] of `bytes` and
    /// returns that length: 4 bytes for the latest token plus 1, 0 for none, and a
    /// [`Session::snapshot`].
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] if `bytes` is too short; [`Error::Busy`] between [`Self::logits`] and the
    /// token that follows.
    pub fn snapshot(&self, bytes: &mut [u8]) -> Result<usize, Error> {
        let (needed, given) = (self.model().dims().context_len(), bytes.len());
        let short = Error::Buffer { needed, given };
        let number = match self.latest {
            Latest::None => 0,
            Latest::Unseen(token) => token + 1,
            Latest::Seen => return Err(Error::Busy),
        };
        let (latest, state) = bytes.split_first_chunk_mut().ok_or(short)?;
        let len = self.session.snapshot(state).map_err(|_| short)?;
        *latest = number.to_le_bytes();
        Ok(LATEST + len)
    }

    /// Returns to the text of a [`Self::snapshot`], in this context or another of the same blob.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] for another blob's state or damaged bytes; the text is then unchanged.
    pub fn restore(&mut self, snapshot: &[u8]) -> Result<(), Error> {
        let malformed = Error::Snapshot(SnapshotProblem::Length);
        let (latest, state) = snapshot.split_first_chunk().ok_or(malformed)?;
        let latest = match u32::from_le_bytes(*latest).checked_sub(1) {
            None => Latest::None,
            Some(token) if token < self.model().dims().vocab => Latest::Unseen(token),
            Some(_) => return Err(Error::Snapshot(SnapshotProblem::State)),
        };
        self.session.restore(state)?;
        self.latest = latest;
        Ok(())
    }
}

/// Omits the memory.
impl<M> fmt::Debug for Context<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("latest", &self.latest).finish_non_exhaustive()
    }
}
