//! The pieces that a token is computed in.

/// One bounded piece of a token's forward pass, as [`crate::Session::advance`] does it.
///
/// A token is [`Self::Embedding`]; then for every block [`Self::Normalization`],
/// [`Self::Potentials`], [`Self::Chain`], [`Self::OutputProjection`], [`Self::Gate`] and for each
/// of its experts [`Self::ExpertUp`], [`Self::Hidden`], [`Self::ExpertDown`], [`Self::Mixing`];
/// then [`Self::Normalization`] once more and the output layer, `hidden` rows of it at a time. The
/// longest piece is therefore one matrix: `max(hidden, K, 2K, E) · d` multiply-accumulates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Piece {
    /// Rows of the embedding tables: `[d]`.
    Embedding,
    /// Layer normalization with the quantization of its output: `[d]`.
    Normalization,
    /// The potentials' matrix: `[K, d]`.
    Potentials,
    /// One position of the chain: `K` complex reciprocals.
    Chain,
    /// Quantization of the chain's features and their matrix: `[d, 2K]`.
    OutputProjection,
    /// The gate's matrix (`[E, d]`) and the choice of experts.
    Gate,
    /// The first matrix of an expert: `[hidden, d]`.
    ExpertUp,
    /// ReLU and quantization of an expert's hidden vector: `[hidden]`.
    Hidden,
    /// The second matrix of an expert: `[d, hidden]`.
    ExpertDown,
    /// The expert's share added to the residual: `[d]`.
    Mixing,
    /// At most `hidden` rows of the output layer (`[V, d]`).
    OutputLayer,
}

impl Piece {
    /// Every piece, in the order of a token.
    pub const ALL: [Self; 11] = [
        Self::Embedding,
        Self::Normalization,
        Self::Potentials,
        Self::Chain,
        Self::OutputProjection,
        Self::Gate,
        Self::ExpertUp,
        Self::Hidden,
        Self::ExpertDown,
        Self::Mixing,
        Self::OutputLayer,
    ];

    /// Its name in lower case with underscores.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Normalization => "normalization",
            Self::Potentials => "potentials",
            Self::Chain => "chain",
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
