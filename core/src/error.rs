//! Errors of blobs, tokens, settings and caller-provided memory.

use core::fmt;

/// Every error of this crate. Small, `Copy` and free of owned strings, so that a device can log it;
/// [`fmt::Display`] suggests a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Error {
    /// The bytes do not begin with the magic of a blob.
    NotABlob,
    /// Another format version.
    Version {
        /// Version in the blob.
        found: u32,
        /// Version that this crate reads.
        supported: u32,
    },
    /// Fewer bytes than the blob's declared length.
    Truncated {
        /// Bytes that belong to the blob.
        needed: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// More bytes than the blob's declared length.
    TrailingBytes {
        /// Bytes that belong to the blob.
        expected: usize,
        /// Bytes that were given.
        given: usize,
    },
    /// The checksum does not match: the blob is corrupt.
    Checksum {
        /// Checksum in the blob.
        stored: u32,
        /// Checksum of the bytes.
        computed: u32,
    },
    /// The postcard header cannot be decoded, or contradicts the length of the blob.
    Header,
    /// A dimension is zero or above the limit that the overflow proofs cover.
    Dimension {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: u32,
        /// Its largest allowed value.
        limit: u32,
    },
    /// The channels of a gated chain are not a multiple of its potentials.
    Channels {
        /// Channels of a block.
        channels: u32,
        /// Potentials of a block.
        potentials: u32,
    },
    /// The record of a matrix is invalid.
    Tensor {
        /// Its index in the canonical order.
        index: u32,
        /// What is wrong.
        problem: TensorProblem,
    },
    /// The chain parameters are outside the range in which the fixed-point BK-core cannot overflow.
    ChainRange {
        /// Block.
        layer: u32,
        /// Potential.
        potential: u32,
    },
    /// The off-diagonal product β exceeds 31 bits, the limit of the portable multiplications.
    OffDiagonal {
        /// β · 2^16 of the blob.
        found: u32,
        /// The largest allowed.
        limit: u32,
    },
    /// The chain section is missing, misaligned or of the wrong length.
    ChainSection,
    /// The section of token classes is missing, superfluous or malformed.
    TokenClasses,
    /// The tokenizer section is malformed or refers to tokens that do not exist.
    TokenizerSection,
    /// The tokens of the blob's tokenizer exceed the limit on their total bytes.
    TokenizerText {
        /// The limit in bytes.
        limit: u32,
    },
    /// The blob carries no tokenizer.
    NoTokenizer,
    /// The blob's tokenizer only decodes.
    NoEncoder,
    /// A token that the model does not have.
    Token {
        /// The token.
        token: u32,
        /// Number of tokens of the model.
        vocab: u32,
    },
    /// The position table has no row for the next token.
    EndOfPositions {
        /// Rows of the position table.
        positions: u32,
    },
    /// A full-chain model is not causal: it scores windows and cannot stream.
    NotCausal,
    /// A token is in progress: advance it to its end, or reset the session.
    Busy,
    /// A snapshot that cannot be restored.
    Snapshot(SnapshotProblem),
    /// A compressed message that cannot be read.
    Message(MessageProblem),
    /// A window without tokens.
    EmptyWindow,
    /// The memory is too small, or its allocation failed.
    Memory {
        /// 32-bit words that are needed.
        needed: usize,
        /// 32-bit words that were given.
        given: usize,
    },
    /// A buffer for the result is too small.
    Buffer {
        /// Elements that are needed, at least.
        needed: usize,
        /// Elements in the buffer.
        given: usize,
    },
    /// A top-k above the limit.
    TopK {
        /// Requested top-k.
        asked: usize,
        /// Largest allowed value.
        limit: usize,
    },
    /// A temperature that is negative or non-finite.
    Temperature,
    /// A top-p outside of (0, 1].
    TopP,
    /// A repetition penalty below 1 or above the limit.
    RepetitionPenalty,
    /// Generation was started before any token was fed.
    EmptyPrompt,
}

/// What is wrong with a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum SnapshotProblem {
    /// The bytes do not begin with the magic of a snapshot.
    NotASnapshot,
    /// Another version of the snapshot's format.
    Version {
        /// Version of the snapshot.
        found: u32,
        /// Version that this crate reads.
        supported: u32,
    },
    /// It was taken with another blob.
    Model,
    /// Its length is not that of a snapshot of this model.
    Length,
    /// Its checksum does not match: the snapshot is corrupt.
    Checksum,
    /// Its state or position is out of range for the model.
    State,
}

/// What is wrong with a compressed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum MessageProblem {
    /// The bytes are no message's code.
    Malformed,
    /// It is shorter than its identity and check.
    Truncated,
    /// It was compressed with another model.
    Model {
        /// Identity in the message.
        found: u16,
        /// Identity of this model.
        expected: u16,
    },
    /// Its check does not match.
    Check,
}

