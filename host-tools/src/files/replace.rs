//! Atomic replacement of files.

use crate::error::{Error, Result};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Maximum number of symbolic links followed before they count as a cycle, as on Linux.
const MOST_LINKS: usize = 40;

/// Replaces the content of the file at `path` atomically: it holds either the old or the complete
/// new content at all times. The bytes go to a temporary file in the same directory, which is
/// synced to disk and renamed; on any error it is removed.
///
/// A symbolic link is kept and its target is replaced. An existing file keeps its permissions.
/// Anything that is not a regular file (a device, a pipe, standard output by one of its names)
/// cannot be replaced by renaming and is written to directly.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically_with(path, &|out| out.write_all(bytes))
}

/// Writes a content that need not be in memory.
pub(crate) type Content<'a> = &'a dyn Fn(&mut dyn Write) -> io::Result<()>;

/// As [`write_atomically`], with content that is written piece by piece.
pub(crate) fn write_atomically_with(path: &Path, content: Content<'_>) -> Result<()> {
    let write = || {
        if is_standard_output(path) {
            let mut out = io::stdout().lock();
            return content(&mut out).and_then(|()| out.flush());
        }
        if is_special(path) {
            return content(&mut OpenOptions::new().write(true).open(path)?);
        }
        let target = follow(path)?;
        let temporary = temporary(&target)?;
        let result = write_and_rename(&temporary, &target, content);
        if result.is_err() {
            // Report the first error; there may be no temporary file to remove.
            let _ = fs::remove_file(&temporary);
        }
        result
    };
    write().map_err(Error::io("write", path))
}

fn write_and_rename(temporary: &Path, target: &Path, content: Content<'_>) -> io::Result<()> {
    let mut file = File::create(temporary)?;
    // Permissions before content, so that private content is never readable by others.
    match fs::metadata(target) {
        Ok(before) => keep_owner_and_mode(&file, &before)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    content(&mut file)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, target)
}

#[cfg(unix)]
fn keep_owner_and_mode(file: &File, before: &Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, fchown};
    let new = file.metadata()?;
    if (new.uid(), new.gid()) != (before.uid(), before.gid()) {
        // Only root may change the owner; otherwise the new file belongs to the writer.
        let _ = fchown(file, Some(before.uid()), Some(before.gid()));
    }
    file.set_permissions(before.permissions())
}

#[cfg(not(unix))]
fn keep_owner_and_mode(_: &File, _: &Metadata) -> io::Result<()> {
    // Files inherit access rights from the directory, and a read-only file cannot be replaced by
    // renaming.
    Ok(())
}

/// Checks whether a temporary file can be created beside the file to replace, by creating and
/// removing one.
pub(crate) fn probe(path: &Path) -> io::Result<()> {
    let temporary = temporary(&follow(path)?)?;
    File::create(&temporary)?;
    fs::remove_file(&temporary)
}

/// Temporary name for a file; includes the process id, so that concurrent writers do not share one.
fn temporary(target: &Path) -> io::Result<PathBuf> {
    let Some(name) = target.file_name() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not name a file"));
    };
    let mut temporary = name.to_os_string();
    temporary.push(format!(".{}.tmp", std::process::id()));
    Ok(target.with_file_name(temporary))
}

/// Resolves symbolic links; the target need not exist.
pub(crate) fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            // Not a link, or missing.
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// Whether the path leads to a device, pipe or socket: neither a regular file nor a directory.
pub(crate) fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Whether the path refers to standard output, such as `/dev/stdout`.
#[cfg(unix)]
pub(crate) fn is_standard_output(path: &Path) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let standard = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let (Ok(standard), Ok(found)) = (standard.and_then(|out| out.metadata()), fs::metadata(path))
    else {
        return false;
    };
    (standard.dev(), standard.ino()) == (found.dev(), found.ino())
}

/// Whether the path refers to standard output; never on this platform.
#[cfg(not(unix))]
pub(crate) fn is_standard_output(_: &Path) -> bool {
    false
}

/// Removes temporary files left by a process that was killed while writing `path`. Take a
/// [`super::Lock`] first: no other process may be writing the file.
pub fn remove_leftovers(path: &Path) -> Result<()> {
    let path = &follow(path).map_err(Error::io("read", path))?;
    let (Some(name), Some(directory)) = (path.file_name(), path.parent()) else { return Ok(()) };
    let prefix = format!("{}.", name.to_string_lossy());
    // `Path::parent` of a bare file name is the empty path, not the current directory.
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    for entry in fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        let found = entry.file_name().to_string_lossy().into_owned();
        let process = found.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".tmp"));
        if process.is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit())) {
            super::remove(&entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::read;
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
        // A directory at the path makes the rename fail after the temporary file is complete.
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

    #[cfg(unix)]
    mod unix {
        use super::*;
        use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
        use std::process::Command;

        #[test]
        fn the_mode_of_a_file_stays() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("secret");
            fs::write(&path, b"one").unwrap();
            for mode in [0o600, 0o640, 0o755] {
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                write_atomically(&path, b"two").unwrap();
                assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
            }
            // New files have the platform's default permissions.
            let (ours, any) = (directory.path().join("ours"), directory.path().join("any"));
            write_atomically(&ours, b"x").unwrap();
            fs::write(&any, b"x").unwrap();
            let mode = |path| fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&ours), mode(&any));
        }

        #[test]
        fn links_stay_and_lead_to_the_new_content() {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            fs::create_dir(at("elsewhere")).unwrap();
            fs::write(at("elsewhere/file"), b"one").unwrap();
            symlink("elsewhere/file", at("link")).unwrap();
            symlink("link", at("link to link")).unwrap();
            symlink("elsewhere/new", at("dangling")).unwrap();
            write_atomically(&at("link to link"), b"two").unwrap();
            write_atomically(&at("dangling"), b"three").unwrap();
            assert_eq!(read(&at("elsewhere/file")).unwrap(), b"two");
            assert_eq!(read(&at("elsewhere/new")).unwrap(), b"three");
            for link in ["link", "link to link", "dangling"] {
                assert!(fs::symlink_metadata(at(link)).unwrap().is_symlink(), "{link}");
            }
            symlink("circle", at("circle")).unwrap();
            let error = write_atomically(&at("circle"), b"x").unwrap_err();
            assert!(error.to_string().contains("symbolic links"), "{error}");
        }

        #[test]
        fn a_pipe_is_written_to_and_stays() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("pipe");
            assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
            let reader = std::thread::spawn({
                let path = path.clone();
                move || fs::read(path).unwrap()
            });
            write_atomically(&path, b"through the pipe").unwrap();
            assert_eq!(reader.join().unwrap(), b"through the pipe");
            assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo());
            assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        }

        /// Root could replace a device by renaming; other users lack write access to its directory.
        #[test]
        #[expect(clippy::print_stderr, reason = "a test that tests nothing says so")]
        fn a_device_is_written_to_and_stays() {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("null");
            let made = Command::new("mknod").arg(&path).args(["c", "1", "3"]).output();
            if !made.is_ok_and(|made| made.status.success()) {
                eprintln!("only root can make a device: nothing was tested");
                return;
            }
            match OpenOptions::new().write(true).open(&path) {
                Ok(_) => write_atomically(&path, b"into nothing").unwrap(),
                // The file system may be mounted with `nodev`.
                Err(_) => drop(write_atomically(&path, b"into nothing")),
            }
            assert!(fs::symlink_metadata(&path).unwrap().file_type().is_char_device());
        }
    }
}
