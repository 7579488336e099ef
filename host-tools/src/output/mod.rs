//! Checks outputs before work begins: no command overwrites its inputs, or files that it would not
//! have written itself.

mod kind;

pub use kind::Kind;

use crate::error::{Error, Result};
use crate::files::{self, follow, is_special, is_standard_output, probe};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The files that a command reads and writes. Without `force`, an output must not replace an input
/// or a file of another kind.
///
/// Declare all files before the work begins: first inputs, then outputs.
#[derive(Debug)]
pub struct Plan {
    force: bool,
    inputs: Vec<PathBuf>,
    outputs: Vec<PathBuf>,
}

/// An output path that was found writable and free for this kind of file.
#[derive(Clone, Debug)]
pub struct Output {
    path: PathBuf,
}

impl Plan {
    /// An empty plan; with `force`, any file may be replaced.
    pub fn new(force: bool) -> Self {
        Self { force, inputs: Vec::new(), outputs: Vec::new() }
    }

    /// Whether any file may be replaced.
    pub fn force(&self) -> bool {
        self.force
    }

    /// Declares inputs; missing files are ignored.
    #[must_use]
    pub fn reads(mut self, paths: impl IntoIterator<Item: AsRef<Path>>) -> Self {
        self.inputs.extend(paths.into_iter().map(|path| path.as_ref().to_path_buf()));
        self
    }

    /// Declares an output of this kind, which may replace a file of the same kind.
    ///
    /// # Errors
    ///
    /// [`Error::Overwrite`] if the path leads to an input (by any name, symbolic or hard link), a
    /// file of another kind, or a read-only file; [`Error::Io`] if no file can be written there;
    /// [`Error::Usage`] if two outputs have the same path.
    pub fn writes(&mut self, path: &Path, kind: Kind) -> Result<Output> {
        let output = self.place(path)?;
        if !self.force && output.is_occupied() {
            let found = Kind::of(path).map_err(Error::io("read", path))?;
            if found != Some(kind) {
                let found = found.map_or("something else".into(), |found| found.to_string());
                return Err(refused(path, format!("it is not {kind} but {found}")));
            }
        }
        Ok(output)
    }

    /// Declares an output that must not exist yet; `what` describes an existing one.
    ///
    /// # Errors
    ///
    /// Those of [`Plan::writes`], and [`Error::Overwrite`] if the file exists.
    pub fn creates(&mut self, path: &Path, what: &str) -> Result<Output> {
        let output = self.place(path)?;
        if !self.force && output.is_occupied() {
            return Err(refused(path, format!("it is {what}")));
        }
        Ok(output)
    }

    /// All checks except those of the content.
    fn place(&mut self, path: &Path) -> Result<Output> {
        let output = Output { path: path.to_path_buf() };
        if is_standard_output(path) || is_special(path) {
            return Ok(output);
        }
        let io = |error| Error::io("write", path)(error);
        let target = follow(path).map_err(io)?;
        if target.is_dir() {
            return Err(io(io::ErrorKind::IsADirectory.into()));
        }
        if !self.force && self.inputs.iter().any(|input| same_file(input, path)) {
            return Err(refused(path, "the command reads it".into()));
        }
        let read_only = |found: fs::Metadata| found.permissions().readonly();
        if !self.force && fs::metadata(path).is_ok_and(read_only) {
            return Err(refused(path, "it is read-only".into()));
        }
        probe(path).map_err(io)?;
        // The directory exists: the probe wrote to it.
        let place = absolute(&target).map_err(io)?;
        if self.outputs.contains(&place) {
            return Err(Error::Usage(format!(
                "two outputs of this command would go to {}",
                path.display()
            )));
        }
        self.outputs.push(place);
        Ok(output)
    }
}

impl Output {
    /// The path as given by the user.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the content, by [`files::write_atomically`].
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        files::write_atomically(&self.path, bytes)
    }

    /// Replaces the content by one that is written piece by piece.
    pub fn write_by(
        &self,
        content: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<()> {
        files::write_atomically_by(&self.path, content)
    }

    /// Whether it is a file that can be replaced and read back, not a device or a pipe.
    pub fn is_file(&self) -> bool {
        !is_special(&self.path) && !self.is_standard_output()
    }

    /// Whether a non-empty file exists.
    pub fn is_occupied(&self) -> bool {
        self.is_file() && fs::metadata(&self.path).is_ok_and(|found| found.len() > 0)
    }

    /// Whether it is standard output, where the command's own report goes.
    pub fn is_standard_output(&self) -> bool {
        is_standard_output(&self.path)
    }
}

