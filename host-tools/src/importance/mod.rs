//! Which layers matter: the published score, and what quantizing each tensor costs when measured.

mod published;

pub use published::publish;

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::budget::Sensitivities;
use crate::error::{Error, Result};
use crate::eval::text::Tokens;
use crate::files;

/// The importance file: what `analyze` writes and `quantize` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Importance {
    /// Version of the file's format.
    pub format: u32,
    /// SHA-256 of the checkpoint file, in hexadecimal.
    pub model_sha256: String,
    /// Text it was computed on.
    pub corpus: String,
    /// Tokens of that text.
    pub tokens: usize,
    /// Seed.
    pub seed: u64,
    /// The published metrics by layer.
    pub published: BTreeMap<String, LayerImportance>,
    /// Text that sensitivities were measured on; empty where none were.
    pub measured_on: String,
    /// Tokens of that text.
    pub measured_tokens: usize,
    /// KL rise in nats per token by tensor and storage.
    pub measured: Sensitivities,
}

/// The three published metrics of a layer and the score that joins them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerImportance {
    /// Mean magnitude of the weight's gradient.
    pub gradient: f64,
    /// Variance of the layer's outputs.
    pub variance: f64,
    /// Mean magnitude of the weight.
    pub magnitude: f64,
    /// 0.5 · z(gradient) + 0.3 · z(variance) + 0.2 · z(magnitude).
    pub score: f64,
}

impl Importance {
    /// The format this version writes.
    pub const FORMAT: u32 = 2;

    /// What was computed on a text, before anything is measured.
    pub fn new(
        model_sha256: String,
        text: &Tokens,
        seed: u64,
        published: BTreeMap<String, LayerImportance>,
    ) -> Self {
        Self {
            format: Self::FORMAT,
            model_sha256,
            corpus: text.name.clone(),
            tokens: text.tokens.len(),
            seed,
            published,
            measured_on: String::new(),
            measured_tokens: 0,
            measured: Sensitivities::new(),
        }
    }

    /// Reads the importance file of the checkpoint with this hash.
    pub fn read(path: &Path, model_sha256: &str) -> Result<Self> {
        let bad = |reason| Error::Format { kind: "importance file", path: path.into(), reason };
        let importance: Self =
            serde_json::from_str(&files::read_text(path)?).map_err(|e| bad(e.to_string()))?;
        if importance.format != Self::FORMAT {
            return Err(bad(format!("it has format {}, not {}", importance.format, Self::FORMAT)));
        }
        if importance.model_sha256 != model_sha256 {
            return Err(bad(format!(
                "it was computed for another checkpoint ({}…, this one is {}…)",
                importance.model_sha256.get(..12).unwrap_or(""),
                &model_sha256[..12]
            )));
        }
        Ok(importance)
    }

    /// Writes the file, wholly or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("a plain struct serialises");
        files::write_atomically(path, text.as_bytes())
    }

    /// Whether sensitivities of the two were, or will be, measured alike.
    pub fn same_measurement(&self, other: &Self) -> bool {
        let key = |i: &Self| {
            (i.measured_on.clone(), i.measured_tokens, i.corpus.clone(), i.tokens, i.seed)
        };
        key(self) == key(other)
    }

    /// Published score of a layer.
    pub fn score(&self, layer: &str) -> Option<f64> {
        self.published.get(layer).map(|layer| layer.score)
    }
}
