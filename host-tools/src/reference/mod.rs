//! The model in floating point, as the maths has it: forward, exact gradients, streaming.
//!
//! This is what quantization is measured against, what training optimises and what importance is
//! computed from. The integer core in `resnet-bk-core` is a separate implementation.

mod backward;
mod bk;
mod block;
mod bounds;
mod chunked;
mod fake_quant;
mod forward;
mod layer_norm;
mod linear;
mod loss;
mod model;
mod moe;
mod observer;
mod real;
mod stream;
#[cfg(test)]
mod tests;

pub use chunked::{CHUNK, Hidden};
pub use fake_quant::FakeQuant;
pub use forward::Tape;
pub(crate) use linear::add_gram;
pub use loss::{Distillation, Losses, negative_log_likelihoods};
pub use model::Model;
pub use observer::{ChainCall, LinearCall, LinearGradient, Observer, Routed};
pub use real::Real;
pub(crate) use real::dot;
pub use stream::Stream;

/// Windows of a forward pass where memory does not ask for fewer: longer batches are no faster.
pub const WINDOWS_PER_PASS: usize = 8;
