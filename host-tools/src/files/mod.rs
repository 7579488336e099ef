//! Whole-file reads, mapped files, atomic replacement and lock files; errors name the path.

mod content;
mod lock;
mod replace;
mod resident;

pub use content::Content;
pub use lock::Lock;
pub(crate) use replace::{follow, is_special, is_standard_output, probe};
pub use replace::{remove_leftovers, write_atomically, write_atomically_by};
pub use resident::Resident;

use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io("read", path))
}

/// Reads a whole file as text; an invalid byte is reported with its offset.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| Error::TextNotUtf8 {
        path: path.to_path_buf(),
        offset: e.utf8_error().valid_up_to(),
    })
}

/// Creates the directory and its parents if missing.
pub fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// The path of a file beside another, named after it: `FILE.extension`.
pub fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    PathBuf::from(name)
}

/// Removes a file if it exists.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_byte_is_reported_with_its_offset() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        fs::write(&path, b"abc\xffd").unwrap();
        let error = read_text(&path).unwrap_err();
        assert!(error.to_string().contains("offset 3"), "{error}");
    }

    #[test]
    fn what_is_not_there_needs_no_removal() {
        let directory = tempfile::tempdir().unwrap();
        remove(&directory.path().join("absent")).unwrap();
        assert!(remove(directory.path()).unwrap_err().to_string().contains("cannot remove"));
    }
}
