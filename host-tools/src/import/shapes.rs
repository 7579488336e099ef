//! What the shapes of tensors tell: the kind of model and its dimensions.

use super::dimensions::Dimensions;
use super::element::Element;
use crate::checkpoint::Block;
use std::collections::BTreeMap;

/// Shape and type of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<'a> {
    pub(super) extents: &'a [usize],
    pub(super) element: Element,
}

/// Shapes of tensors by name; `None` where the file does not tell.
pub(super) type Shapes<'a> = BTreeMap<&'a str, Option<Shape<'a>>>;

/// Indices of blocks and experts, and numbers of experts, beyond this are damage: all of their
/// names will be listed.
const LARGEST_INDEX: usize = 127;

/// How a model keeps the constants of its chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constants {
    /// As published: buffers, the same for every position.
    Buffers,
    /// Trained, as `diagonal` and `log_eta`.
    Trained,
}

impl Constants {
    pub(super) fn of(shapes: &Shapes<'_>) -> Self {
        let is_trained = |name: &&str| name.ends_with(".bk_layer.log_eta") || is_gated(name);
        if shapes.keys().any(is_trained) { Self::Trained } else { Self::Buffers }
    }
}

fn is_gated(name: &str) -> bool {
    name.contains(".bk_layer.in_proj.") || name.contains(".bk_layer.conv.")
}

/// Dimensions by majority of the tensors, so that one misshapen tensor is reported itself instead
/// of making all others look wrong. Those that no tensor tells are `None`.
pub(super) fn dimensions(shapes: &Shapes<'_>) -> Dimensions {
    let is_gated = shapes.keys().any(|name| is_gated(name));
    let mut votes = Votes::default();
    for (name, shape) in shapes {
        let extent = |axis: usize| shape.and_then(|shape| shape.extents.get(axis).copied());
        let parts: Vec<&str> = name.split('.').collect();
        match parts[..] {
            ["token_embedding", "weight"] | ["lm_head", "weight"] => {
                votes.add("vocab", extent(0));
                votes.add("width", extent(1));
            }
            ["lm_head", "bias"] => votes.add("vocab", extent(0)),
            ["position_embedding", "weight"] => {
                votes.add("positions", extent(0));
                votes.add("width", extent(1));
            }
            ["layer_norm_final", _] | ["blocks", _, "layer_norm" | "ffn_norm", _] => {
                votes.add("width", extent(0));
            }
            ["blocks", _, "bk_layer", "h0_diag_base"] => votes.add("positions", extent(1)),
            ["blocks", _, "bk_layer", "v_proj", _]
            | ["blocks", _, "bk_layer", "diagonal" | "log_eta"] => {
                votes.add("potentials", extent(0));
            }
            ["blocks", _, "bk_layer", "in_proj", _] => {
                votes.add("channels", extent(0).map(|rows| rows / 2));
            }
            ["blocks", _, "bk_layer", "conv", "weight"] => votes.add("channels", extent(1)),
            ["blocks", _, "bk_layer", "conv", "bias"] => votes.add("channels", extent(0)),
            ["blocks", _, "bk_layer", "moe_ffn", "gating_network", _] => {
                votes.add("experts", extent(0).filter(|&experts| experts <= LARGEST_INDEX));
            }
            ["blocks", _, "bk_layer", "moe_ffn", "experts", _, "0", _] => {
                votes.add("hidden", extent(0));
            }
            _ => {}
        }
    }
    let indices = |of: &str| {
        let index = |name: &&str| {
            let digits = name.split_once(of)?.1.split('.').next()?;
            digits.parse().ok().filter(|&index: &usize| index <= LARGEST_INDEX)
        };
        shapes.keys().filter_map(index).max().map(|index| index + 1)
    };
    let hidden = votes.winner("hidden");
    let experts = votes.winner("experts").or_else(|| indices(".experts."));
    let gated = Block::Gated { channels: votes.winner("channels").unwrap_or(0) };
    let has_table = shapes.contains_key("position_embedding.weight");
    let positions = votes.winner("positions");
    Dimensions {
        vocab: votes.winner("vocab"),
        width: votes.winner("width"),
        layers: indices("blocks."),
        experts: experts.or(is_gated.then_some(1)),
        hidden: hidden.or(is_gated.then_some(0)),
        potentials: votes.winner("potentials"),
        positions: match Constants::of(shapes) {
            // Published models always have a table.
            Constants::Buffers => positions.map(Some),
            Constants::Trained if has_table => positions.map(Some),
            Constants::Trained => Some(None),
        },
        block: Some(if is_gated { gated } else { Block::Resolvent }),
        ..Dimensions::default()
    }
}

#[derive(Default)]
struct Votes(BTreeMap<&'static str, BTreeMap<usize, usize>>);

impl Votes {
    fn add(&mut self, dimension: &'static str, extent: Option<usize>) {
        if let Some(extent) = extent {
            *self.0.entry(dimension).or_default().entry(extent).or_default() += 1;
        }
    }

    fn winner(&self, dimension: &str) -> Option<usize> {
        let extents = self.0.get(dimension)?;
        extents.iter().max_by_key(|(_, votes)| **votes).map(|(extent, _)| *extent)
    }
}
