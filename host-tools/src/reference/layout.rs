//! Layout of a model's tensors in one array of parameters.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::checkpoint::{Block, ModelConfig, TensorSpec};
use crate::reference::convolution::Convolution;
use crate::reference::layer_norm::LayerNorm;
use crate::reference::linear::Linear;
use crate::reference::moe::Experts;

/// Layout of one block's tensors.
#[derive(Clone, Debug)]
pub(crate) enum BlockLayout {
    Resolvent(Resolvent),
    Gated(Gated),
}

/// Layout of a published block.
#[derive(Clone, Debug)]
pub(crate) struct Resolvent {
    pub(crate) norm: LayerNorm,
    pub(crate) experts: Experts,
    pub(crate) v_proj: Linear,
    pub(crate) chain: ChainLayout,
    pub(crate) output_proj: Linear,
    pub(crate) scale: usize,
}

/// Layout of a gated chain.
#[derive(Clone, Debug)]
pub(crate) struct Gated {
    pub(crate) norm: LayerNorm,
    /// `[2C, d]`: the channels' inputs, then their output gates.
    pub(crate) in_proj: Linear,
    pub(crate) conv: Convolution,
    pub(crate) v_proj: Linear,
    pub(crate) chain: ChainLayout,
    pub(crate) output_proj: Linear,
    pub(crate) ffn: Option<Ffn>,
}

/// The experts of a gated chain and their own normalisation.
#[derive(Clone, Debug)]
pub(crate) struct Ffn {
    pub(crate) norm: LayerNorm,
    pub(crate) experts: Experts,
}

/// Layout of a chain's constants, `[K]` each.
#[derive(Clone, Debug)]
pub(crate) struct ChainLayout {
    pub(crate) diagonal: Range<usize>,
    pub(crate) log_eta: Range<usize>,
}

/// Layout of every tensor in the parameter array.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) embedding: Range<usize>,
    pub(crate) positions: Option<Range<usize>>,
    pub(crate) blocks: Vec<BlockLayout>,
    pub(crate) norm: LayerNorm,
    pub(crate) head: Linear,
    /// Every tensor in canonical order, contiguous.
    pub(crate) tensors: Vec<(TensorSpec, Range<usize>)>,
}

impl Layout {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let mut start = 0;
        let tensors: Vec<(TensorSpec, Range<usize>)> = config
            .tensors()
            .into_iter()
            .map(|spec| {
                let range = start..start + spec.shape.iter().product::<usize>();
                start = range.end;
                (spec, range)
            })
            .collect();
        let by_name: BTreeMap<&str, &(TensorSpec, Range<usize>)> =
            tensors.iter().map(|entry| (entry.0.name.as_str(), entry)).collect();
        let range = |name: &str| by_name[name].1.clone();
        let linear = |name: &str| {
            let (spec, weight) = by_name[format!("{name}.weight").as_str()];
            Linear {
                name: name.into(),
                weight: weight.clone(),
                bias: range(&format!("{name}.bias")),
                outputs: spec.shape[0],
                inputs: spec.shape[1],
            }
        };
        let norm = |name: &str| LayerNorm {
            gain: range(&format!("{name}.weight")),
            bias: range(&format!("{name}.bias")),
        };
        let experts = |bk: &str| Experts {
            gate: config.has_gate().then(|| linear(&format!("{bk}.moe_ffn.gating_network"))),
            layers: (0..config.experts)
                .map(|e| format!("{bk}.moe_ffn.experts.{e}"))
                .map(|expert| (linear(&format!("{expert}.0")), linear(&format!("{expert}.3"))))
                .collect(),
        };
        let block = |l: usize| {
            let bk = format!("blocks.{l}.bk_layer");
            let first_norm = norm(&format!("blocks.{l}.layer_norm"));
            let v_proj = linear(&format!("{bk}.v_proj"));
            let output_proj = linear(&format!("{bk}.output_proj"));
            let chain = ChainLayout {
                diagonal: range(&format!("{bk}.diagonal")),
                log_eta: range(&format!("{bk}.log_eta")),
            };
            match config.block {
                Block::Resolvent => BlockLayout::Resolvent(Resolvent {
                    norm: first_norm,
                    experts: experts(&bk),
                    v_proj,
                    chain,
                    output_proj,
                    scale: range(&format!("{bk}.bk_scale")).start,
                }),
                Block::Gated { .. } => BlockLayout::Gated(Gated {
                    norm: first_norm,
                    in_proj: linear(&format!("{bk}.in_proj")),
                    conv: Convolution {
                        name: format!("{bk}.conv"),
                        weight: range(&format!("{bk}.conv.weight")),
                        bias: range(&format!("{bk}.conv.bias")),
                    },
                    v_proj,
                    chain,
                    output_proj,
                    ffn: (config.hidden > 0).then(|| Ffn {
                        norm: norm(&format!("blocks.{l}.ffn_norm")),
                        experts: experts(&bk),
                    }),
                }),
            }
        };
        Self {
            embedding: range("token_embedding.weight"),
            positions: config.positions.map(|_| range("position_embedding.weight")),
            blocks: (0..config.layers).map(block).collect(),
            norm: norm("layer_norm_final"),
            head: linear("lm_head"),
            tensors,
        }
    }
}
