//! Tokens to bytes.

use half::f16;

use super::CODED;
use super::interval::{Interval, WINDOW};
use crate::error::Error;
use crate::numeric::shares::{Share, Shares};

/// Range encoder: tokens under the logits of a model become a string of bytes.
///
/// It takes logits, not a model, so that a token may be computed in pieces.
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut [u8],
    interval: Interval,
}

impl<'o> Encoder<'o> {
    /// An encoder of a message into a buffer.
    pub fn new(out: &'o mut [u8]) -> Self {
        let mut interval = Interval::whole();
        interval.narrow(CODED);
        Self { out, interval }
    }

    /// Adds a token, given the logits (`[V]`) that the model computed for its position.
    ///
    /// # Errors
    ///
    /// [`Error::Token`] for a token without a logit; the encoder is then unchanged.
    /// [`Error::Buffer`] if the code does not fit its buffer, which it then will never do.
    pub fn put(&mut self, logits: &[f16], token: u32) -> Result<(), Error> {
        let vocab = logits.len() as u32;
        let share = Shares::new(logits).of(token).ok_or(Error::Token { token, vocab })?;
        self.narrow(share)
    }

    // One copy for all of what does not depend on the logits.
    fn narrow(&mut self, share: Share) -> Result<(), Error> {
        // The end that might have been here.
        self.interval.end();
        if self.interval.narrow(share) {
            self.carry();
        }
        while let Some(digit) = self.interval.shift() {
            let (index, given) = (self.interval.shifted() - 1, self.out.len());
            let full = Error::Buffer { needed: index + 1, given };
            *self.out.get_mut(index).ok_or(full)? = digit;
        }
        Ok(())
    }

    /// Ends the message and returns the length of its code, the first bytes of the buffer.
    ///
    /// # Errors
    ///
    /// [`Error::Buffer`] if the code does not fit.
    pub fn finish(mut self) -> Result<usize, Error> {
        let (first, given) = (self.interval.shifted(), self.out.len());
        // Cannot fail: a message has less than 2^48 tokens.
        let Some(end) = self.interval.end() else {
            return Err(Error::Buffer { needed: given + 1, given });
        };
        if end.len > given {
            return Err(Error::Buffer { needed: end.len, given });
        }
        if end.value >> WINDOW != 0 {
            self.carry();
        }
        for (i, byte) in self.out[first..end.len].iter_mut().enumerate() {
            *byte = (end.value >> (WINDOW - 8 - 8 * i as u32)) as u8;
        }
        Ok(end.len)
    }

    /// Adds one to the digits before the window.
    fn carry(&mut self) {
        let shifted = self.interval.shifted().min(self.out.len());
        for digit in self.out[..shifted].iter_mut().rev() {
            *digit = digit.wrapping_add(1);
            if *digit != 0 {
                break;
            }
        }
    }
}
