//! Dimensions of a model and the canonical order of its tensors.

use serde::{Deserialize, Serialize};

use super::{FORMAT_VERSION, MAGIC, PREAMBLE_LEN, TokenClasses};
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
    /// Experts per block E.
    pub experts: u32,
    /// Experts per token; equal to `experts` for dense gating.
    pub top_k: u32,
    /// Hidden width of an expert.
    pub hidden: u32,
    /// Potentials per block K.
    pub potentials: u32,
    /// Rows of the position table; 0 if there is none.
    pub positions: u32,
    /// Token classes, from 1 to [`TokenClasses::MOST`].
    pub token_classes: u32,
    /// Chain kind.
    pub chain: Chain,
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
}

/// One weight matrix of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum TensorId {
    /// Embedding of a token class (class), one row per token: `[V, d]` for a single class.
    TokenEmbedding(u32),
    /// `[positions, d]`; absent if `positions` is 0.
    PositionEmbedding,
    /// `[K, d]`: the potentials of a block.
    VProj(u32),
    /// `[d, 2K]`: from [Re G, Im G] back to the residual, `bk_scale` folded in.
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

/// Size computations assume dimensions that [`Dimensions::validate`] accepts; others may overflow.
impl Dimensions {
    /// Reads the dimensions of a blob. For a blob in the program this works at compile time, so
    /// that the session memory can be a static of the right size:
    ///
    /// ```
    /// use resnet_bk_core::blob::Dimensions;
    ///
    /// static BLOB: &[u8] =
    ///     resnet_bk_core::include_blob!("../../tests/golden/v2/half-int4.rbk");
    /// const DIMS: Dimensions = match Dimensions::of_blob(BLOB) {
    ///     Ok(dims) => dims,
    ///     Err(_) => panic!("not a blob of this version"),
    /// };
    /// static MEMORY: [u32; DIMS.session_words()] = [0; DIMS.session_words()];
    /// assert_eq!(MEMORY.len(), DIMS.session_words());
    /// ```
    ///
    /// The dimensions are the first fields of the header (`docs/format.md`), so the first
    /// [`Self::PREFIX`] bytes of a blob suffice. The rest is not validated;
    /// [`crate::Model::from_bytes`] does that.
    ///
    /// # Errors
    ///
    /// [`Error::NotABlob`], [`Error::Version`], [`Error::Truncated`], [`Error::Header`] or
    /// [`Error::Dimension`].
    pub const fn of_blob(bytes: &[u8]) -> Result<Self, Error> {
        let header_len = match header_len(bytes) {
            Ok(len) => len,
            Err(error) => return Err(error),
        };
        let mut fields = [0; 9];
        let (mut at, mut i) = (PREAMBLE_LEN, 0);
        while i < fields.len() {
            (fields[i], at) = match varint(bytes, at) {
                Ok(read) => read,
                Err(error) => return Err(error),
            };
            i += 1;
        }
        let chain = match varint(bytes, at) {
            Ok((0, end)) => (Chain::Full, end),
            Ok((1, end)) => (Chain::Half, end),
            Ok(_) => return Err(Error::Header),
            Err(error) => return Err(error),
        };
        if chain.1 - PREAMBLE_LEN > header_len as usize {
            return Err(Error::Header);
        }
        let [vocab, width, layers, experts, top_k, hidden, potentials, positions, token_classes] =
            fields;
        let dims = Self {
            vocab,
            width,
            layers,
            experts,
            top_k,
            hidden,
            potentials,
            positions,
            token_classes,
            chain: chain.0,
        };
        match dims.validate() {
            Ok(()) => Ok(dims),
            Err(error) => Err(error),
        }
    }

    /// Largest prefix of a blob that [`Self::of_blob`] reads: the preamble and ten varints.
    pub const PREFIX: usize = PREAMBLE_LEN + 10 * VARINT;

