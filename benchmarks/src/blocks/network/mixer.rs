//! What networks and the parts of their blocks do.

use crate::blocks::tensors::Failure;

/// A model that predicts tokens.
pub(in crate::blocks) trait Network: Send + Sync {
    /// Logits `[tokens, V]` of consecutive whole windows, each from a fresh state.
    fn logits(&self, tokens: &[u32], window: usize) -> Result<Vec<f32>, Failure>;
}

/// The part of a block that looks at other positions.
pub(super) trait Mixer: Send + Sync {
    /// `[rows, d]` of normalized inputs `[rows, d]` in consecutive whole windows.
    fn forward(&self, u: &[f32], window: usize) -> Result<Vec<f32>, Failure>;
}
