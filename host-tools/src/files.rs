//! Reading and writing whole files, with errors that name the path.

use crate::error::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// The whole file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io("read", path))
}

/// The whole file as text; an invalid byte is reported with its offset.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read(path)?).map_err(|e| Error::TextNotUtf8 {
        path: path.to_path_buf(),
        offset: e.utf8_error().valid_up_to(),
    })
}

/// Creates the directory and its parents where they do not exist.
pub fn create_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Replaces the file at `path` by `bytes`: afterwards it holds either its old content or all of the
/// new, whatever happens in between. The bytes go to a temporary file in the same directory, are
/// flushed to the disk and renamed; on any error the temporary file is removed.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(Error::Usage(format!("`{}` does not name a file", path.display())));
    };
    let mut temporary = name.to_os_string();
    // The process id keeps two runs that write the same file from sharing a temporary one.
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(temporary);
    let result = write_and_rename(&temporary, path, bytes);
    if result.is_err() {
        // The first error is the one to report; there may be no temporary file to remove.
        let _ = fs::remove_file(&temporary);
    }
    result.map_err(Error::io("write", path))
}

/// Removes temporary files that a process which was killed while writing `path` left behind. Only
/// for files that no other process can be writing now.
pub fn remove_leftovers(path: &Path) -> Result<()> {
    let (Some(name), Some(directory)) = (path.file_name(), path.parent()) else { return Ok(()) };
    let prefix = format!("{}.", name.to_string_lossy());
    // `Path::parent` of a bare file name is the empty path, which does not name the directory.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        let found = entry.file_name().to_string_lossy().into_owned();
        let process = found.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".tmp"));
        if process.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit())) {
            let path = entry.path();
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn write_and_rename(temporary: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create(temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_content_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_failed_write_names_the_path_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("occupied");
        // A directory in the way makes the rename fail after the temporary file is complete.
        fs::create_dir(&path).unwrap();
        fs::write(path.join("content"), b"x").unwrap();
        let error = write_atomically(&path, b"two").unwrap_err();
        assert!(error.to_string().contains("occupied"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_a_killed_process_go_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["state", "state.123.tmp", "state.tmp", "state.a1.tmp", "other.123.tmp"] {
            fs::write(directory.path().join(name), b"x").unwrap();
        }
        remove_leftovers(&directory.path().join("state")).unwrap();
        assert!(!directory.path().join("state.123.tmp").exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 4);
    }

    #[test]
    fn an_invalid_byte_is_reported_with_its_offset() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("text");
        fs::write(&path, b"abc\xffd").unwrap();
        let error = read_text(&path).unwrap_err();
        assert!(error.to_string().contains("offset 3"), "{error}");
    }
}
