//! Measurements for a target, kept beside the output while a run lasts: an interrupted one resumes.

use std::path::Path;

use crate::cli::common::Loaded;
use crate::error::Result;
use crate::files;
use crate::importance::{Importance, Settings};
use crate::output::{Kind, Output, Plan};

/// The file `OUT.importance`.
#[derive(Clone, Debug)]
pub(in crate::cli) struct KeptMeasurements {
    output: Output,
    /// Whether a file of other settings is replaced.
    force: bool,
}

impl KeptMeasurements {
    /// The file beside `out`; none beside a device or a pipe.
    pub(in crate::cli) fn beside(out: &Output, plan: &mut Plan) -> Result<Option<Self>> {
        if !out.is_file() {
            return Ok(None);
        }
        let path = files::beside(out.path(), "importance");
        let output = plan.writes(&path, Kind::Importance)?;
        Ok(Some(Self { output, force: plan.force() }))
    }

    pub(super) fn path(&self) -> &Path {
        self.output.path()
    }

    /// What an interrupted run of the same settings measured, if there was one.
    pub(super) fn read(&self, loaded: &Loaded, settings: &Settings) -> Result<Option<Importance>> {
        let before = loaded.importance_before(&self.output, self.force)?;
        match before.map(|before| before.require(settings, self.path()).map(|()| before)) {
            Some(Err(_)) if self.force => Ok(None),
            found => found.transpose(),
        }
    }

    pub(super) fn write(&self, importance: &Importance) -> Result<()> {
        self.output.write(&importance.to_bytes())
    }

    /// Removes the file: the result is written.
    pub(in crate::cli) fn remove(&self) -> Result<()> {
        files::remove(self.path())
    }
}
