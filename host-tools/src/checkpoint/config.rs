//! Model dimensions: everything that the tensors of a checkpoint do not tell by themselves.

use serde::{Deserialize, Serialize};

/// Which part of the window a position sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Chain {
    /// Position t sees the whole window, its future included, as published. Such a model can be
    /// scored and compared, but its next-token loss is not a language-model loss.
    Full,
    /// Position t sees the chain cut after t: causal, and streams with one complex number of state
    /// per potential.
    Half,
}

/// What the blocks make of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Block {
    /// As published: the elements of the resolvent are features, added beside the experts.
    #[default]
    Resolvent,
    /// The gated chain: the local density of states, Im G, decides how fast a memory of the
    /// convolved inputs forgets. Experts, if any, follow with a normalisation of their own.
    Gated {
        /// Width C of the memory; a multiple of the number of potentials, each of which gates as
        /// many channels.
        channels: usize,
    },
}

impl Block {
    /// Whether this is the published block.
    pub fn is_published(&self) -> bool {
        *self == Self::Resolvent
    }
}

/// Taps of the convolution before the memory of a gated chain.
pub const TAPS: usize = resnet_bk_core::blob::TAPS;

/// Dimensions of a ResNet-BK language model, named as in the published code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Number of tokens V.
    pub vocab: usize,
    /// Residual width d.
    pub width: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Experts per block E. In a gated chain a single expert has no gating network.
    pub experts: usize,
    /// Experts that each token is routed to; all of them (`experts`) means dense gating.
    pub top_k: usize,
    /// Hidden width of an expert (2d in the published models); 0 in a gated chain without experts.
    pub hidden: usize,
    /// Potentials per block K (1 in the published models).
    pub potentials: usize,
    /// Length of the position table; `None` for a model without one, which streams indefinitely.
    pub positions: Option<usize>,
    /// Chain kind.
    pub chain: Chain,
    /// Lower bound of η = Im z: η = max(exp(log_eta), eta_floor).
    pub eta_floor: f32,
    /// Product β of the two off-diagonals of the chain (1 in the published models).
    pub off_diagonal: f32,
    /// Kind of block.
    #[serde(default, skip_serializing_if = "Block::is_published")]
    pub block: Block,
}

/// Name and shape of a checkpoint tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the published layout, such as `blocks.0.bk_layer.v_proj.weight`.
    pub name: String,
    /// Shape, row-major; a linear weight is `[out, in]`, a scalar is `[]`.
    pub shape: Vec<usize>,
}

