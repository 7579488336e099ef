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
use crate::quantize::Methods;
use crate::quantize::division::Division;
use crate::quantize::symmetry::Symmetries;

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
    /// How tensors were quantized for what follows.
    pub methods: Methods,
    /// Experts that round better in other units or another order; absent where none were tried.
    pub symmetries: Option<Symmetries>,
    /// How budgets divide the model; absent where that was not decided.
    pub division: Option<Division>,
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
    pub const FORMAT: u32 = 4;

    /// What was computed on a text, before anything is measured.
    pub fn new(
        model_sha256: String,
        text: &Tokens,
        seed: u64,
        methods: Methods,
        published: BTreeMap<String, LayerImportance>,
    ) -> Self {
        Self {
            format: Self::FORMAT,
            model_sha256,
            corpus: text.name.clone(),
            tokens: text.tokens.len(),
            seed,
            published,
            methods,
            symmetries: None,
            division: None,
            measured_on: String::new(),
            measured_tokens: 0,
            measured: Sensitivities::new(),
        }
    }

    /// Reads the importance file of the checkpoint with this hash.
    pub fn read(path: &Path, model_sha256: &str) -> Result<Self> {
        let importance = Self::read_any(path)?;
        if importance.model_sha256 != model_sha256 {
            return Err(Self::bad(
                path,
                format!(
                    "it was computed for another checkpoint ({}…, this one is {}…)",
                    importance.model_sha256.get(..12).unwrap_or(""),
                    &model_sha256[..12]
                ),
            ));
        }
        Ok(importance)
    }

    fn bad(path: &Path, reason: String) -> Error {
        Error::Format { kind: "importance file", path: path.into(), reason }
    }

    /// Reads an importance file, whatever its checkpoint.
    pub fn read_any(path: &Path) -> Result<Self> {
        let bad = |reason| Self::bad(path, reason);
        let importance: Self =
            serde_json::from_str(&files::read_text(path)?).map_err(|e| bad(e.to_string()))?;
        if importance.format != Self::FORMAT {
            return Err(bad(format!("it has format {}, not {}", importance.format, Self::FORMAT)));
        }
        Ok(importance)
    }

    /// Writes the file, wholly or not at all.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("a plain struct serialises");
        files::write_atomically(path, text.as_bytes())
    }

    /// Says what sensitivities will be measured on.
    pub fn measure_on(&mut self, text: &Tokens) {
        self.measured_on.clone_from(&text.name);
        self.measured_tokens = text.tokens.len();
    }

    /// Takes what tensors cost and which experts are rearranged from another file of the same
    /// checkpoint, unless that was measured on another text or with other settings.
    pub fn resume(&mut self, other: Self) {
        let on = |i: &Self| (i.measured_on.clone(), i.measured_tokens);
        if self.same_settings(&other) && on(self) == on(&other) {
            self.symmetries = other.symmetries;
            self.division = other.division;
            self.measured = other.measured;
        }
    }

    /// Whether two files quantize alike: the same calibration and the same methods.
    pub fn same_settings(&self, other: &Self) -> bool {
        let key = |i: &Self| (i.corpus.clone(), i.tokens, i.seed, i.methods);
        key(self) == key(other)
    }

    /// Joins tables of the same checkpoint and settings. What both measured on different texts is
    /// averaged by tokens; on the same text it is the same. `Err` says why they cannot be joined.
    pub fn merge(mut self, other: Self) -> Result<Self, String> {
        if self.model_sha256 != other.model_sha256 {
            return Err("they are of different checkpoints".into());
        }
        if !self.same_settings(&other) {
            return Err("their tensors were quantized with different calibration or steps".into());
        }
        let measured = |i: &Self| !i.measured.is_empty();
        let arranged = |i: &Self| (i.symmetries.clone(), i.division.clone());
        if measured(&self) && measured(&other) && arranged(&self) != arranged(&other) {
            return Err(
                "they arrange or divide the model differently: measure with one file's arrangement"
                    .into(),
            );
        }
        if !measured(&self) {
            (self.measured_on, self.measured_tokens) = (other.measured_on, other.measured_tokens);
            (self.symmetries, self.division) = (other.symmetries, other.division);
            self.measured = other.measured;
            return Ok(self);
        }
        let same_text = (&self.measured_on, self.measured_tokens)
            == (&other.measured_on, other.measured_tokens);
        let tokens = (self.measured_tokens as f64, other.measured_tokens as f64);
        for (tensor, costs) in other.measured {
            let known = self.measured.entry(tensor).or_default();
            for (storage, cost) in costs {
                let mean =
                    |known: f64| (known * tokens.0 + cost * tokens.1) / (tokens.0 + tokens.1);
                known
                    .entry(storage)
                    .and_modify(|k| *k = if same_text { *k } else { mean(*k) })
                    .or_insert(cost);
            }
        }
        if !same_text && !other.measured_on.is_empty() {
            self.measured_on = format!("{} and {}", self.measured_on, other.measured_on);
            self.measured_tokens += other.measured_tokens;
        }
        Ok(self)
    }

    /// Published score of a layer.
    pub fn score(&self, layer: &str) -> Option<f64> {
        self.published.get(layer).map(|layer| layer.score)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::encode::Storage;

    fn table(text: &str, tokens: usize, costs: &[(&str, Storage, f64)]) -> Importance {
        let corpus = Tokens { name: "train".into(), tokens: vec![1; 9], parts: None };
        let mut importance =
            Importance::new("abc".into(), &corpus, 1, Methods::default(), BTreeMap::new());
        importance.symmetries = Some(Symmetries::new());
        importance.measured_on = text.into();
        importance.measured_tokens = tokens;
        for &(tensor, storage, cost) in costs {
            importance.measured.entry(tensor.into()).or_default().insert(storage, cost);
        }
        importance
    }

    #[test]
    fn tables_are_joined_by_tokens() {
        let one = table("a", 100, &[("v", Storage::INT4, 1.0), ("v", Storage::INT8, 0.5)]);
        let two = table("b", 300, &[("v", Storage::INT4, 3.0), ("w", Storage::INT4, 7.0)]);
        let both = one.clone().merge(two).unwrap();
        assert_eq!((both.measured_on.as_str(), both.measured_tokens), ("a and b", 400));
        assert_eq!(both.measured["v"][&Storage::INT4], 2.5);
        assert_eq!(both.measured["v"][&Storage::INT8], 0.5);
        assert_eq!(both.measured["w"][&Storage::INT4], 7.0);
        // The same text twice counts once.
        assert_eq!(one.clone().merge(one.clone()).unwrap(), one);
    }

    #[test]
    fn tables_that_do_not_belong_together_are_refused() {
        let one = table("a", 1, &[("v", Storage::INT4, 1.0)]);
        let other = Importance { model_sha256: "def".into(), ..one.clone() };
        assert!(one.clone().merge(other).unwrap_err().contains("different checkpoints"));
        let other = Importance { methods: Methods::NONE, ..one.clone() };
        assert!(one.clone().merge(other).unwrap_err().contains("steps"));
        let other = Importance { symmetries: None, ..one.clone() };
        assert!(one.merge(other).unwrap_err().contains("arrange"));
    }
}
