//! Trained models on disk: those of `benchmarks/blocks`, and gated chains of `resnet-bk train`.

use std::collections::BTreeMap;
use std::path::Path;

use resnet_bk_tools::checkpoint::TOKENIZER_KEY;
use resnet_bk_tools::checkpoint::safetensors::{self, Container};
use resnet_bk_tools::checkpoint::{Block, Chain, Checkpoint, ModelConfig, Tensor};
use resnet_bk_tools::files;
use serde_json::Value;

use super::tensors::{Failure, Tensors};

/// Metadata key of the dimensions of a model trained in `benchmarks/blocks`.
const CONFIG_KEY: &str = "block_config";

/// What a block's mixer is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// The gated chain.
    Gated(ModelConfig),
    /// Mamba with C channels of N states.
    Mamba { channels: usize, states: usize },
    /// Gated recurrent unit.
    Gru,
    /// Causal attention.
    Attention { heads: usize },
}

/// Dimensions of a model.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Dimensions {
    pub(super) kind: Kind,
    pub(super) vocab: usize,
    pub(super) width: usize,
    pub(super) layers: usize,
    /// Of the FFN; 0 for none.
    pub(super) hidden: usize,
}

impl Dimensions {
    /// Name in tables, which also says what belongs together as seeds of one model.
    pub(super) fn label(&self) -> String {
        let (layers, width) = (self.layers, self.width);
        let ffn = if self.hidden > 0 { format!(", FFN {}", self.hidden) } else { String::new() };
        let kind = match &self.kind {
            Kind::Gated(config) => match config.block {
                Block::Gated { channels } => {
                    format!("gated chain, C {channels}, K {}", config.potentials)
                }
                Block::Resolvent => "resolvent".into(),
            },
            Kind::Mamba { channels, states } => format!("Mamba, C {channels}, N {states}"),
            Kind::Gru => "GRU".into(),
            Kind::Attention { heads } => format!("attention, {heads} heads"),
        };
        format!("{kind}{ffn}, {layers} × {width}")
    }
}

/// A trained model.
#[derive(Clone, Debug)]
pub(super) struct Trained {
    pub(super) dims: Dimensions,
    /// Weights, with normalizations folded into the layers that read them.
    pub(super) tensors: Tensors,
    /// Number of trained parameters.
    pub(super) parameters: usize,
    /// What the file says about itself: recipe, seed and so on.
    pub(super) about: BTreeMap<String, String>,
}

