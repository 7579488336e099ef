//! Bytes of a blob by part.

use resnet_bk_core::Model;
use resnet_bk_core::blob::TensorId;

/// A part of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Token and position embeddings.
    Embeddings,
    /// The first matrices of experts.
    ExpertsUp,
    /// The second matrices of experts.
    ExpertsDown,
    /// Projections into and out of the BK-core, and the convolution of a gated chain.
    BkCore,
    /// Gating networks.
    Gates,
    /// The output layer.
    Head,
    /// Header, chains, tokenizer, padding.
    Rest,
}

impl Part {
    /// All parts.
    pub const ALL: [Self; 7] = [
        Self::Embeddings,
        Self::ExpertsUp,
        Self::ExpertsDown,
        Self::BkCore,
        Self::Gates,
        Self::Head,
        Self::Rest,
    ];

    /// Name for legends.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embeddings => "embeddings",
            Self::ExpertsUp => "experts, up",
            Self::ExpertsDown => "experts, down",
            Self::BkCore => "BK-core projections",
            Self::Gates => "gates",
            Self::Head => "output layer",
            Self::Rest => "header, chains, tokenizer",
        }
    }

    const fn of(id: TensorId) -> Self {
        match id {
            TensorId::TokenEmbedding(_) | TensorId::PositionEmbedding => Self::Embeddings,
            TensorId::ExpertUp(..) => Self::ExpertsUp,
            TensorId::ExpertDown(..) => Self::ExpertsDown,
            TensorId::InProj(_)
            | TensorId::Convolution(_)
            | TensorId::VProj(_)
            | TensorId::OutputProj(_) => Self::BkCore,
            TensorId::Gate(_) => Self::Gates,
            TensorId::LmHead(_) => Self::Head,
        }
    }
}

/// Bytes of every part of a blob of `len` bytes.
pub fn bytes_by_part(model: &Model<'_>, len: usize) -> Vec<(Part, usize)> {
    let mut parts: Vec<(Part, usize)> = Part::ALL.map(|part| (part, 0)).into();
    let mut rest = len;
    for id in model.dims().tensors() {
        let bytes = model.tensor(id).layout().len();
        rest -= bytes;
        parts[Part::of(id) as usize].1 += bytes;
    }
    parts[Part::Rest as usize].1 = rest;
    parts
}
