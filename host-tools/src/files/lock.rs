//! Lock files: one process at a time.

use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// An exclusive lock on a file that contains the process id. The operating system releases the lock
/// when the process ends, however it ends. Dropping removes the file.
#[derive(Debug)]
pub struct Lock {
    // Closing the file releases the lock.
    _file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes the lock at `path`, or fails with the id of the holder. Without effect on file systems
    /// that do not support locks.
    pub fn acquire(path: &Path) -> Result<Self> {
        loop {
            let mut options = OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(path);
            let mut file = file.map_err(Error::io("create", path))?;
            let locked = file.try_lock();
            let mut holder = String::new();
            // Elsewhere than on Unix a locked file cannot be read: the message omits the process
            // id.
            let read = file.read_to_string(&mut holder);
            match locked {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let process = holder.parse().ok();
                    return Err(Error::Busy { path: path.to_path_buf(), process });
                }
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
            }
            if read.is_err() || !holder.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Error::Usage(format!(
                    "this run needs {} as its lock file, but it holds something else: move it away \
                     or choose another --out",
                    path.display()
                )));
            }
            // The previous holder may have removed the file after it was opened here; a lock on a
            // removed file excludes nobody.
            if is_at(&file, path) {
                let id = std::process::id();
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| write!(file, "{id}"))
                    .map_err(Error::io("write", path))?;
                return Ok(Self { _file: file, path: path.to_path_buf() });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while locked, so this cannot be another process's file; a leftover file blocks
        // nobody.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let (Ok(held), Ok(found)) = (file.metadata(), fs::metadata(path)) else { return false };
    (held.dev(), held.ino()) == (found.dev(), found.ino())
}

#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    // Windows does not remove a file that another process has open.
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        // The lock file of a killed process does not block.
        fs::write(&path, "99999999").unwrap();
        let held = Lock::acquire(&path).unwrap();
        let error = Lock::acquire(&path).unwrap_err();
        let id = std::process::id().to_string();
        assert!(error.to_string().contains(&id), "{error}");
        drop(held);
        assert!(!path.exists());
        drop(Lock::acquire(&path).unwrap());
        fs::write(&path, "notes of a user").unwrap();
        assert!(matches!(Lock::acquire(&path), Err(Error::Usage(_))));
        assert_eq!(fs::read(&path).unwrap(), b"notes of a user");
    }
}
