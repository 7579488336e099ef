//! The parameters of a model in one array, and the layout of its tensors.

use crate::checkpoint::{Block, Checkpoint, ModelConfig, Tensor, TensorSpec};
use crate::error::{Error, Result};
use crate::reference::bk;
use crate::reference::convolution::Convolution;
use crate::reference::gated;
use crate::reference::layer_norm::LayerNorm;
use crate::reference::linear::Linear;
use crate::reference::moe::Experts;
use crate::reference::real::Real;
use crate::reference::resolvent;
use std::collections::BTreeMap;
use std::ops::Range;

/// Layout of one block's tensors.
#[derive(Clone, Debug)]
pub(crate) enum BlockLayout {
    Resolvent(resolvent::Layout),
    Gated(gated::Layout),
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
                Block::Resolvent => BlockLayout::Resolvent(resolvent::Layout {
                    norm: first_norm,
                    experts: experts(&bk),
                    v_proj,
                    chain,
                    output_proj,
                    scale: range(&format!("{bk}.bk_scale")).start,
                }),
                Block::Gated { .. } => BlockLayout::Gated(gated::Layout {
                    norm: first_norm,
                    in_proj: linear(&format!("{bk}.in_proj")),
                    conv: Convolution {
                        weight: range(&format!("{bk}.conv.weight")),
                        bias: range(&format!("{bk}.conv.bias")),
                    },
                    v_proj,
                    chain,
                    output_proj,
                    ffn: (config.hidden > 0).then(|| gated::Ffn {
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

/// A model and its parameters; `f64` is for checking gradients.
#[derive(Clone, Debug)]
pub struct Model<T: Real = f32> {
    config: ModelConfig,
    pub(crate) layout: Layout,
    pub(crate) parameters: Vec<T>,
}

impl<T: Real> Model<T> {
    /// A model of these dimensions whose parameters are all zero.
    pub fn zeros(config: ModelConfig) -> Result<Self> {
        if let Some(problem) = config.problem() {
            return Err(Error::Config(problem));
        }
        let layout = Layout::new(&config);
        let parameters = vec![T::ZERO; config.parameters()];
        Ok(Self { config, layout, parameters })
    }

    /// The dimensions.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// All parameters: the tensors of [`ModelConfig::tensors`], concatenated.
    pub fn parameters(&self) -> &[T] {
        &self.parameters
    }

    /// All parameters, mutably.
    pub fn parameters_mut(&mut self) -> &mut [T] {
        &mut self.parameters
    }

    /// Range of a tensor in [`Model::parameters`], and in gradients.
    pub fn range(&self, name: &str) -> Option<Range<usize>> {
        self.tensors().find(|(spec, _)| spec.name == name).map(|(_, range)| range)
    }

    /// Every tensor and its range in [`Model::parameters`], in canonical order.
    pub fn tensors(&self) -> impl Iterator<Item = (&TensorSpec, Range<usize>)> {
        self.layout.tensors.iter().map(|(spec, range)| (spec, range.clone()))
    }

    /// The tensor of this name, row-major.
    pub fn tensor(&self, name: &str) -> Option<&[T]> {
        self.range(name).map(|range| &self.parameters[range])
    }

    /// The tensor of this name, mutably.
    pub fn tensor_mut(&mut self, name: &str) -> Option<&mut [T]> {
        self.range(name).map(|range| &mut self.parameters[range])
    }

    /// η of a block's potentials `[K]`.
    pub(crate) fn eta(&self, chain: &ChainLayout) -> Vec<T> {
        let floor = T::of(f64::from(self.config.eta_floor));
        let raise = |&log: &T| {
            let eta = log.exp();
            if eta < floor { floor } else { eta }
        };
        self.parameters[chain.log_eta.clone()].iter().map(raise).collect()
    }

    /// The chain's constants for one block.
    pub(crate) fn core<'a>(&'a self, chain: &ChainLayout, eta: &'a [T]) -> bk::Core<'a, T> {
        bk::Core {
            diagonal: &self.parameters[chain.diagonal.clone()],
            eta,
            beta: T::of(f64::from(self.config.off_diagonal)),
            chain: self.config.chain,
        }
    }

    /// Adds the gradients of log_eta, given those of η: η = max(exp(log_eta), floor), so that at
    /// the floor log_eta has no effect.
    pub(crate) fn eta_backward(
        &self,
        chain: &ChainLayout,
        (eta, d_eta): (&[T], &[T]),
        gradient: &mut [T],
    ) {
        let floor = T::of(f64::from(self.config.eta_floor));
        let d_log_eta = &mut gradient[chain.log_eta.clone()];
        for ((d_log, &eta), &d_eta) in d_log_eta.iter_mut().zip(eta).zip(d_eta) {
            if eta > floor {
                *d_log += d_eta * eta;
            }
        }
    }
}

impl Model<f32> {
    /// The model of a checkpoint.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Self {
        let layout = Layout::new(&checkpoint.config);
        let mut parameters = Vec::with_capacity(checkpoint.config.parameters());
        for (spec, _) in &layout.tensors {
            parameters.extend_from_slice(&checkpoint.tensors[&spec.name].data);
        }
        Self { config: checkpoint.config.clone(), layout, parameters }
    }

    /// The model as a checkpoint; fails for non-finite parameters.
    pub fn to_checkpoint(&self, provenance: BTreeMap<String, String>) -> Result<Checkpoint> {
        let tensors = self
            .tensors()
            .map(|(spec, range)| {
                let data = self.parameters[range].to_vec();
                (spec.name.clone(), Tensor { shape: spec.shape.clone(), data })
            })
            .collect();
        Checkpoint::new(self.config.clone(), tensors, provenance)
    }
}
