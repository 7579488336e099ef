//! Upper bounds on the instructions of one piece of a token (`Session::advance`), for watchdogs and
//! executors, from the shapes of a model and the counts of `cargo xtask bench`.
//!
//! A matrix is charged the highest instructions per multiply-accumulate counted for its storage and
//! kernel on the core, plus a quarter for less favourable vectors. Shapes below the smallest
//! counted one are charged as that: 128 rows of 64 inputs. All other work of a piece is charged per
//! value ([`Costs`]). `cargo xtask bench` fails if a piece of a benchmarked model exceeds its
//! bound, or if its longest one takes less than a third of the bound.

use resnet_bk_core::blob::{Block, Chain, Tensor, TensorId};
use resnet_bk_core::kernels::Core;
use resnet_bk_core::{Model, Piece};
use resnet_bk_schema::Storage;
use serde_json::{Map, Value, json};

use super::kernels::Aligned;
use crate::error::{Error, Result};
use crate::instructions::Counts;

/// A core and its instruction costs, besides those of products.
struct Costs {
    core: Core,
    /// Instructions per value of an embedding: at most 86 counted on the first core, 527 (FP16) on
    /// the second; more for groups of a few inputs.
    embedded: u64,
    /// Instructions per value that is normalized, quantized, added or converted: at most 33 and 99
    /// counted.
    value: u64,
    /// Instructions per potential of the chain: 180 and 907 counted.
    potential: u64,
}

const COSTS: [Costs; 2] = [
    Costs { core: Core::CortexM4F, embedded: 300, value: 50, potential: 300 },
    Costs { core: Core::CortexM0, embedded: 1000, value: 150, potential: 1300 },
];

/// Rows and inputs of the smallest counted shape, the minimum charge of a matrix.
const LEAST: (u64, u64) = (128, 64);
/// Values charged per expert for gating: an exponential and comparisons.
const VALUES_PER_EXPERT: u64 = 24;
/// Values charged per channel of a gated chain: for its convolution the unpacking of four taps,
/// their products, SiLU and two quantizations; for its memory two wide products and SiLU.
const VALUES_PER_CHANNEL: (u64, u64) = (8, 4);
/// Reciprocals per potential whose G is a gate; otherwise one.
const RECIPROCALS_PER_GATE: u64 = 2;
/// Token classes looked up per charged value.
const TOKENS_PER_VALUE: u64 = 4;

/// Bounds on every kind of piece, by core.
pub(super) struct Bounds(Vec<(Core, Vec<(Piece, u64)>)>);

impl Bounds {
    /// Bounds for a blob aligned to 16 bytes; empty for a full-chain model, which has no pieces.
    pub(super) fn of(blob: &[u8]) -> Result<Self> {
        let aligned = Aligned::new(blob);
        let model = Model::from_bytes(aligned.bytes()).map_err(Error::Blob)?;
        if model.dims().chain == Chain::Full {
            return Ok(Self(Vec::new()));
        }
        let of_core = |costs: &Costs| {
            let counts = Counts::of(costs.core)?;
            Ok((costs.core, longest(&model, costs, &counts)))
        };
        Ok(Self(COSTS.iter().map(of_core).collect::<Result<_>>()?))
    }

    /// `pieces` of `--json`: the bound on each kind of piece, by core.
    pub(super) fn json(&self) -> Value {
        let of_core = |(core, bounds): &(Core, Vec<(Piece, u64)>)| {
            let bounds: Map<_, _> = bounds
                .iter()
                .map(|&(piece, bound)| (piece.name().to_owned(), json!(bound)))
                .collect();
            (core.name().to_owned(), Value::Object(bounds))
        };
        Value::Object(self.0.iter().map(of_core).collect())
    }

    /// The longest piece on every core; `None` without pieces.
    pub(super) fn summary(&self) -> Option<String> {
        let of_core = |(core, bounds): &(Core, Vec<(Piece, u64)>)| {
            let (piece, bound) = bounds.iter().max_by_key(|(_, bound)| *bound)?;
            Some(format!("{bound} instructions on {} ({})", core.name(), piece.name()))
        };
        let all: Option<Vec<_>> = self.0.iter().map(of_core).collect();
        all.filter(|all| !all.is_empty()).map(|all| all.join(", "))
    }
}

