//! Bytes to tokens.

use half::f16;

use super::CODED;
use super::interval::{Interval, WINDOW};
use crate::error::{Error, MessageProblem};
use crate::numeric::shares::{Share, Shares, TOTAL_BITS};

/// Bits of all but the first digit of the window.
const REST: u64 = (1 << (WINDOW - 8)) - 1;

/// Range decoder: the string of bytes of an [`super::Encoder`] becomes the tokens of the message.
///
/// Any bytes end in finite time, in a message or in [`MessageProblem::Malformed`]: with every token
/// the codes that they might still be become fewer.
#[derive(Clone, Debug)]
pub struct Decoder<'i> {
    bytes: &'i [u8],
    interval: Interval,
    /// The digits of the bytes in the interval's window, relative to the digits before it.
    value: u64,
    /// Whether the message ends here, once that has been asked for.
    at_end: Option<bool>,
}

impl<'i> Decoder<'i> {
    /// A decoder of exactly the bytes of one message.
    pub fn new(bytes: &'i [u8]) -> Self {
        let digit = |i| u64::from(bytes.get(i).copied().unwrap_or(0));
        let value = (0..WINDOW as usize / 8).fold(0, |value, i| value << 8 | digit(i));
        let mut interval = Interval::whole();
        interval.narrow(CODED);
        Self { bytes, interval, value, at_end: None }
    }

    /// Whether the message ends here. Ask before the model computes another token: the last one
    /// then costs nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Message`] if these bytes are no message's code, as far as that is known by now.
    pub fn is_at_end(&mut self) -> Result<bool, Error> {
        if let Some(known) = self.at_end {
            return Ok(known);
        }
        let malformed = Error::Message(MessageProblem::Malformed);
        let end = self.interval.end().ok_or(malformed)?;
        let (given, code) = ((self.bytes.len(), self.value), (end.len, end.value));
        // The codes of later ends are longer, or higher: none of them can be this one.
        if given < code {
            return Err(malformed);
        }
        self.at_end = Some(given == code);
        Ok(given == code)
    }

    /// The next token, given the logits (`[V]`) that the model computed for its position.
    ///
    /// # Errors
    ///
    /// [`Error::Message`] if these bytes are no message's code.
    pub fn take(&mut self, logits: &[f16]) -> Result<u32, Error> {
        if self.is_at_end()? {
            return Err(Error::Message(MessageProblem::Malformed));
        }
        let point = self.interval.point(self.value);
        let found = (point < 1 << TOTAL_BITS).then(|| Shares::new(logits).at(point as u32));
        let (token, share) = found.flatten().ok_or(Error::Message(MessageProblem::Malformed))?;
        self.narrow(share);
        Ok(token)
    }

    fn narrow(&mut self, share: Share) {
        if self.interval.narrow(share) {
            self.value -= 1 << WINDOW;
        }
        loop {
            let first = self.interval.low() & !REST;
            if self.interval.shift().is_none() {
                break;
            }
            let next = self.interval.shifted() + WINDOW as usize / 8 - 1;
            let digit = self.bytes.get(next).copied().unwrap_or(0);
            self.value = (self.value - first) << 8 | u64::from(digit);
        }
        self.at_end = None;
    }
}
