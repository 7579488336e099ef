//! What a file holds, and what becomes of it.

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;

/// A tensor that is part of the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mapped {
    /// Name in the file: keys of dictionaries and its own, joined by dots.
    pub name: String,
    /// Shape, as it is stored.
    pub shape: Vec<usize>,
    /// Type of the elements: F32, BF16 and so on.
    pub dtype: &'static str,
    /// The file that has it.
    pub file: String,
    /// Name in the model, or what is made of a buffer.
    pub becomes: String,
}

/// Why a tensor is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is elsewhere in the file than the model.
    Beside,
    /// It belongs to another model in the same file.
    Other,
    /// It is in one of the model's own modules, which compute without it.
    Unknown,
    /// The model is refused.
    Refused,
    /// It counts steps and has no effect.
    Counter,
}

impl Reason {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Beside => "beside the model",
            Self::Other => "of another model in the file",
            Self::Unknown => "in the model, but unknown to it",
            Self::Refused => "the model is refused",
            Self::Counter => "a counter without effect",
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A tensor that is not part of the model.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ignored {
    /// Name in the file.
    pub name: String,
    /// Shape, if the file tells it.
    pub shape: Option<Vec<usize>>,
    /// Type of the elements, if it can be read.
    pub dtype: Option<&'static str>,
    /// Why it is not used.
    pub reason: Reason,
}

/// A tensor of the model that the file does not hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Added {
    /// Name in the model.
    pub name: String,
    /// What it is made of.
    pub from: String,
}

/// What a file holds, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Survey {
    /// The files with tensors.
    pub files: Vec<String>,
    /// The models in the file, as `--state` takes them.
    pub states: Vec<String>,
    /// The one that is imported.
    pub state: String,
    /// Tensors of the model.
    pub mapped: Vec<Mapped>,
    /// Tensors of the model that are added.
    pub added: Vec<Added>,
    /// All other tensors.
    pub ignored: Vec<Ignored>,
    /// Where dimensions that no tensor tells come from: a file, the flags, or `assumed`.
    pub origins: BTreeMap<&'static str, String>,
}