/// What is wrong with a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum TensorProblem {
    /// Unknown precision or layout.
    Precision,
    /// Its shape contradicts the dimensions.
    Shape,
    /// Group size of 0 for a grouped precision, nonzero for another one, or longer than a row (32
    /// is always allowed).
    Group,
    /// An exponent outside of its range.
    Exponent,
    /// Its section does not start at a multiple of 16.
    Alignment,
    /// Its section reaches beyond the blob.
    Bounds,
    /// Its section begins before the one of the matrix before it ends.
    Overlap,
    /// A non-finite FP16 weight.
    NotFinite,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotABlob => f.write_str(
                "not a resnet-bk blob: the magic bytes are missing; make one with `resnet-bk \
                 quantize`",
            ),
            Self::Version { found, supported } => write!(
                f,
                "blob format {found}, but this build reads format {supported}; convert it with \
                 `resnet-bk upgrade`, or quantize again, with the tools of the firmware's version"
            ),
            Self::Truncated { needed, given } => {
                write!(f, "blob is cut short: {given} of {needed} bytes; copy all of it again")
            }
            Self::TrailingBytes { expected, given } => {
                write!(f, "{given} bytes given, but the blob has {expected}; pass exactly the blob")
            }
            Self::Checksum { stored, computed } => write!(
                f,
                "checksum {computed:08x} instead of {stored:08x}: the blob was damaged after it \
                 was written; copy or flash it again"
            ),
            Self::Header => f.write_str("the blob's header cannot be decoded; quantize again"),
            Self::Dimension { name, value, limit } => {
                write!(
                    f,
                    "{name} is {value}, but must be between 1 and {limit}; train a model within the \
                 limits"
                )
            }
            Self::Channels { channels, potentials } => write!(
                f,
                "{channels} channels, but they must be a multiple of the {potentials} potentials; \
                 train a model with such dimensions"
            ),
            Self::Tensor { index, problem } => {
                write!(f, "tensor {index} of the blob: {problem}; quantize again")
            }
            Self::ChainRange { layer, potential } => write!(
                f,
                "chain of block {layer}, potential {potential}: diagonal and eta are outside the \
                 range in which the fixed-point recursion is proven; raise eta_floor"
            ),
            Self::OffDiagonal { found, limit } => write!(
                f,
                "the chain's off-diagonal product is {found}/65536, but may be at most \
                 {limit}/65536; quantize a checkpoint whose off_diagonal is smaller"
            ),
            Self::ChainSection => {
                f.write_str("the blob's chain section is malformed; quantize again")
            }
            Self::TokenClasses => {
                f.write_str("the blob's token classes are malformed; quantize again")
            }
            Self::TokenizerSection => {
                f.write_str("the blob's tokenizer section is malformed; quantize again")
            }
            Self::TokenizerText { limit } => write!(
                f,
                "the tokens of the blob's tokenizer have more than {limit} bytes in total; train \
                 one with fewer or shorter tokens"
            ),
            Self::NoTokenizer => f.write_str("the blob carries no tokenizer"),
            Self::NoEncoder => f.write_str(
                "the blob's tokenizer only decodes; encode where its tokenizer.json is, and pass \
                 token ids",
            ),
            Self::Token { token, vocab } => write!(
                f,
                "token {token} is out of range: the model has tokens 0 to {}",
                vocab.saturating_sub(1)
            ),
            Self::EndOfPositions { positions } => write!(
                f,
                "the model's position table ends after {positions} tokens; reset the session"
            ),
            Self::NotCausal => f.write_str(
                "a full-chain model needs future tokens and cannot stream; score whole windows",
            ),
            Self::Busy => {
                f.write_str("a token is in progress; advance the session to its end, or reset it")
            }
            Self::Snapshot(problem) => write!(f, "the snapshot cannot be restored: {problem}"),
            Self::Message(problem) => write!(f, "the message cannot be read: {problem}"),
            Self::EmptyWindow => f.write_str("the window is empty; pass at least one token"),
            Self::Memory { needed, given } => {
                write!(
                    f,
                    "{given} words of memory were given, {needed} are needed; provide that many"
                )
            }
            Self::Buffer { needed, given } => {
                write!(
                    f,
                    "the result needs room for {needed} elements, the buffer has {given}; \
                     enlarge it"
                )
            }
            Self::TopK { asked, limit } => {
                write!(f, "top-k is {asked}; choose at most {limit}, or 0 for all tokens")
            }
            Self::Temperature => {
                f.write_str("the temperature must be zero (greedy) or a positive finite number")
            }
            Self::TopP => f.write_str("top-p must be above 0 and at most 1 (all tokens)"),
            Self::RepetitionPenalty => {
                f.write_str("the repetition penalty must be between 1 (no effect) and 1000")
            }
            Self::EmptyPrompt => f.write_str(
                "there is nothing to continue: feed at least one token before generating",
            ),
        }
    }
}

impl fmt::Display for SnapshotProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotASnapshot => f.write_str("the magic bytes are missing"),
            Self::Version { found, supported } => {
                write!(f, "it has format {found}, this build reads format {supported}")
            }
            Self::Model => f.write_str("it was taken with another blob"),
            Self::Length => f.write_str("its length is not that of a snapshot of this model"),
            Self::Checksum => f.write_str("its checksum does not match: it was damaged"),
            Self::State => f.write_str("its state or position is out of range for this model"),
        }
    }
}

impl fmt::Display for MessageProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Malformed => f.write_str(
                "no message is coded like this; it was damaged, or compressed with another model \
                 or other settings",
            ),
            Self::Truncated => f.write_str("it is shorter than its identity and check"),
            Self::Model { found, expected } => write!(
                f,
                "it was compressed with model {found:04x}, this one is {expected:04x}; use the \
                 sender's model"
            ),
            Self::Check => f.write_str(
                "its check does not match; it was damaged, compressed with another model, or a \
                 message before it was lost",
            ),
        }
    }
}

impl fmt::Display for TensorProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Precision => "unknown precision or layout",
            Self::Shape => "its shape contradicts the model's dimensions",
            Self::Group => "impossible group size",
            Self::Exponent => "exponent out of range",
            Self::Alignment => "its section is not 16-byte aligned",
            Self::Bounds => "its section reaches beyond the blob",
            Self::Overlap => "its section overlaps the one before it",
            Self::NotFinite => "an FP16 weight is infinite or not a number",
        })
    }
}

impl core::error::Error for Error {}
impl core::error::Error for TensorProblem {}
