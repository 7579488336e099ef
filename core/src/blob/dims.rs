//! Dimensions of a model.

use serde::{Deserialize, Serialize};

use super::TokenClasses;
use crate::error::Error;

/// Which part of the chain a position depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Chain {
    /// The whole window, future positions included (published checkpoints). Scores whole windows.
    Full,
    /// The chain up to the position. Causal: streams with O(1) state.
    Half,
}

/// What the blocks make of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Block {
    /// As published: elements of the resolvent are features, added beside the experts.
    Resolvent,
    /// The gated chain: Im G, the local density of states, decides how fast a memory of the
    /// convolved inputs forgets. Experts, if any, follow with a normalization of their own.
    Gated {
        /// Width C of the memory; a multiple of the number of potentials, each of which gates as
        /// many channels.
        channels: u32,
    },
}

/// Taps of the convolution of a gated chain: its own position and the three before it.
pub const TAPS: usize = 4;

/// The dimensions of a ResNet-BK model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Dimensions {
    /// Number of tokens V.
    pub vocab: u32,
    /// Residual width d.
    pub width: u32,
    /// Number of blocks.
    pub layers: u32,
    /// Experts per block E. In a gated chain a single expert has no gate.
    pub experts: u32,
    /// Experts per token; equal to `experts` for dense gating.
    pub top_k: u32,
    /// Hidden width of an expert; 0 in a gated chain without experts.
    pub hidden: u32,
    /// Potentials per block K.
    pub potentials: u32,
    /// Rows of the position table; 0 if there is none.
    pub positions: u32,
    /// Token classes, from 1 to [`TokenClasses::MOST`].
    pub token_classes: u32,
    /// Chain kind.
    pub chain: Chain,
    /// Kind of block.
    pub block: Block,
}

/// Upper limits of the dimensions, assumed in the accumulator bounds of `docs/numerics.md`: a row
/// of 16,384 inputs with the widest codes stays below 2^31.
pub struct Limits;

impl Limits {
    /// Largest vocabulary: a token fits a `u16`.
    pub const VOCAB: u32 = 1 << 16;
    /// Largest residual width.
    pub const WIDTH: u32 = 4_096;
    /// Largest number of blocks.
    pub const LAYERS: u32 = 64;
    /// Largest number of experts per block.
    pub const EXPERTS: u32 = 64;
    /// Largest hidden width.
    pub const HIDDEN: u32 = 16_384;
    /// Largest number of potentials.
    pub const POTENTIALS: u32 = 2_048;
    /// Longest position table.
    pub const POSITIONS: u32 = 1 << 24;
    /// Widest memory of a gated chain.
    pub const CHANNELS: u32 = 8_192;
}

/// Size computations assume dimensions that [`Dimensions::validate`] accepts; others may overflow.
impl Dimensions {
    /// Checks every dimension against its limit; the error names the first violation.
    pub const fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("vocab", self.vocab, Limits::VOCAB),
            ("width", self.width, Limits::WIDTH),
            ("layers", self.layers, Limits::LAYERS),
            ("experts", self.experts, Limits::EXPERTS),
            ("top_k", self.top_k, self.experts),
            ("potentials", self.potentials, Limits::POTENTIALS),
            ("token_classes", self.token_classes, TokenClasses::MOST),
        ];
        let mut i = 0;
        while i < sizes.len() {
            let (name, value, limit) = sizes[i];
            if value == 0 || value > limit {
                return Err(Error::Dimension { name, value, limit });
            }
            i += 1;
        }
        if self.positions > Limits::POSITIONS {
            let (name, value) = ("positions", self.positions);
            return Err(Error::Dimension { name, value, limit: Limits::POSITIONS });
        }
        // Only a single expert may have no hidden units: nothing would choose among them.
        let optional = matches!(self.block, Block::Gated { .. }) && self.experts == 1;
        if self.hidden > Limits::HIDDEN || self.hidden == 0 && !optional {
            let (name, value) = ("hidden", self.hidden);
            return Err(Error::Dimension { name, value, limit: Limits::HIDDEN });
        }
        self.validate_block()
    }

    const fn validate_block(&self) -> Result<(), Error> {
        let Block::Gated { channels } = self.block else { return Ok(()) };
        if channels == 0 || channels > Limits::CHANNELS {
            let (name, value) = ("channels", channels);
            return Err(Error::Dimension { name, value, limit: Limits::CHANNELS });
        }
        if !channels.is_multiple_of(self.potentials) {
            return Err(Error::Channels { channels, potentials: self.potentials });
        }
        // A memory is causal.
        if matches!(self.chain, Chain::Half) { Ok(()) } else { Err(Error::Header) }
    }

    /// Whether blocks choose among experts: published ones always, gated chains with more than one.
    pub const fn has_gate(&self) -> bool {
        matches!(self.block, Block::Resolvent) || self.experts > 1
    }

    /// Experts of a block that have weights: none in a gated chain without hidden units.
    pub(crate) const fn stored_experts(&self) -> u32 {
        if self.hidden == 0 { 0 } else { self.experts }
    }

    /// Inputs of the potentials' projection: d, or C in a gated chain.
    pub(crate) const fn potential_inputs(&self) -> u32 {
        match self.block {
            Block::Resolvent => self.width,
            Block::Gated { channels } => channels,
        }
    }

    /// Inputs of the output projection: 2K, or C in a gated chain.
    pub(crate) const fn output_inputs(&self) -> u32 {
        match self.block {
            Block::Resolvent => 2 * self.potentials,
            Block::Gated { channels } => channels,
        }
    }
}