impl Trained {
    /// Reads a model and folds its normalizations.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let bytes = files::read(path)?;
        let container = safetensors::from_bytes(&bytes, path)?;
        if container.metadata.contains_key(CONFIG_KEY) {
            return Self::of(container).map_err(|e| format!("{}: {e}", path.display()).into());
        }
        let Checkpoint { config, tensors, provenance } = Checkpoint::from_bytes(&bytes, path)?;
        Self::folded(of_ours(&config), tensors, provenance)
    }

    /// The model of a file of `benchmarks/blocks`.
    pub(super) fn of(container: Container) -> Result<Self, Failure> {
        let Container { tensors, metadata } = container;
        let config = metadata.get(CONFIG_KEY).ok_or("there are no dimensions")?;
        let dims = dimensions(config)?;
        let rename = |(name, tensor)| match dims.kind {
            Kind::Gated(_) => (ours_of(name), tensor),
            _ => (name, tensor),
        };
        let tensors = tensors.into_iter().map(rename).collect();
        Self::folded(dims, tensors, metadata)
    }

    fn folded(
        dims: Dimensions,
        tensors: BTreeMap<String, Tensor>,
        about: BTreeMap<String, String>,
    ) -> Result<Self, Failure> {
        let parameters = tensors.values().map(|tensor| tensor.data.len()).sum();
        let mut trained = Self { dims, tensors: Tensors(tensors), parameters, about };
        trained.fold()?;
        Ok(trained)
    }

    /// The tokenizer's hash.
    pub(super) fn tokenizer(&self) -> Option<&str> {
        self.about.get(TOKENIZER_KEY).map(String::as_str)
    }

    /// Moves gains and biases of normalizations into the matrices that read them, which loses
    /// nothing: Wᵢ · (g ⊙ û + b) = (W ⊙ g) û + W b.
    fn fold(&mut self) -> Result<(), Failure> {
        let names: Vec<String> = self.tensors.0.keys().cloned().collect();
        for (norm, readers) in self.norms() {
            let gain = self.tensors.get(&format!("{norm}.weight"))?.data.clone();
            let shift = self.tensors.get(&format!("{norm}.bias"))?.data.clone();
            let reads = |name: &&String| readers.iter().any(|reader| reader.of(name));
            for weight in names.iter().filter(reads) {
                self.fold_into(weight, &gain, &shift)?;
            }
            self.tensors.0.entry(format!("{norm}.weight")).and_modify(|t| t.data.fill(1.0));
            self.tensors.0.entry(format!("{norm}.bias")).and_modify(|t| t.data.fill(0.0));
        }
        Ok(())
    }

    fn fold_into(&mut self, weight: &str, gain: &[f32], shift: &[f32]) -> Result<(), Failure> {
        let matrix = self.tensors.0.get_mut(weight).ok_or("no such matrix")?;
        let rows = matrix.data.len() / gain.len().max(1);
        if matrix.shape != [rows, gain.len()] {
            return Err(format!("{weight} does not fit its normalization").into());
        }
        let mut added = Vec::with_capacity(rows);
        for row in matrix.data.chunks_exact_mut(gain.len()) {
            added.push(row.iter().zip(shift).map(|(w, s)| w * s).sum::<f32>());
            row.iter_mut().zip(gain).for_each(|(w, g)| *w *= g);
        }
        let bias = weight.replace(".weight", ".bias");
        // Only Mamba's projections have none.
        if matches!(self.dims.kind, Kind::Mamba { .. }) && self.tensors.find(&bias).is_none() {
            let zeros = Tensor { shape: vec![rows], data: vec![0.0; rows] };
            self.tensors.0.insert(bias.clone(), zeros);
        }
        let found = self.tensors.0.get_mut(&bias).filter(|found| found.data.len() == rows);
        let bias = found.ok_or_else(|| format!("{bias} does not have {rows} values"))?;
        bias.data.iter_mut().zip(added).for_each(|(b, a)| *b += a);
        Ok(())
    }

    /// Every normalization and the matrices that read it.
    fn norms(&self) -> Vec<(String, Vec<Reader>)> {
        let ours = matches!(self.dims.kind, Kind::Gated(_));
        let exactly = |name: &str| vec![Reader::Named(name.into())];
        let mut norms = Vec::new();
        for l in 0..self.dims.layers {
            let block = format!("blocks.{l}");
            let first = match self.dims.kind {
                Kind::Gated(_) => format!("{block}.bk_layer.in_proj.weight"),
                Kind::Mamba { .. } => format!("{block}.mixer.in_proj.weight"),
                Kind::Gru => format!("{block}.mixer.input.weight"),
                Kind::Attention { .. } => format!("{block}.mixer.qkv.weight"),
            };
            let norm = if ours { "layer_norm" } else { "norm" };
            norms.push((format!("{block}.{norm}"), exactly(&first)));
            if self.dims.hidden > 0 {
                let experts = format!("{block}.bk_layer.moe_ffn.");
                let readers = match ours {
                    true => vec![Reader::Expert(experts.clone())],
                    false => exactly(&format!("{block}.ffn.up.weight")),
                };
                norms.push((format!("{block}.ffn_norm"), readers));
            }
        }
        let last = if ours { "layer_norm_final" } else { "norm" };
        norms.push((last.into(), exactly("lm_head.weight")));
        norms
    }
}

/// Which matrices read a normalization.
enum Reader {
    /// The one of this name.
    Named(String),
    /// First matrices and the gate of the experts with this prefix.
    Expert(String),
}

impl Reader {
    fn of(&self, name: &str) -> bool {
        match self {
            Self::Named(own) => own == name,
            Self::Expert(prefix) => {
                name.starts_with(prefix)
                    && (name.ends_with(".0.weight") || name.ends_with("gating_network.weight"))
            }
        }
    }
}

