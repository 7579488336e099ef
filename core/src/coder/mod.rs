//! Compression of short texts with a model.
//!
//! A language model and an entropy coder compress a text as well as the model predicts it, if both
//! ends compute the same probabilities to the last bit, as this crate does. [`Codec`] compresses
//! whole messages, [`Encoder`] and [`Decoder`] are the coder beneath, for tokens that are computed
//! in pieces. `docs/stream.md` specifies the bytes, `docs/numerics.md` the probabilities.
//!
//! The coder is a range coder (G. N. N. Martin, 1979) over shares of 2^24: it takes the tokens as
//! they come and keeps nothing but an interval. An asymmetric numeral system would take them from
//! the last to the first, with the shares of all of them in memory.

mod codec;
mod decoder;
mod encoder;
mod interval;
#[cfg(test)]
mod tests;

pub use codec::{Check, Codec, Framing, Start};
pub use decoder::Decoder;
pub use encoder::Encoder;

use crate::numeric::shares::Share;

/// The part of the interval where coded messages lie. Their first byte is below [`STORED`].
const CODED: Share = Share { start: 0, size: 255 << 16 };
/// First byte of a message that follows as it is.
const STORED: u8 = 0xff;
