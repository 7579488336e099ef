//! The weight matrices of a model: their names, canonical order and shapes.

use super::{Block, Dimensions, TAPS};

/// One weight matrix of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TensorId {
    /// Embedding of a token class (class), one row per token: `[V, d]` for a single class.
    TokenEmbedding(u32),
    /// `[positions, d]`; absent if `positions` is 0.
    PositionEmbedding,
    /// `[2C, d]`: inputs of a gated chain's channels, then their output gates.
    InProj(u32),
    /// `[C, 4]`: the taps of a gated chain's convolution, the oldest position first.
    Convolution(u32),
    /// `[K, d]`, in a gated chain `[K, C]`: the potentials of a block.
    VProj(u32),
    /// `[d, 2K]`: from [Re G, Im G] back to the residual, `bk_scale` folded in. `[d, C]` in a gated
    /// chain: from its memory.
    OutputProj(u32),
    /// `[E, d]`: gate logits.
    Gate(u32),
    /// `[hidden, d]`: first matrix of an expert (block, expert). It may have fewer hidden units.
    ExpertUp(u32, u32),
    /// `[d, hidden]`: second matrix of an expert (block, expert).
    ExpertDown(u32, u32),
    /// Output layer of a token class (class), one row per token: `[V, d]` for a single class.
    LmHead(u32),
}

impl Dimensions {
    /// Number of weight matrices.
    pub fn tensor_count(&self) -> usize {
        let tables = 2 * self.token_classes + (self.positions != 0) as u32;
        (tables + self.layers * self.tensors_per_layer()) as usize
    }

    fn tensors_per_layer(&self) -> u32 {
        self.before_experts() + 2 * self.stored_experts()
    }

    /// Matrices of a block that are only in gated chains, and come first.
    fn gated_only(&self) -> u32 {
        if matches!(self.block, Block::Gated { .. }) { 2 } else { 0 }
    }

    /// Matrices of a block before its experts.
    fn before_experts(&self) -> u32 {
        self.gated_only() + 2 + self.has_gate() as u32
    }

    /// Index of a matrix in the canonical order: token embedding, position embedding if any, then
    /// per block in_proj and convolution of a gated chain, v_proj, output_proj, gate if any and
    /// each expert's up and down, then the output layer. [`Dimensions::contains`] must hold.
    pub fn index(&self, id: TensorId) -> usize {
        let first = self.token_classes + (self.positions != 0) as u32;
        let block = |l: u32| first + l * self.tensors_per_layer();
        let index = match id {
            TensorId::TokenEmbedding(class) => class,
            TensorId::PositionEmbedding => self.token_classes,
            TensorId::InProj(l) => block(l),
            TensorId::Convolution(l) => block(l) + 1,
            TensorId::VProj(l) => block(l) + self.gated_only(),
            TensorId::OutputProj(l) => block(l) + self.gated_only() + 1,
            TensorId::Gate(l) => block(l) + self.gated_only() + 2,
            TensorId::ExpertUp(l, e) => block(l) + self.before_experts() + 2 * e,
            TensorId::ExpertDown(l, e) => block(l) + self.before_experts() + 2 * e + 1,
            TensorId::LmHead(class) => block(self.layers) + class,
        };
        index as usize
    }

    /// Whether a model of these dimensions has the matrix.
    pub fn contains(&self, id: TensorId) -> bool {
        match id {
            TensorId::TokenEmbedding(class) | TensorId::LmHead(class) => class < self.token_classes,
            TensorId::PositionEmbedding => self.positions != 0,
            TensorId::InProj(l) | TensorId::Convolution(l) => {
                l < self.layers && self.gated_only() != 0
            }
            TensorId::VProj(l) | TensorId::OutputProj(l) => l < self.layers,
            TensorId::Gate(l) => l < self.layers && self.has_gate(),
            TensorId::ExpertUp(l, e) | TensorId::ExpertDown(l, e) => {
                l < self.layers && e < self.stored_experts()
            }
        }
    }

