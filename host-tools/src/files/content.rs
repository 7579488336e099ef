//! The content of a file, mapped into memory if it is large.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use super::resident::Resident;
use crate::error::{Error, Result};

/// Files of fewer bytes are read: a mapping takes whole pages and system calls.
const LARGE: u64 = 1 << 20;

/// The bytes of a file. Those of a large one are loaded where and when they are accessed, and do
/// not count as memory of the process: the system can drop and load them again.
///
/// A file that another process changes in place while it is mapped changes here, too, and one that
/// it shortens ends the process. The tools only ever replace a file by renaming another, which does
/// not touch the mapped one.
#[derive(Debug)]
pub enum Content {
    /// A large regular file.
    Mapped(Mmap),
    /// A large file that is read again and again.
    Resident(Resident),
    /// A small file, or what a pipe or device gave.
    Read(Vec<u8>),
}

impl Content {
    /// The content of the file at `path`.
    pub fn of(path: &Path) -> Result<Self> {
        Self::open(path, LARGE).map_err(Error::io("read", path))
    }

    /// The same content, a large file's in memory of its own, for reading all of it again and
    /// again: see [`Resident`].
    pub fn resident(self) -> io::Result<Self> {
        match self {
            Self::Mapped(mapped) => Ok(Self::Resident(Resident::copy(&mapped)?)),
            other => Ok(other),
        }
    }

    fn open(path: &Path, large: u64) -> io::Result<Self> {
        let found = fs::metadata(path)?;
        if !found.is_file() || found.len() < large {
            let mut bytes = Vec::new();
            File::open(path)?.read_to_end(&mut bytes)?;
            return Ok(Self::Read(bytes));
        }
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only, and lives as long as its borrows. That no
        // other process writes to the file meanwhile is up to the user, as documented; none of the
        // tools does.
        Ok(Self::Mapped(unsafe { Mmap::map(&file)? }))
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapped) => mapped,
            Self::Resident(content) => content,
            Self::Read(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_or_read_the_bytes_are_those_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, b"content").unwrap();
        let [mapped, read] = [1, 8].map(|large| Content::open(&path, large).unwrap());
        assert!(matches!(mapped, Content::Mapped(_)) && matches!(read, Content::Read(_)));
        assert_eq!((&*mapped, &*read), (&b"content"[..], &b"content"[..]));
        let resident = Content::open(&path, 1).unwrap().resident().unwrap();
        assert!(matches!(resident, Content::Resident(_)));
        assert_eq!(&*resident, b"content");
        // What replaces the file leaves the mapping alone.
        super::super::write_atomically(&path, b"other").unwrap();
        assert_eq!(&*mapped, b"content");
        let error = Content::of(&directory.path().join("absent")).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }
}
