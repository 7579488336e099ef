//! Importance of layers: the published score, and the measured loss of quantizing each tensor.

mod published;
mod settings;

pub use published::publish;
use settings::short;
pub use settings::{Settings, Text};

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::budget::Sensitivities;
use crate::error::{Error, Result};
use crate::files;
use crate::quantize::division::Division;
use crate::quantize::symmetry::Symmetries;

/// Marks importance files among other JSON.
pub(crate) const MARKER: &str = "resnet-bk importance";

/// The importance file: what `analyze` writes and `quantize` reads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Importance {
    /// Constant marker that identifies the file.
    pub kind: String,
    /// Version of the file's format.
    pub format: u32,
    /// Settings that everything in the file depends on.
    pub settings: Settings,
    /// The published metrics by layer.
    pub published: BTreeMap<String, LayerImportance>,
    /// Equalization and permutation of experts' hidden units; `None` if not tried.
    pub symmetries: Option<Symmetries>,
    /// Token classes and pruning for budgets; `None` if not decided.
    pub division: Option<Division>,
    /// Text that sensitivities were measured on; `None` if not measured.
    pub measured_on: Option<Text>,
    /// KL divergence in nats per token by tensor and storage.
    pub measured: Sensitivities,
}

/// The three published metrics of a layer and the combined score.
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
    /// Format that this version writes. Up to format 4 texts were identified by name and number of
    /// tokens, which does not cover their content.
    pub const FORMAT: u32 = 5;

    /// Published metrics with these settings, without measurements.
    pub fn new(settings: Settings, published: BTreeMap<String, LayerImportance>) -> Self {
        Self {
            kind: MARKER.into(),
            format: Self::FORMAT,
            settings,
            published,
            symmetries: None,
            division: None,
            measured_on: None,
            measured: Sensitivities::new(),
        }
    }

    /// Reads the importance file of the checkpoint with this SHA-256.
    pub fn read(path: &Path, model_sha256: &str) -> Result<Self> {
        let importance = Self::read_any(path)?;
        let found = &importance.settings.model_sha256;
        if found != model_sha256 {
            return Err(Self::bad(
                path,
                format!(
                    "it was computed for another checkpoint ({}, this one is {})",
                    short(found),
                    short(model_sha256)
                ),
            ));
        }
        Ok(importance)
    }

    fn bad(path: &Path, reason: String) -> Error {
        Error::Format { kind: "importance file", path: path.into(), reason }
    }

    /// Reads an importance file of any checkpoint.
    pub fn read_any(path: &Path) -> Result<Self> {
        let bad = |reason| Self::bad(path, reason);
        let value: Value =
            serde_json::from_str(&files::read_text(path)?).map_err(|e| bad(e.to_string()))?;
        match value["format"].as_u64() {
            Some(format) if format == u64::from(Self::FORMAT) => {}
            Some(format) if format < u64::from(Self::FORMAT) => {
                return Err(bad(format!(
                    "it has format {format}, which does not record the text and tokenizer it was \
                     measured with; `analyze --out` writes format {}",
                    Self::FORMAT
                )));
            }
            Some(format) => {
                return Err(bad(format!("it has format {format}, not {}", Self::FORMAT)));
            }
            None => return Err(bad("it has no `format`".into())),
        }
        serde_json::from_value(value).map_err(|e| bad(e.to_string()))
    }

    /// The file's bytes; deterministic.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("a plain struct serialises")
    }

    /// Fails unless this importance, read from `path`, was computed with these settings.
    pub fn require(&self, settings: &Settings, path: &Path) -> Result<()> {
        other_settings(self.settings.differences(settings), path)
    }

    /// Sets the text to measure sensitivities on. Fails if the file at `path`, from which this was
    /// read, contains measurements on another text: they would not be comparable.
    pub fn measure_on(&mut self, text: Text, path: &Path) -> Result<()> {
        let before = self.measured_on.get_or_insert_with(|| text.clone());
        let mut differences = Vec::new();
        text.differ_from(before, "text to measure on", &mut differences);
        other_settings(differences, path)
    }

    /// Merges two tables of the same checkpoint and settings. Entries of different texts are
    /// averaged, weighted by tokens; those of the same text agree. `Err` says why they cannot be
    /// merged.
    pub fn merge(mut self, other: Self) -> Result<Self, String> {
        if self.settings.model_sha256 != other.settings.model_sha256 {
            return Err("they are of different checkpoints".into());
        }
        let differences = self.settings.differences(&other.settings);
        if !differences.is_empty() {
            return Err(format!(
                "their tensors were quantized with different calibration or steps: {}",
                differences.join("; ")
            ));
        }
        let Some(theirs) = other.measured_on else { return Ok(self) };
        let Some(ours) = self.measured_on else {
            return Ok(Self { published: self.published, measured_on: Some(theirs), ..other });
        };
        if (&self.symmetries, &self.division) != (&other.symmetries, &other.division) {
            return Err(
                "they arrange or divide the model differently: measure with one file's arrangement"
                    .into(),
            );
        }
        let same_text = ours == theirs;
        let tokens = (ours.tokens as f64, theirs.tokens as f64);
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
        self.measured_on = Some(if same_text { ours } else { ours.and(theirs) });
        Ok(self)
    }

    /// Published score of a layer.
    pub fn score(&self, layer: &str) -> Option<f64> {
        self.published.get(layer).map(|layer| layer.score)
    }
}