impl ModelConfig {
    /// Every trained tensor of a model of these dimensions, in canonical order.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let (d, k) = (self.width, self.potentials);
        let mut specs = Vec::new();
        let mut push =
            |name: String, shape: &[usize]| specs.push(TensorSpec { name, shape: shape.to_vec() });
        push("token_embedding.weight".into(), &[self.vocab, d]);
        if let Some(positions) = self.positions {
            push("position_embedding.weight".into(), &[positions, d]);
        }
        for l in 0..self.layers {
            let block = format!("blocks.{l}");
            let bk = format!("{block}.bk_layer");
            push(format!("{block}.layer_norm.weight"), &[d]);
            push(format!("{block}.layer_norm.bias"), &[d]);
            match self.block {
                Block::Resolvent => {
                    self.push_experts(&bk, &mut push);
                    push(format!("{bk}.v_proj.weight"), &[k, d]);
                    push(format!("{bk}.v_proj.bias"), &[k]);
                    push(format!("{bk}.diagonal"), &[k]);
                    push(format!("{bk}.log_eta"), &[k]);
                    push(format!("{bk}.output_proj.weight"), &[d, 2 * k]);
                    push(format!("{bk}.output_proj.bias"), &[d]);
                    push(format!("{bk}.bk_scale"), &[]);
                }
                Block::Gated { channels: c } => {
                    push(format!("{bk}.in_proj.weight"), &[2 * c, d]);
                    push(format!("{bk}.in_proj.bias"), &[2 * c]);
                    push(format!("{bk}.conv.weight"), &[TAPS, c]);
                    push(format!("{bk}.conv.bias"), &[c]);
                    push(format!("{bk}.v_proj.weight"), &[k, c]);
                    push(format!("{bk}.v_proj.bias"), &[k]);
                    push(format!("{bk}.diagonal"), &[k]);
                    push(format!("{bk}.log_eta"), &[k]);
                    push(format!("{bk}.output_proj.weight"), &[d, c]);
                    push(format!("{bk}.output_proj.bias"), &[d]);
                    if self.hidden > 0 {
                        push(format!("{block}.ffn_norm.weight"), &[d]);
                        push(format!("{block}.ffn_norm.bias"), &[d]);
                        self.push_experts(&bk, &mut push);
                    }
                }
            }
        }
        push("layer_norm_final.weight".into(), &[d]);
        push("layer_norm_final.bias".into(), &[d]);
        push("lm_head.weight".into(), &[self.vocab, d]);
        push("lm_head.bias".into(), &[self.vocab]);
        specs
    }

    /// The tensors of a block's gating network and experts.
    fn push_experts(&self, bk: &str, push: &mut impl FnMut(String, &[usize])) {
        let d = self.width;
        if self.has_gate() {
            push(format!("{bk}.moe_ffn.gating_network.weight"), &[self.experts, d]);
            push(format!("{bk}.moe_ffn.gating_network.bias"), &[self.experts]);
        }
        for e in 0..self.stored_experts() {
            let expert = format!("{bk}.moe_ffn.experts.{e}");
            push(format!("{expert}.0.weight"), &[self.hidden, d]);
            push(format!("{expert}.0.bias"), &[self.hidden]);
            push(format!("{expert}.3.weight"), &[d, self.hidden]);
            push(format!("{expert}.3.bias"), &[d]);
        }
    }

    /// Whether blocks have a gating network: published ones always, gated chains with more than one
    /// expert.
    pub fn has_gate(&self) -> bool {
        self.block.is_published() || self.experts > 1
    }

    /// Experts of a block that have weights: none in a gated chain without hidden units.
    pub fn stored_experts(&self) -> usize {
        if self.hidden > 0 { self.experts } else { 0 }
    }

    /// Number of trained parameters.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|t| t.shape.iter().product::<usize>()).sum()
    }

    /// Multiply-accumulates per token, including the output layer; of a gated chain also those of
    /// convolution and memory.
    pub fn macs_per_token(&self) -> u64 {
        let (d, k) = (self.width as u64, self.potentials as u64);
        let gate = if self.has_gate() { self.experts as u64 * d } else { 0 };
        let experts = gate + self.top_k as u64 * 2 * d * self.hidden as u64;
        let block = match self.block {
            Block::Resolvent => k * d + d * 2 * k + experts,
            Block::Gated { channels } => {
                let (c, taps) = (channels as u64, TAPS as u64);
                3 * c * d + taps * c + k * c + 2 * c + if self.hidden > 0 { experts } else { 0 }
            }
        };
        self.layers as u64 * block + self.vocab as u64 * d
    }

    /// The first problem with these dimensions, if any.
    pub fn problem(&self) -> Option<String> {
        let sizes = [
            ("vocab", self.vocab, u32::MAX as usize),
            ("width", self.width, 4_096),
            ("layers", self.layers, 64),
            ("experts", self.experts, 64),
            ("hidden", self.hidden, 16_384),
            ("potentials", self.potentials, 2_048),
            ("positions", self.positions.unwrap_or(1), 1 << 24),
        ];
        // Gated chains can do without experts.
        let optional = |name: &str| name == "hidden" && !self.block.is_published();
        for (name, value, limit) in sizes {
            let least = usize::from(!optional(name));
            if value < least || value > limit {
                return Some(format!("{name} is {value}; it must be between {least} and {limit}"));
            }
        }
        if let Block::Gated { channels } = self.block {
            if channels == 0 || channels > 8_192 || !channels.is_multiple_of(self.potentials) {
                return Some(format!(
                    "channels is {channels}; it must be a multiple of the number of potentials, {}, \
                     and at most 8192",
                    self.potentials
                ));
            }
            if self.hidden == 0 && self.experts > 1 {
                return Some(format!("{} experts without hidden units", self.experts));
            }
            if self.chain == Chain::Full {
                return Some("a gated chain is causal: chain must be half".into());
            }
        }
        if self.top_k == 0 || self.top_k > self.experts {
            return Some(format!(
                "top_k is {}; it must be between 1 and the number of experts, {}",
                self.top_k, self.experts
            ));
        }
        if !(self.eta_floor > 0.0 && self.eta_floor.is_finite()) {
            return Some(format!("eta_floor is {}; it must be positive", self.eta_floor));
        }
        if !(self.off_diagonal >= 0.0 && self.off_diagonal.is_finite()) {
            return Some(format!("off_diagonal is {}; it must not be negative", self.off_diagonal));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_size_has_the_published_parameter_count() {
        let config = ModelConfig {
            vocab: 1000,
            width: 128,
            layers: 4,
            experts: 4,
            top_k: 2,
            hidden: 256,
            potentials: 1,
            positions: Some(64),
            chain: Chain::Full,
            eta_floor: 1.0,
            off_diagonal: 1.0,
            block: Block::Resolvent,
        };
        // The published model does not train diagonal and η, two parameters per layer here.
        assert_eq!(config.parameters() - 2 * config.layers, 1_325_312);
        assert_eq!(config.problem(), None);
        let core = crate::tensors::dimensions(&config);
        assert_eq!(config.macs_per_token(), core.macs_per_token());
    }

    fn gated() -> ModelConfig {
        ModelConfig {
            vocab: 1024,
            width: 128,
            layers: 11,
            experts: 1,
            top_k: 1,
            hidden: 0,
            potentials: 16,
            positions: None,
            chain: Chain::Half,
            eta_floor: 0.01,
            off_diagonal: 1.0,
            block: Block::Gated { channels: 256 },
        }
    }

    #[test]
    fn gated_chains_are_counted_and_their_limits_named() {
        // in_proj 66,048, conv 1,280, v_proj 2,056, chain 16, output_proj 32,896, norm 256.
        let one = |layers| ModelConfig { layers, potentials: 8, ..gated() }.parameters();
        assert_eq!(one(2) - one(1), 102_552);
        assert_eq!(gated().problem(), None);
        let refused = |config: ModelConfig| config.problem().unwrap();
        assert!(refused(ModelConfig { potentials: 24, ..gated() }).contains("multiple"));
        assert!(refused(ModelConfig { experts: 2, ..gated() }).contains("hidden"));
        assert!(refused(ModelConfig { chain: Chain::Full, ..gated() }).contains("causal"));
        let published = ModelConfig { block: Block::Resolvent, ..gated() };
        assert!(refused(published).contains("hidden is 0"));
        for config in [gated(), ModelConfig { hidden: 32, experts: 2, ..gated() }] {
            let core = crate::tensors::dimensions(&config);
            assert_eq!(core.validate(), Ok(()));
            assert_eq!(config.macs_per_token(), core.macs_per_token());
        }
    }

    #[test]
    fn published_blocks_are_written_as_before() {
        let published = ModelConfig { block: Block::Resolvent, hidden: 8, ..gated() };
        assert!(!serde_json::to_string(&published).unwrap().contains("block"));
        for config in [published, gated()] {
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<ModelConfig>(&json).unwrap(), config);
        }
    }
}
