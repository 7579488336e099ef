//! The kernels that serve a blob's matrices, here or on a microcontroller.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use resnet_bk_core::Model;
use resnet_bk_core::blob::ALIGN;
use resnet_bk_core::kernels::{Choice, Core, Reason};
use serde_json::{Value, json};

use crate::error::{Error, Result};

/// Parser of a core's name.
pub(in crate::cli) fn core_parser() -> impl TypedValueParser<Value = Core> {
    PossibleValuesParser::new(Core::ALL.map(Core::name)).try_map(|name| {
        Core::ALL.into_iter().find(|core| core.name() == name).ok_or("there is no such core")
    })
}

/// A blob aligned to 16 bytes, as by `include_blob!`: the alignment of the file's buffer here is
/// not that on the device.
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(super) fn new(blob: &[u8]) -> Self {
        let (len, mut memory) = (blob.len(), vec![0; blob.len() + ALIGN]);
        let start = memory.as_ptr().align_offset(ALIGN);
        memory[start..][..len].copy_from_slice(blob);
        Self { memory, start, len }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }
}

/// The kernel of every matrix.
pub(super) struct Kernels {
    core: Option<Core>,
    choices: Vec<Choice>,
}

impl Kernels {
    /// The kernels of this machine, or of `core` for an [`Aligned`] blob.
    pub(super) fn of(model: &Model<'_>, blob: &[u8], core: Option<Core>) -> Result<Self> {
        let Some(target) = core else {
            return Ok(Self { core, choices: model.kernels().map(|(_, choice)| choice).collect() });
        };
        let aligned = Aligned::new(blob);
        let model = Model::from_bytes(aligned.bytes()).map_err(Error::Blob)?;
        Ok(Self { core, choices: model.kernels_on(target).map(|(_, choice)| choice).collect() })
    }

    /// Choices in the order of tensors.
    pub(super) fn choices(&self) -> &[Choice] {
        &self.choices
    }

    fn target(&self) -> &'static str {
        self.core.map_or("this machine", Core::name)
    }

    fn fast(&self) -> usize {
        self.choices.iter().filter(|choice| choice.fallback.is_none()).count()
    }

    /// Per-tensor entries of `--json`.
    pub(super) fn json(&self) -> Value {
        json!({ "target": self.target(), "fast": self.fast(), "tensors": self.choices.len() })
    }

    /// How many matrices have fast kernels, and why the others do not.
    pub(super) fn summary(&self) -> String {
        let all = self.choices.len();
        let mut text =
            format!("fast ones for {} of {all} tensors on {}", self.fast(), self.target());
        for reason in [Reason::Storage, Reason::Shape, Reason::Alignment] {
            let count = self.choices.iter().filter(|c| c.fallback == Some(reason)).count();
            if count > 0 {
                text += &format!("\n      {count} × {reason}");
            }
        }
        text
    }
}