/// Dimensions from the metadata of a file.
fn dimensions(config: &str) -> Result<Dimensions, Failure> {
    let config: Value = serde_json::from_str(config)?;
    let number = |name: &str| -> Result<usize, Failure> {
        let found = config[name].as_u64().and_then(|n| usize::try_from(n).ok());
        // Bounds what is allocated for a damaged file.
        let fits = found.filter(|&n| n <= 1 << 20);
        fits.ok_or_else(|| format!("its dimensions have no valid `{name}`").into())
    };
    let positive = |name: &str| match number(name)? {
        0 => Err(Failure::from(format!("`{name}` is 0"))),
        n => Ok(n),
    };
    let (vocab, width, layers) = (positive("vocab")?, positive("width")?, positive("layers")?);
    let hidden = number("hidden")?;
    let kind = match config["kind"].as_str() {
        Some("mamba") => {
            Kind::Mamba { channels: positive("channels")?, states: positive("states")? }
        }
        Some("gru") => Kind::Gru,
        Some("attention") => Kind::Attention { heads: positive("heads")? },
        Some("gated") => Kind::Gated(ModelConfig {
            vocab,
            width,
            layers,
            experts: 1,
            top_k: 1,
            hidden,
            potentials: positive("potentials")?,
            positions: None,
            chain: Chain::Half,
            eta_floor: config["eta_floor"].as_f64().ok_or("there is no `eta_floor`")? as f32,
            off_diagonal: 1.0,
            block: Block::Gated { channels: positive("channels")? },
        }),
        other => return Err(format!("unknown kind of block {other:?}").into()),
    };
    Ok(Dimensions { kind, vocab, width, layers, hidden })
}

/// Dimensions of a checkpoint of ours.
fn of_ours(config: &ModelConfig) -> Dimensions {
    Dimensions {
        kind: Kind::Gated(config.clone()),
        vocab: config.vocab,
        width: config.width,
        layers: config.layers,
        hidden: config.hidden,
    }
}

/// Parts of names in our checkpoints, and in files of `benchmarks/blocks`.
const NAMES: [(&str, &str); 4] = [
    (".layer_norm.", ".norm."),
    (".bk_layer.moe_ffn.experts.0.0", ".ffn.up"),
    (".bk_layer.moe_ffn.experts.0.3", ".ffn.down"),
    (".bk_layer.", ".mixer."),
];

/// Our name of a tensor or layer of a file of `benchmarks/blocks`.
fn ours_of(name: String) -> String {
    match name.strip_prefix("norm.") {
        Some(rest) => format!("layer_norm_final.{rest}"),
        None => NAMES.iter().fold(name, |name, (ours, theirs)| name.replace(theirs, ours)),
    }
}

/// Name of one of our tensors or layers in files of `benchmarks/blocks`.
pub(super) fn theirs_of(name: &str) -> String {
    NAMES.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_our_checkpoints() {
        for (theirs, ours) in [
            ("blocks.3.norm.weight", "blocks.3.layer_norm.weight"),
            ("blocks.3.mixer.in_proj.bias", "blocks.3.bk_layer.in_proj.bias"),
            ("blocks.3.ffn.up.weight", "blocks.3.bk_layer.moe_ffn.experts.0.0.weight"),
            ("blocks.3.ffn_norm.bias", "blocks.3.ffn_norm.bias"),
            ("norm.weight", "layer_norm_final.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(ours_of(theirs.into()), ours);
            if !theirs.starts_with("norm") {
                assert_eq!(theirs_of(ours), theirs);
            }
        }
    }

    #[test]
    fn damaged_dimensions_are_errors() {
        let refused = |config: &str| dimensions(config).unwrap_err().to_string();
        assert!(refused("{").contains("EOF"));
        assert!(refused(r#"{"kind": "gru", "vocab": 8}"#).contains("width"));
        let huge = r#"{"kind": "gru", "vocab": 9e18, "width": 1, "layers": 1, "hidden": 0}"#;
        assert!(refused(huge).contains("vocab"));
        let zero = r#"{"kind": "gru", "vocab": 8, "width": 8, "layers": 0, "hidden": 0}"#;
        assert!(refused(zero).contains("layers"));
        let lstm = r#"{"kind": "lstm", "vocab": 8, "width": 8, "layers": 1, "hidden": 0}"#;
        assert!(refused(lstm).contains("lstm"));
    }
}