/// The bound on each kind of piece that the model has, taken over all pieces of that kind.
fn longest(model: &Model<'_>, costs: &Costs, counts: &Counts) -> Vec<(Piece, u64)> {
    let dims = model.dims();
    let kernels: Vec<_> = model.kernels_on(costs.core).collect();
    let matrices = |wanted: fn(TensorId) -> bool, most_rows: u32| {
        let all = kernels.iter().filter(move |(id, _)| wanted(*id));
        let bounds = all.map(|(id, choice)| {
            let matrix = model.tensor(*id);
            let fast = choice.fallback.is_none();
            let Tensor { precision, group, .. } = matrix;
            let per_mac = counts.most_per_mac(Storage { precision, group }, fast);
            matrix_bound(matrix.rows.min(most_rows as usize), matrix.cols, per_mac)
        });
        bounds.max().unwrap_or(0)
    };
    let values = |count: u64| costs.value * count;
    let [width, hidden, potentials] = [dims.width, dims.hidden, dims.potentials].map(u64::from);
    // With several token classes, a row index is found by counting tokens of the class, and a token
    // by searching.
    let classes = if dims.token_classes > 1 { u64::from(dims.vocab) / TOKENS_PER_VALUE } else { 0 };
    let (channels, reciprocals) = match dims.block {
        Block::Resolvent => (0, 1),
        Block::Gated { channels } => (u64::from(channels), RECIPROCALS_PER_GATE),
    };
    let features = if channels == 0 { 2 * potentials } else { channels };
    let bound = |piece| match piece {
        Piece::Embedding => {
            costs.embedded * width * (1 + u64::from(dims.positions != 0)) + values(classes)
        }
        Piece::Normalization | Piece::Mixing => values(width),
        Piece::InputProjection => matrices(|id| matches!(id, TensorId::InProj(_)), u32::MAX),
        Piece::Convolution => values(VALUES_PER_CHANNEL.0 * channels),
        Piece::Potentials => matrices(|id| matches!(id, TensorId::VProj(_)), u32::MAX),
        Piece::Chain => costs.potential * potentials * reciprocals,
        Piece::Memory => values(VALUES_PER_CHANNEL.1 * channels),
        Piece::OutputProjection => {
            matrices(|id| matches!(id, TensorId::OutputProj(_)), u32::MAX)
                + values(features + width)
        }
        Piece::Gate => {
            matrices(|id| matches!(id, TensorId::Gate(_)), u32::MAX)
                + values(VALUES_PER_EXPERT * u64::from(dims.experts))
        }
        Piece::ExpertUp => {
            matrices(|id| matches!(id, TensorId::ExpertUp(..)), u32::MAX) + values(width / 8)
        }
        Piece::Hidden => values(hidden),
        Piece::ExpertDown => matrices(|id| matches!(id, TensorId::ExpertDown(..)), u32::MAX),
        Piece::OutputLayer => {
            let rows = u64::from(dims.width.min(dims.vocab));
            matrices(|id| matches!(id, TensorId::LmHead(_)), dims.width) + values(rows + classes)
        }
        // A piece unknown to this build has no known bound.
        _ => u64::MAX,
    };
    let exists = |piece: &Piece| match piece {
        Piece::InputProjection | Piece::Convolution | Piece::Memory => channels > 0,
        Piece::Gate => dims.has_gate(),
        Piece::ExpertUp | Piece::Hidden | Piece::ExpertDown | Piece::Mixing => dims.hidden > 0,
        _ => true,
    };
    Piece::ALL.into_iter().filter(exists).map(|piece| (piece, bound(piece))).collect()
}

/// Instructions of a matrix.
fn matrix_bound(rows: usize, cols: usize, per_mac: f64) -> u64 {
    let (rows, cols) = ((rows as u64).max(LEAST.0), (cols as u64).max(LEAST.1));
    (1.25 * per_mac * (rows * cols) as f64).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_matrices_are_charged_as_the_smallest_counted() {
        assert_eq!(matrix_bound(5, 3, 2.0), 5 * 128 * 64 / 2);
        assert_eq!(matrix_bound(200, 100, 1.0), 25_000);
    }
}
