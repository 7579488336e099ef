//! A trained model on disk: configuration, FP32 weights and provenance.

pub mod config;
#[cfg(test)]
mod documented;
pub mod safetensors;
mod tensor;

pub use config::{Block, Chain, ModelConfig, TAPS, TensorSpec};
pub use tensor::Tensor;

use crate::error::{Error, Result};
use crate::files::{self, Content};
use safetensors::Container;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

/// Metadata key of the dimensions.
pub(crate) const CONFIG_KEY: &str = "resnet_bk_config";
/// Metadata key that only our checkpoints have.
pub(crate) const FORMAT_KEY: &str = "resnet_bk_format";
/// Provenance key of imported checkpoints: the name of the original file.
pub(crate) const IMPORTED_KEY: &str = "imported_from";
const FORMAT: &str = "1";
/// Replaces a bias of −∞: exceeds any dot product, but is far from overflow.
const MASK: f32 = -1e30;

/// Provenance key for the [`crate::tokenizer::Tokenizer::sha256`] of the tokenizer that the model
/// was trained with. Imported checkpoints lack it.
pub const TOKENIZER_KEY: &str = "tokenizer_sha256";
/// Metadata key of the number of tokens that the weights were trained on.
pub const TRAINING_TOKENS_KEY: &str = "training_tokens";

/// An FP32 model with its provenance. [`Checkpoint::new`] and [`Checkpoint::read`] guarantee that
/// `tensors` match `config` in names and shapes, and are finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The dimensions.
    pub config: ModelConfig,
    /// Weights by the names in [`ModelConfig::tensors`].
    pub tensors: BTreeMap<String, Tensor>,
    /// Origin of the weights: command, seed, tokens, hash of the tokenizer and so on.
    pub provenance: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Tokens that the weights were trained on, if recorded.
    pub fn training_tokens(&self) -> Option<u64> {
        self.provenance.get(TRAINING_TOKENS_KEY)?.parse().ok()
    }

    /// Validates and creates a checkpoint. Before a softmax, a bias of −∞, which masks an output,
    /// is replaced by a finite one with the same effect.
    pub fn new(
        config: ModelConfig,
        mut tensors: BTreeMap<String, Tensor>,
        provenance: BTreeMap<String, String>,
    ) -> Result<Self> {
        if let Some(problem) = config.problem() {
            return Err(Error::Config(problem));
        }
        check_shapes(&config, &tensors)?;
        let softmax = |name: &str| name == "lm_head.bias" || name.ends_with("gating_network.bias");
        for (_, tensor) in tensors.iter_mut().filter(|(name, _)| softmax(name)) {
            let masks = tensor.data.iter_mut().filter(|bias| **bias == f32::NEG_INFINITY);
            masks.for_each(|bias| *bias = MASK);
        }
        for (name, tensor) in &tensors {
            if let Some(index) = tensor.data.iter().position(|w| !w.is_finite()) {
                let value = tensor.data[index];
                return Err(Error::NotFinite { tensor: name.clone(), index, value });
            }
        }
        Ok(Self { config, tensors, provenance })
    }

    /// The weights of a tensor of the configuration.
    pub(crate) fn data_mut(&mut self, name: &str) -> &mut Vec<f32> {
        &mut self.tensors.get_mut(name).expect("a checkpoint holds every tensor").data
    }

    /// Reads and checks a checkpoint that [`Checkpoint::write`] wrote.
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_bytes(&Content::of(path)?, path)
    }

    /// Reads and checks the bytes of a checkpoint; `path` is for messages.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let Container { tensors, mut metadata } = safetensors::from_bytes(bytes, path)?;
        let bad =
            |reason: String| Error::Format { kind: "checkpoint", path: path.to_path_buf(), reason };
        match metadata.remove(FORMAT_KEY).as_deref() {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(bad(format!(
                    "it has checkpoint format {other}; this version reads format {FORMAT}"
                )));
            }
            None => {
                return Err(bad(format!(
                    "its metadata has no `{FORMAT_KEY}`, so it was not written by this tool; \
                     checkpoints of other programs must be imported first"
                )));
            }
        }
        let config = metadata
            .remove(CONFIG_KEY)
            .ok_or_else(|| bad(format!("its metadata has no `{CONFIG_KEY}`")))?;
        let config = serde_json::from_str(&config)
            .map_err(|e| bad(format!("its `{CONFIG_KEY}` cannot be parsed: {e}")))?;
        Self::new(config, tensors, metadata)
    }

    /// The bytes of the file; deterministic.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes).expect("a vector takes everything");
        bytes
    }

    /// Writes the file atomically.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_atomically_by(path, |out| self.write_to(out))
    }

    /// Writes the bytes of the file, without a copy of the weights in memory.
    pub fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut metadata = self.provenance.clone();
        let config = serde_json::to_string(&self.config).expect("a plain struct serialises");
        metadata.insert(CONFIG_KEY.into(), config);
        metadata.insert(FORMAT_KEY.into(), FORMAT.into());
        let tensors = self.tensors.iter();
        let tensors = tensors.map(|(name, t)| (name.as_str(), &t.shape[..], &t.data[..]));
        safetensors::write(tensors, &metadata, out)
    }
}

