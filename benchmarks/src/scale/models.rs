//! Models of chosen sizes whose weights are distributed like those of trained models.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use resnet_bk_tools::checkpoint::{Block, Chain, Checkpoint, ModelConfig, Tensor, TensorSpec};

/// Kind of model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The published block with full chains, four experts and a table of positions.
    Published,
    /// The gated chain, with a feed-forward network that brings it to as many parameters.
    Gated,
}

/// Names of the kinds.
pub(super) const KINDS: [&str; 2] = ["published", "gated"];

impl Kind {
    /// The kind of this name.
    pub(super) fn of(name: &str) -> Self {
        if name == "gated" { Self::Gated } else { Self::Published }
    }
}

/// A size.
pub(super) struct Size {
    /// Millions of parameters.
    pub(super) name: &'static str,
    vocab: usize,
    width: usize,
    layers: usize,
}

/// The sizes; the largest is that of the published usage example.
pub(super) const SIZES: [Size; 4] = [
    Size { name: "1.4", vocab: 1_400, width: 128, layers: 4 },
    Size { name: "8", vocab: 5_600, width: 256, layers: 5 },
    Size { name: "25", vocab: 14_000, width: 384, layers: 6 },
    Size { name: "81", vocab: 30_000, width: 512, layers: 12 },
];

impl Size {
    /// Dimensions of a model of this size.
    pub(super) fn config(&self, kind: Kind) -> ModelConfig {
        let &Self { vocab, width, layers, .. } = self;
        let published = ModelConfig {
            vocab,
            width,
            layers,
            experts: 4,
            top_k: 2,
            hidden: 2 * width,
            potentials: 1,
            positions: Some(128),
            chain: Chain::Full,
            eta_floor: 1.0,
            off_diagonal: 1.0,
            block: Block::Resolvent,
        };
        match kind {
            Kind::Published => published,
            // 6 d² of weights in a block's chain and 10 d² in its network, like 16 d² of experts.
            Kind::Gated => ModelConfig {
                experts: 1,
                top_k: 1,
                hidden: 5 * width,
                potentials: 16,
                positions: None,
                chain: Chain::Half,
                eta_floor: 1.0 / 256.0,
                block: Block::Gated { channels: 2 * width },
                ..published
            },
        }
    }
}

/// Writes `model.safetensors` to `place`. Every row of a matrix is drawn from a row of a matrix of
/// the same role in a model of `like`, with replacement, and so scaled that its norm is that row's;
/// other parameters are drawn from those of the same role.
pub(super) fn make(
    kind: Kind,
    size: &Size,
    like: &[PathBuf],
    place: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut trained: BTreeMap<String, Vec<Tensor>> = BTreeMap::new();
    for path in like {
        for (name, tensor) in Checkpoint::read(path)?.tensors {
            trained.entry(role(&name)).or_default().push(tensor);
        }
    }
    let config = size.config(kind);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut tensors = BTreeMap::new();
    for spec in config.tensors() {
        let TensorSpec { name, shape } = spec;
        let alike = trained.get(&role(&name)).or_else(|| trained.get("token_embedding.weight"));
        let alike = alike.ok_or("the models to resemble have no embedding")?;
        let mut data = Vec::with_capacity(shape.iter().product());
        let cols = if shape.len() > 1 { shape[shape.len() - 1] } else { 1 };
        for _ in 0..shape.iter().product::<usize>() / cols {
            let tensor = &alike[random.random_range(0..alike.len())];
            let own = if cols > 1 { tensor.shape[tensor.shape.len() - 1] } else { 1 };
            let row = random.random_range(0..tensor.data.len() / own);
            let row = &tensor.data[row * own..][..own];
            let scale = (own as f32 / cols as f32).sqrt();
            data.extend((0..cols).map(|_| row[random.random_range(0..own)] * scale));
        }
        tensors.insert(name, Tensor { shape, data });
    }
    let provenance = BTreeMap::from([("made_by".to_owned(), "resnet-bk-benchmarks scale".into())]);
    Checkpoint::new(config, tensors, provenance)?.write(&place.join("model.safetensors"))?;
    Ok(())
}

/// A tensor's name without the numbers of blocks and experts.
fn role(name: &str) -> String {
    let (mut parts, mut after) = (Vec::new(), "");
    for part in name.split('.') {
        parts.push(if matches!(after, "blocks" | "experts") { "*" } else { part });
        after = part;
    }
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_parameters_that_their_names_say() {
        for size in &SIZES {
            let named: f64 = size.name.parse().unwrap();
            for kind in KINDS.map(Kind::of) {
                let millions = size.config(kind).parameters() as f64 / 1e6;
                assert!(
                    (millions / named - 1.0).abs() < 0.04,
                    "{kind:?} {}: {millions}",
                    size.name
                );
            }
        }
        assert_eq!(SIZES[3].config(Kind::Published).parameters(), 81_283_472);
    }

    #[test]
    fn roles_have_no_numbers() {
        assert_eq!(
            role("blocks.11.bk_layer.moe_ffn.experts.3.0.weight"),
            "blocks.*.bk_layer.moe_ffn.experts.*.0.weight"
        );
        assert_eq!(role("lm_head.bias"), "lm_head.bias");
    }
}