fn refused(path: &Path, reason: String) -> Error {
    Error::Overwrite { path: path.to_path_buf(), reason }
}

/// Canonical path of a file in an existing directory.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = fs::canonicalize(directory.unwrap_or(Path::new(".")))?;
    Ok(directory.join(path.file_name().unwrap_or_default()))
}

/// Whether two paths lead to the same existing file, by symbolic or hard links.
fn same_file(a: &Path, b: &Path) -> bool {
    let (Ok(a), Ok(b)) = (fs::metadata(a).and(identity(a)), identity(b)) else { return false };
    a == b
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<PathBuf> {
    fs::canonicalize(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with an input, a blob and a text.
    fn place() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("input"), b"read by the command").unwrap();
        let blob = [&resnet_bk_core::blob::MAGIC[..], b" and so on"].concat();
        fs::write(directory.path().join("blob"), blob).unwrap();
        fs::write(directory.path().join("notes"), b"of a user").unwrap();
        fs::write(directory.path().join("empty"), b"").unwrap();
        fs::create_dir(directory.path().join("directory")).unwrap();
        directory
    }

    fn plan(directory: &tempfile::TempDir, force: bool) -> Plan {
        let at = |name: &str| directory.path().join(name);
        Plan::new(force).reads([at("input"), at("absent")])
    }

    #[track_caller]
    fn refuses(directory: &tempfile::TempDir, name: &str, cause: &str) {
        let path = directory.path().join(name);
        let error = plan(directory, false).writes(&path, Kind::Blob).unwrap_err();
        assert!(matches!(error, Error::Overwrite { .. }), "{error:?}");
        assert!(error.to_string().contains(cause), "{error}");
        assert!(error.help().contains("--force"), "{}", error.help());
        plan(directory, true).writes(&path, Kind::Blob).unwrap();
    }

    #[test]
    fn what_is_read_or_of_another_kind_stays() {
        let directory = place();
        let path = |name: &str| directory.path().join(name);
        refuses(&directory, "input", "the command reads it");
        refuses(&directory, "directory/../input", "the command reads it");
        refuses(&directory, "notes", "not a blob but something else");
        for free in ["blob", "empty", "new", "absent"] {
            plan(&directory, false).writes(&path(free), Kind::Blob).unwrap();
        }
        let error = plan(&directory, false).writes(&path("blob"), Kind::Importance).unwrap_err();
        assert!(error.to_string().contains("not an importance file but a blob"), "{error}");
        let error = plan(&directory, false).creates(&path("blob"), "a finished model").unwrap_err();
        assert!(error.to_string().contains("it is a finished model"), "{error}");
        fs::hard_link(path("input"), path("hard")).unwrap();
        refuses(&directory, "hard", "the command reads it");
        let mut read_only = fs::metadata(path("blob")).unwrap().permissions();
        read_only.set_readonly(true);
        fs::set_permissions(path("blob"), read_only).unwrap();
        refuses(&directory, "blob", "read-only");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 6, "a probe was left");
    }

    #[test]
    #[cfg(unix)]
    fn links_lead_to_what_must_stay() {
        let directory = place();
        std::os::unix::fs::symlink("input", directory.path().join("link")).unwrap();
        refuses(&directory, "link", "the command reads it");
        std::os::unix::fs::symlink("notes", directory.path().join("other")).unwrap();
        refuses(&directory, "other", "something else");
    }

    #[test]
    fn what_cannot_be_written_is_found_at_once() {
        let directory = place();
        let path = |name: &str| directory.path().join(name);
        for (name, cause) in [("directory", "directory"), ("nowhere/file", "No such file")] {
            let error = plan(&directory, true).writes(&path(name), Kind::Blob).unwrap_err();
            assert!(matches!(error, Error::Io { action: "write", .. }), "{error:?}");
            assert!(error.to_string().contains(cause), "{error}");
        }
        assert!(plan(&directory, false).writes(Path::new(""), Kind::Blob).is_err());
        assert!(plan(&directory, false).writes(&path("notes/file"), Kind::Blob).is_err());
    }

    #[test]
    fn two_outputs_never_meet() {
        let directory = place();
        let path = |name: &str| directory.path().join(name);
        let mut plan = plan(&directory, true);
        plan.writes(&path("new"), Kind::Blob).unwrap();
        let error = plan.writes(&path("directory/../new"), Kind::Log).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error:?}");
    }
}
