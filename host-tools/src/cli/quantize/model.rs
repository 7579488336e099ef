//! A quantized model, not yet assembled into a blob.

use crate::budget::Sensitivities;
use crate::eval::text::Tokens;
use crate::quantize::encode::Encoded;
use crate::tensors::Assignment;

/// A quantized model before assembly.
pub(in crate::cli) struct QuantizedModel {
    pub(in crate::cli) assignment: Assignment,
    pub(in crate::cli) encoded: Vec<Encoded>,
    /// The mix, for a target.
    pub(super) mix: Option<TargetMix>,
    /// The calibration text.
    pub(in crate::cli) text: Tokens,
    /// The text to measure the blob on.
    pub(super) recorded: Option<Tokens>,
}

/// The mix of precisions found for a target.
pub(super) struct TargetMix {
    /// The text that it was chosen on.
    pub(super) chosen_on: Tokens,
    /// Its predicted loss on that text.
    pub(super) predicted: f64,
    /// Measured loss of its weights on that text.
    pub(super) measured: f64,
    /// Aligned bytes that its matrices may take.
    pub(super) capacity: usize,
    /// The sensitivities used.
    pub(super) table: Sensitivities,
}