/// Every missing, misshapen and unexpected tensor, by name.
fn check_shapes(config: &ModelConfig, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let specs = config.tensors();
    let mut problems = Vec::new();
    for TensorSpec { name, shape } in &specs {
        match tensors.get(name) {
            None => problems.push(format!("`{name}` {shape:?} is missing")),
            Some(t) if t.shape != *shape => {
                problems.push(format!("`{name}` has shape {:?}, expected {shape:?}", t.shape));
            }
            Some(t) if t.data.len() != shape.iter().product::<usize>() => {
                problems.push(format!("`{name}` {shape:?} holds {} weights", t.data.len()));
            }
            Some(_) => {}
        }
    }
    for (name, tensor) in tensors {
        if !specs.iter().any(|s| s.name == *name) {
            problems.push(format!("`{name}` {:?} does not belong to this model", tensor.shape));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Tensors(problems)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let config = ModelConfig {
            vocab: 5,
            width: 3,
            layers: 1,
            experts: 2,
            top_k: 1,
            hidden: 4,
            potentials: 2,
            positions: None,
            chain: Chain::Half,
            eta_floor: 0.1,
            off_diagonal: 1.0,
            block: Block::Resolvent,
        };
        let tensor = |spec: TensorSpec| {
            let n = spec.shape.iter().product::<usize>();
            let data = (0..n).map(|i| i as f32 * 0.1).collect();
            (spec.name, Tensor { shape: spec.shape, data })
        };
        let tensors = config.tensors().into_iter().map(tensor).collect();
        let provenance = BTreeMap::from([("seed".into(), "1".into())]);
        Checkpoint::new(config, tensors, provenance).unwrap()
    }

    fn read(checkpoint: &Checkpoint) -> Result<Checkpoint> {
        Checkpoint::from_bytes(&checkpoint.to_bytes(), Path::new("model"))
    }

    #[test]
    fn comes_back_and_always_has_the_same_bytes() {
        let written = checkpoint();
        assert_eq!(read(&written).unwrap(), written);
        assert_eq!(read(&written).unwrap().to_bytes(), written.to_bytes());
    }

    #[test]
    fn names_every_tensor_that_does_not_fit() {
        let mut damaged = checkpoint();
        damaged.tensors.remove("lm_head.bias");
        damaged.tensors.remove("layer_norm_final.bias");
        let misshapen = Tensor { shape: vec![3, 5], data: vec![0.0; 15] };
        damaged.tensors.insert("lm_head.weight".into(), misshapen);
        damaged.tensors.insert("z".into(), Tensor { shape: vec![], data: vec![1.0] });
        let message = read(&damaged).unwrap_err().to_string();
        for part in [
            "`lm_head.bias` [5] is missing",
            "`layer_norm_final.bias` [3] is missing",
            "`lm_head.weight` has shape [3, 5], expected [5, 3]",
            "`z` [] does not belong to this model",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn refuses_weights_that_are_not_numbers() {
        let mut damaged = checkpoint();
        damaged.tensors.get_mut("lm_head.weight").unwrap().data[7] = f32::NAN;
        let message = read(&damaged).unwrap_err().to_string();
        assert!(message.contains("`lm_head.weight` holds NaN at index 7"), "{message}");
    }

    #[test]
    fn refuses_other_formats_and_foreign_files() {
        let text = |from: &str, to: &str| {
            let bytes = checkpoint().to_bytes();
            let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
            let mut changed = bytes.clone();
            changed[at..at + from.len()].copy_from_slice(to.as_bytes());
            Checkpoint::from_bytes(&changed, Path::new("model")).unwrap_err().to_string()
        };
        let newer = text("\"resnet_bk_format\":\"1\"", "\"resnet_bk_format\":\"9\"");
        assert!(newer.contains("checkpoint format 9"), "{newer}");
        let foreign = text("resnet_bk_format", "something_else_1");
        assert!(foreign.contains("imported first"), "{foreign}");
        let confused = text("\\\"width\\\"", "\\\"depth\\\"");
        assert!(confused.contains("resnet_bk_config"), "{confused}");
    }
}