fn other_settings(differences: Vec<String>, path: &Path) -> Result<()> {
    match differences[..] {
        [] => Ok(()),
        _ => Err(Error::OtherSettings { path: path.to_path_buf(), differences }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::text::Tokens;
    use resnet_bk_schema::Steps;
    use resnet_bk_schema::Storage;

    fn settings() -> Settings {
        Settings {
            model_sha256: "abc".into(),
            tokenizer_sha256: Some("012".into()),
            text: text("train", 9),
            window: 128,
            seed: 1,
            steps: Steps::ALL,
        }
    }

    fn text(name: &str, tokens: usize) -> Text {
        Text::of(&Tokens { name: name.into(), tokens: vec![1; tokens], bytes: None, parts: None })
    }

    fn table(text: Text, costs: &[(&str, Storage, f64)]) -> Importance {
        let mut importance = Importance::new(settings(), BTreeMap::new());
        importance.symmetries = Some(Symmetries::new());
        importance.measured_on = Some(text);
        for &(tensor, storage, cost) in costs {
            importance.measured.entry(tensor.into()).or_default().insert(storage, cost);
        }
        importance
    }

    #[test]
    fn tables_are_joined_by_tokens() {
        let costs = [("v", Storage::INT4, 1.0), ("v", Storage::INT8, 0.5)];
        let one = table(text("a", 100), &costs);
        let costs = [("v", Storage::INT4, 3.0), ("w", Storage::INT4, 7.0)];
        let two = table(text("b", 300), &costs);
        let both = one.clone().merge(two).unwrap();
        let on = both.measured_on.unwrap();
        assert_eq!((on.name.as_str(), on.tokens), ("a and b", 400));
        assert_eq!(both.measured["v"][&Storage::INT4], 2.5);
        assert_eq!(both.measured["v"][&Storage::INT8], 0.5);
        assert_eq!(both.measured["w"][&Storage::INT4], 7.0);
        // Merging the same text counts it once.
        assert_eq!(one.clone().merge(one.clone()).unwrap(), one);
        // A file without measurements takes the other's.
        let empty = Importance::new(settings(), BTreeMap::new());
        assert_eq!(empty.clone().merge(one.clone()).unwrap(), one);
        assert_eq!(one.clone().merge(empty).unwrap(), one);
    }

    #[test]
    fn tables_that_do_not_belong_together_are_refused() {
        let one = table(text("a", 1), &[("v", Storage::INT4, 1.0)]);
        let with = |settings| Importance { settings, ..one.clone() };
        let other = with(Settings { model_sha256: "def".into(), ..settings() });
        assert!(one.clone().merge(other).unwrap_err().contains("different checkpoints"));
        let other = with(Settings { steps: Steps::NONE, ..settings() });
        assert!(one.clone().merge(other).unwrap_err().contains("steps"));
        let other = Importance { symmetries: None, ..one.clone() };
        assert!(one.merge(other).unwrap_err().contains("arrange"));
    }

    #[test]
    fn a_table_is_extended_on_its_own_text_only() {
        let path = Path::new("table.json");
        let mut one = table(text("a", 9), &[("v", Storage::INT4, 1.0)]);
        one.measure_on(text("a", 9), path).unwrap();
        let other = Text { sha256: "def".into(), ..text("a", 9) };
        let error = one.measure_on(other, path).unwrap_err();
        assert!(error.to_string().contains("text to measure on"), "{error}");
        let mut empty = Importance::new(settings(), BTreeMap::new());
        empty.measure_on(text("b", 9), path).unwrap();
        assert_eq!(empty.measured_on, Some(text("b", 9)));
    }

    #[test]
    fn files_of_other_formats_are_refused_with_the_reason() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("table.json");
        let said = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Importance::read(&path, "abc").unwrap_err().to_string()
        };
        let written = String::from_utf8(table(text("a", 1), &[]).to_bytes()).unwrap();
        let changed = |from: &str, to: &str| {
            assert!(written.contains(from), "{written}");
            written.replacen(from, to, 1)
        };
        assert!(said(&changed("\"format\": 5", "\"format\": 4")).contains("format 4"));
        assert!(said(&changed("\"format\": 5", "\"format\": 6")).contains("format 6, not 5"));
        assert!(said(&changed("\"seed\"", "\"sead\"")).contains("sead"));
        assert!(said(&changed("\"abc\"", "\"abcdef\"")).contains("another checkpoint"));
        assert!(said("{}").contains("no `format`"));
        assert!(said("{").contains("EOF"));
        std::fs::write(&path, &written).unwrap();
        assert_eq!(Importance::read(&path, "abc").unwrap().to_bytes(), written.as_bytes());
    }
}