    /// Checks every dimension against its limit; the error names the first violation.
    pub const fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("vocab", self.vocab, Limits::VOCAB),
            ("width", self.width, Limits::WIDTH),
            ("layers", self.layers, Limits::LAYERS),
            ("experts", self.experts, Limits::EXPERTS),
            ("top_k", self.top_k, self.experts),
            ("hidden", self.hidden, Limits::HIDDEN),
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
        Ok(())
    }

    /// Number of weight matrices.
    pub fn tensor_count(&self) -> usize {
        let tables = 2 * self.token_classes + (self.positions != 0) as u32;
        (tables + self.layers * self.tensors_per_layer()) as usize
    }

    fn tensors_per_layer(&self) -> u32 {
        3 + 2 * self.experts
    }

    /// Index of a matrix in the canonical order: token embedding, position embedding if any, then
    /// per block v_proj, output_proj, gate and each expert's up and down, then the output layer.
    /// [`Dimensions::contains`] must hold.
    pub fn index(&self, id: TensorId) -> usize {
        let first = self.token_classes + (self.positions != 0) as u32;
        let block = |l: u32| first + l * self.tensors_per_layer();
        let index = match id {
            TensorId::TokenEmbedding(class) => class,
            TensorId::PositionEmbedding => self.token_classes,
            TensorId::VProj(l) => block(l),
            TensorId::OutputProj(l) => block(l) + 1,
            TensorId::Gate(l) => block(l) + 2,
            TensorId::ExpertUp(l, e) => block(l) + 3 + 2 * e,
            TensorId::ExpertDown(l, e) => block(l) + 4 + 2 * e,
            TensorId::LmHead(class) => block(self.layers) + class,
        };
        index as usize
    }

    /// Whether a model of these dimensions has the matrix.
    pub fn contains(&self, id: TensorId) -> bool {
        match id {
            TensorId::TokenEmbedding(class) | TensorId::LmHead(class) => class < self.token_classes,
            TensorId::PositionEmbedding => self.positions != 0,
            TensorId::VProj(l) | TensorId::OutputProj(l) | TensorId::Gate(l) => l < self.layers,
            TensorId::ExpertUp(l, e) | TensorId::ExpertDown(l, e) => {
                l < self.layers && e < self.experts
            }
        }
    }

    /// Every matrix in canonical order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorId> + use<> {
        let dims = *self;
        let position = (dims.positions != 0).then_some(TensorId::PositionEmbedding);
        let blocks = (0..dims.layers).flat_map(move |l| {
            let bk = [TensorId::VProj(l), TensorId::OutputProj(l), TensorId::Gate(l)];
            let experts = (0..dims.experts)
                .flat_map(move |e| [TensorId::ExpertUp(l, e), TensorId::ExpertDown(l, e)]);
            bk.into_iter().chain(experts)
        });
        (0..dims.token_classes)
            .map(TensorId::TokenEmbedding)
            .chain(position)
            .chain(blocks)
            .chain((0..dims.token_classes).map(TensorId::LmHead))
    }

    /// Shape `[rows, cols]` of a matrix; linear layers are `[out, in]`. For experts, and for token
    /// tables of several classes, it is the largest allowed shape: see [`Dimensions::admits`].
    pub fn shape(&self, id: TensorId) -> (u32, u32) {
        match id {
            TensorId::TokenEmbedding(_) | TensorId::LmHead(_) => (self.vocab, self.width),
            TensorId::PositionEmbedding => (self.positions, self.width),
            TensorId::VProj(_) => (self.potentials, self.width),
            TensorId::OutputProj(_) => (self.width, 2 * self.potentials),
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

    /// Multiply-accumulates per token in matrix-vector products, including the output layer.
    pub fn macs_per_token(&self) -> u64 {
        let macs = |id| {
            let (rows, cols) = self.shape(id);
            rows as u64 * cols as u64
        };
        let experts =
            self.top_k as u64 * (macs(TensorId::ExpertUp(0, 0)) + macs(TensorId::ExpertDown(0, 0)));
        let block = macs(TensorId::VProj(0))
            + macs(TensorId::OutputProj(0))
            + macs(TensorId::Gate(0))
            + experts;
        self.layers as u64 * block + macs(TensorId::LmHead(0))
    }
}

/// Most bytes of a 32-bit varint.
const VARINT: usize = 5;

/// The length of the header, after checking magic and version.
const fn header_len(bytes: &[u8]) -> Result<u32, Error> {
    let mut i = 0;
    while i < MAGIC.len() && i < bytes.len() {
        if bytes[i] != MAGIC[i] {
            return Err(Error::NotABlob);
        }
        i += 1;
    }
    let (Some((_, fields)), true) = (bytes.split_first_chunk::<8>(), bytes.len() >= PREAMBLE_LEN)
    else {
        return Err(Error::Truncated { needed: PREAMBLE_LEN, given: bytes.len() });
    };
    let [v0, v1, v2, v3, h0, h1, h2, h3, ..] = fields else {
        return Err(Error::Truncated { needed: PREAMBLE_LEN, given: bytes.len() });
    };
    let found = u32::from_le_bytes([*v0, *v1, *v2, *v3]);
    if found != FORMAT_VERSION {
        return Err(Error::Version { found, supported: FORMAT_VERSION });
    }
    Ok(u32::from_le_bytes([*h0, *h1, *h2, *h3]))
}

/// Decodes a postcard varint of a `u32` at offset `at`; returns it and the offset after it.
const fn varint(bytes: &[u8], mut at: usize) -> Result<(u32, usize), Error> {
    let (mut value, mut shift) = (0u32, 0);
    while at < bytes.len() {
        let byte = bytes[at];
        at += 1;
        // The fifth byte holds the top four bits and ends the number.
        if shift == 28 && byte > 0x0f {
            return Err(Error::Header);
        }
        value |= ((byte & 0x7f) as u32) << shift;
        if byte < 0x80 {
            return Ok((value, at));
        }
        shift += 7;
    }
    Err(Error::Truncated { needed: at + 1, given: bytes.len() })
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
    use super::*;

    #[test]
    fn index_follows_the_canonical_order() {
        for (positions, token_classes) in [(0, 1), (16, 1), (0, 3), (16, 4)] {
            let dims = Dimensions {
                vocab: 10,
                width: 8,
                layers: 3,
                experts: 4,
                top_k: 2,
                hidden: 16,
                potentials: 2,
                positions,
                token_classes,
                chain: Chain::Half,
            };
            assert_eq!(dims.tensors().count(), dims.tensor_count());
            for (i, id) in dims.tensors().enumerate() {
                assert_eq!(dims.index(id), i, "{id:?}");
            }
        }
    }
}
