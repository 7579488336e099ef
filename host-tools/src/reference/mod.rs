//! The model in floating point: forward pass, exact gradients, streaming.
//!
//! The reference for quantization, training and importance. The integer core in `resnet-bk-core` is
//! a separate implementation.

mod backward;
mod bk;
mod bounds;
mod chunked;
mod convolution;
mod dropout;
mod ensemble;
mod fake_quant;
mod forward;
mod gated;
mod layer_norm;
mod layout;
mod linear;
mod loss;
mod memory;
mod model;
mod moe;
mod observer;
mod real;
mod resolvent;
mod resume;
mod silu;
mod simd;
mod soft_targets;
mod stream;
#[cfg(test)]
mod tests;

pub use chunked::{CHUNK, Hidden};
pub use ensemble::{Ensemble, Predicts};
pub use fake_quant::FakeQuant;
pub use forward::Tape;
pub(crate) use linear::{add_gram, mirror};
pub use loss::{Distillation, Losses, negative_log_likelihoods};
pub use model::Model;
pub use observer::{
    ChainCall, ConvolutionGradient, LayerGradient, LinearCall, LinearGradient, Observer, Routed,
};
pub use real::Real;
pub(crate) use real::{add_to, dot, maximum};
pub(crate) use simd::simd;
pub use soft_targets::{SoftTargets, SoftWindows};
pub use stream::Stream;

/// Windows per forward pass unless memory requires fewer; larger batches are not faster.
pub(crate) const WINDOWS_PER_PASS: usize = 8;
/// Logits of a pass, unless one window has more: 64 MiB.
const LOGITS_PER_PASS: usize = 1 << 24;

/// Windows of `window` tokens that a forward pass of a vocabulary of `vocab` computes at once.
pub fn windows_per_pass(vocab: usize, window: usize) -> usize {
    (LOGITS_PER_PASS / vocab / window).clamp(1, WINDOWS_PER_PASS)
}
