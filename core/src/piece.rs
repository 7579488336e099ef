//! The pieces of a token's forward pass.

/// One bounded piece of a token's forward pass, as [`crate::Session::advance`] computes it.
///
/// A token is [`Self::Embedding`]; then for every block [`Self::Normalization`],
/// [`Self::Potentials`], [`Self::Chain`], [`Self::OutputProjection`], [`Self::Gate`] and for each
/// selected expert [`Self::ExpertUp`], [`Self::Hidden`], [`Self::ExpertDown`], [`Self::Mixing`];
/// then a final [`Self::Normalization`] and the output layer in chunks.
///
/// A gated chain is [`Self::Normalization`], [`Self::InputProjection`], [`Self::Convolution`],
/// [`Self::Potentials`], [`Self::Chain`], [`Self::Memory`], [`Self::OutputProjection`]; if it has
/// experts another [`Self::Normalization`], then [`Self::Gate`] if there are several, and as above.
///
/// No piece exceeds one matrix: `max(hidden, 2K, 2C, E) · d` multiply-accumulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Piece {
    /// Embedding lookup: `[d]`.
    Embedding,
    /// Layer normalization fused with quantization: `[d]`.
    Normalization,
    /// Projection to the inputs and output gates of a gated chain: `[2C, d]`.
    InputProjection,
    /// Convolution of a gated chain's inputs and their quantization: `[C, 4]`.
    Convolution,
    /// Projection to the potentials: `[K, d]`, or `[K, C]`.
    Potentials,
    /// One position of the chain: `K` complex reciprocals, and in a gated chain `K` gates.
    Chain,
    /// The memory of a gated chain and its output gates: `[C]`.
    Memory,
    /// Quantization of the chain's features, or of what was read from the memory, and its
    /// projection: `[d, 2K]`, or `[d, C]`.
    OutputProjection,
    /// Gate logits (`[E, d]`) and expert selection.
    Gate,
    /// The first matrix of an expert: `[hidden, d]`.
    ExpertUp,
    /// ReLU and quantization of an expert's hidden vector: `[hidden]`.
    Hidden,
    /// The second matrix of an expert: `[d, hidden]`.
    ExpertDown,
    /// Weighted addition of the expert's output to the residual: `[d]`.
    Mixing,
    /// At most `d` rows of the output layer (`[V, d]`).
    OutputLayer,
}

impl Piece {
    /// Every piece, in the order of a token.
    pub const ALL: [Self; 14] = [
        Self::Embedding,
        Self::Normalization,
        Self::InputProjection,
        Self::Convolution,
        Self::Potentials,
        Self::Chain,
        Self::Memory,
        Self::OutputProjection,
        Self::Gate,
        Self::ExpertUp,
        Self::Hidden,
        Self::ExpertDown,
        Self::Mixing,
        Self::OutputLayer,
    ];

    /// The name in snake case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Normalization => "normalization",
            Self::InputProjection => "input_projection",
            Self::Convolution => "convolution",
            Self::Potentials => "potentials",
            Self::Chain => "chain",
            Self::Memory => "memory",
            Self::OutputProjection => "output_projection",
            Self::Gate => "gate",
            Self::ExpertUp => "expert_up",
            Self::Hidden => "hidden",
            Self::ExpertDown => "expert_down",
            Self::Mixing => "mixing",
            Self::OutputLayer => "output_layer",
        }
    }
}
