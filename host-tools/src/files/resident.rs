//! Bytes that stay in memory, in large pages.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Zeroed memory of its own in large pages, where the system has them. A processor keeps the
/// addresses of a few thousand pages at hand; a token that reads the weights of a large model needs
/// more of the usual 4 KiB, which takes it a fifth longer.
#[derive(Debug)]
pub struct Resident(MmapMut);

impl Resident {
    /// So many zeros, at least one.
    pub fn zeros(length: usize) -> io::Result<Self> {
        let memory = MmapMut::map_anon(length)?;
        // Only advice: where it is refused, pages have the usual size.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        Ok(Self(memory))
    }

    /// A copy of these bytes.
    pub fn copy(bytes: &[u8]) -> io::Result<Self> {
        let mut copy = Self::zeros(bytes.len())?;
        copy.copy_from_slice(bytes);
        Ok(copy)
    }
}

impl Deref for Resident {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Resident {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
