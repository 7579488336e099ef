//! The postcard header: all metadata of the model.

use serde::{Deserialize, Serialize};

use super::Dimensions;

/// Location of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Offset from the first section, a multiple of [`super::ALIGN`].
    pub offset: u32,
    /// Bytes.
    pub len: u32,
}

/// The header as encoded by postcard; strings and record bytes are borrowed from the blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header<'a> {
    /// Dimensions and chain kind.
    pub dims: Dimensions,
    /// Fraction bits of chain numbers (diagonal, η, 1/L).
    pub chain_frac: u8,
    /// Product β of the off-diagonals, Q16.16.
    pub off_diagonal: u32,
    /// Whether potentials are rounded to 127 steps on either side of zero within ±3.
    pub potentials_int8: bool,
    /// Per block and potential: diagonal then η, both `i32` with `chain_frac` fraction bits.
    pub chain: Section,
    /// Byte tokens and merges of the tokenizer, if the blob has one.
    pub tokenizer: Option<Section>,
    /// The class of each token ([`super::TokenClasses`]), if there are several classes.
    pub token_classes: Option<Section>,
    /// One [`super::TensorRecord`] per matrix in canonical order.
    pub records: &'a [u8],
    /// Origin of the blob.
    #[serde(borrow)]
    pub provenance: Provenance<'a>,
}

/// Origin of a blob, and the quality measured when it was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Provenance<'a> {
    /// SHA-256 of the FP32 checkpoint file.
    pub source_sha256: &'a [u8],
    /// Bytes of the FP32 checkpoint file.
    pub source_bytes: u64,
    /// Name and version of the tool that wrote the blob.
    pub tool: &'a str,
    /// Name of the policy.
    pub policy: &'a str,
    /// Calibration text.
    pub calibration: &'a str,
    /// Calibration tokens.
    pub calibration_tokens: u32,
    /// Seed of the quantizer.
    pub seed: u64,
    /// Perplexity before and after quantization, if measured.
    pub measured: Option<Measured<'a>>,
}

/// Perplexity measured with integer inference when the blob was made.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured<'a> {
    /// Evaluation text.
    pub corpus: &'a str,
    /// Scored tokens.
    pub tokens: u32,
    /// Perplexity of the FP32 model.
    pub perplexity_fp32: f32,
    /// Perplexity of this blob.
    pub perplexity: f32,
}