    /// Every matrix in canonical order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorId> + use<> {
        let dims = *self;
        let position = (dims.positions != 0).then_some(TensorId::PositionEmbedding);
        let blocks = (0..dims.layers).flat_map(move |l| {
            let gated = [TensorId::InProj(l), TensorId::Convolution(l)];
            let gated = gated.into_iter().take(dims.gated_only() as usize);
            let bk = [TensorId::VProj(l), TensorId::OutputProj(l)];
            let gate = dims.has_gate().then_some(TensorId::Gate(l));
            let experts = (0..dims.stored_experts())
                .flat_map(move |e| [TensorId::ExpertUp(l, e), TensorId::ExpertDown(l, e)]);
            gated.chain(bk).chain(gate).chain(experts)
        });
        (0..dims.token_classes)
            .map(TensorId::TokenEmbedding)
            .chain(position)
            .chain(blocks)
            .chain((0..dims.token_classes).map(TensorId::LmHead))
    }

    /// Shape `[rows, cols]` of a matrix; linear layers are `[out, in]`. For experts, and for token
    /// tables of several classes, it is the largest allowed shape: see [`Dimensions::admits`].
    /// [`Dimensions::contains`] must hold.
    pub fn shape(&self, id: TensorId) -> (u32, u32) {
        let channels = match self.block {
            Block::Resolvent => 0,
            Block::Gated { channels } => channels,
        };
        match id {
            TensorId::TokenEmbedding(_) | TensorId::LmHead(_) => (self.vocab, self.width),
            TensorId::PositionEmbedding => (self.positions, self.width),
            TensorId::InProj(_) => (2 * channels, self.width),
            TensorId::Convolution(_) => (channels, TAPS as u32),
            TensorId::VProj(_) => (self.potentials, self.potential_inputs()),
            TensorId::OutputProj(_) => (self.width, self.output_inputs()),
            TensorId::Gate(_) => (self.experts, self.width),
            TensorId::ExpertUp(..) => (self.hidden, self.width),
            TensorId::ExpertDown(..) => (self.width, self.hidden),
        }
    }

    /// Whether a matrix may have this shape: a token class has a subset of the rows, an expert may
    /// have fewer hidden units.
    pub fn admits(&self, id: TensorId, (rows, cols): (u32, u32)) -> bool {
        let (most_rows, most_cols) = self.shape(id);
        match id {
            TensorId::TokenEmbedding(_) | TensorId::LmHead(_) if self.token_classes > 1 => {
                (1..most_rows).contains(&rows) && cols == most_cols
            }
            TensorId::ExpertUp(..) => (1..=most_rows).contains(&rows) && cols == most_cols,
            TensorId::ExpertDown(..) => rows == most_rows && (1..=most_cols).contains(&cols),
            _ => (rows, cols) == (most_rows, most_cols),
        }
    }

    /// Multiply-accumulates per token, including the output layer: matrix-vector products, and in a
    /// gated chain its convolution and memory.
    pub fn macs_per_token(&self) -> u64 {
        let macs = |id| {
            let (rows, cols) = self.shape(id);
            rows as u64 * cols as u64
        };
        let mut block = macs(TensorId::VProj(0)) + macs(TensorId::OutputProj(0));
        if let Block::Gated { channels } = self.block {
            let convolution = macs(TensorId::Convolution(0));
            block += macs(TensorId::InProj(0)) + convolution + 2 * channels as u64;
        }
        if self.hidden > 0 {
            if self.has_gate() {
                block += macs(TensorId::Gate(0));
            }
            let expert = macs(TensorId::ExpertUp(0, 0)) + macs(TensorId::ExpertDown(0, 0));
            block += self.top_k as u64 * expert;
        }
        self.layers as u64 * block + macs(TensorId::LmHead(0))
    }
}

impl TensorId {
    /// Whether the matrix is a lookup table, which has no biases, rather than a linear layer.
    pub fn is_embedding(self) -> bool {
        matches!(self, Self::TokenEmbedding(_) | Self::PositionEmbedding)
    }

    /// Largest activation code of the input vectors: 255 after a ReLU (unsigned codes), otherwise
    /// 127 (signed codes).
    pub fn max_code(self) -> u32 {
        match self {
            Self::ExpertDown(..) => 255,
            _ => 127,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Chain;
    use super::*;

    #[test]
    fn index_follows_the_canonical_order() {
        let gated = Block::Gated { channels: 6 };
        let kinds = [(Block::Resolvent, 4, 16), (gated, 4, 16), (gated, 1, 16), (gated, 1, 0)];
        let tables = [(0, 1), (16, 1), (0, 3), (16, 4)];
        for ((block, experts, hidden), (positions, token_classes)) in
            kinds.into_iter().flat_map(|kind| tables.map(|tables| (kind, tables)))
        {
            let dims = Dimensions {
                vocab: 10,
                width: 8,
                layers: 3,
                experts,
                top_k: 1,
                hidden,
                potentials: 2,
                positions,
                token_classes,
                chain: Chain::Half,
                block,
            };
            assert_eq!(dims.validate(), Ok(()));
            assert_eq!(dims.tensors().count(), dims.tensor_count());
            for (i, id) in dims.tensors().enumerate() {
                assert_eq!(dims.index(id), i, "{id:?}");
                assert!(dims.contains(id), "{id:?}");
            }
        }
    }
}
