//! The published size estimate of a quantized model, for comparison.
//!
//! Source: T. Arai, ResNet-BK, 2025, `MixedPrecisionQuantizer.estimate_model_size`. It counts only
//! Linear layers, weights and biases alike: half a byte per parameter of an expert, two bytes per
//! parameter of `output_proj` and `lm_head`, one elsewhere, and eight bytes (scale and zero point)
//! per quantization group, where an INT4 layer has one group per 128 *outputs* and an INT8 layer
//! one. Its ratio ignores embeddings and norms.

use resnet_bk_core::blob::{Block, Chain, Dimensions, TensorId};

use crate::tensors::is_linear;

/// Model dimensions of the published figures.
pub const REFERENCE_SIZE: Dimensions = Dimensions {
    vocab: 1000,
    width: 128,
    layers: 4,
    experts: 4,
    top_k: 2,
    hidden: 256,
    potentials: 1,
    positions: 64,
    token_classes: 1,
    chain: Chain::Full,
    block: Block::Resolvent,
};

/// The published estimate of the static policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PublishedEstimate {
    /// FP32 bytes of the Linear layers.
    pub fp32_bytes: f64,
    /// Estimated bytes after quantization.
    pub quantized_bytes: f64,
}

impl PublishedEstimate {
    /// FP32 over quantized.
    pub fn ratio(&self) -> f64 {
        self.fp32_bytes / self.quantized_bytes
    }
}

/// Applies the published estimate to a model of these dimensions.
pub fn published_estimate(dims: &Dimensions) -> PublishedEstimate {
    const GROUP: u32 = 128;
    const BYTES_PER_GROUP: f64 = 8.0;
    let mut estimate = PublishedEstimate { fp32_bytes: 0.0, quantized_bytes: 0.0 };
    for id in dims.tensors().filter(|&id| is_linear(id)) {
        let (rows, cols) = dims.shape(id);
        let parameters = f64::from(rows) * f64::from(cols + 1);
        estimate.fp32_bytes += 4.0 * parameters;
        estimate.quantized_bytes += match id {
            TensorId::ExpertUp(..) | TensorId::ExpertDown(..) => {
                0.5 * parameters + BYTES_PER_GROUP * f64::from(rows.div_ceil(GROUP))
            }
            TensorId::OutputProj(_) | TensorId::LmHead(_) => 2.0 * parameters,
            _ => parameters + BYTES_PER_GROUP,
        };
    }
    estimate
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_size_is_as_published() {
        let estimate = published_estimate(&REFERENCE_SIZE);
        assert_eq!(format!("{:.2}", estimate.fp32_bytes / 1024.0), "4639.98");
        assert_eq!(format!("{:.2}", estimate.quantized_bytes / 1024.0), "772.91");
        assert_eq!(format!("{:.2}", estimate.ratio()), "6.00");
    }
}
