//! Log of a run in JSON lines.

use crate::error::{Error, Result};
use crate::files;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The JSON-lines log.
pub(crate) struct Log {
    file: std::fs::File,
    path: PathBuf,
}

impl Log {
    /// Opens the log at step `step` and drops later lines, which an interrupted run wrote after its
    /// last save and the resumed run writes again.
    pub(crate) fn open(path: &Path, step: u64) -> Result<Self> {
        let mut kept = String::new();
        // Pipes and devices cannot be rewritten.
        let replaceable = !files::is_special(path);
        if step > 0 && replaceable && path.exists() {
            for line in files::read_text(path)?.lines() {
                let at = serde_json::from_str::<Value>(line).ok();
                if at.and_then(|v| v["step"].as_u64()).is_some_and(|at| at <= step) {
                    kept.push_str(line);
                    kept.push('\n');
                }
            }
        }
        if replaceable {
            files::write_atomically(path, kept.as_bytes())?;
        }
        let file = OpenOptions::new().append(true).open(path).map_err(Error::io("write", path))?;
        Ok(Self { file, path: path.to_path_buf() })
    }

    pub(crate) fn write(&mut self, line: Value) -> Result<()> {
        writeln!(self.file, "{line}").map_err(Error::io("write", &self.path))
    }
}
