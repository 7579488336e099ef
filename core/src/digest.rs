//! Digest of logits, to compare the results of two machines bit for bit.

use half::f16;

use crate::blob::CRC;

/// CRC-32C over all computed logits, in order, as little-endian FP16. [`crate::Session::feed`]
/// computes none.
#[derive(Clone)]
pub struct LogitsDigest {
    digest: crc::Digest<'static, u32>,
    steps: u32,
}

impl LogitsDigest {
    /// An empty digest.
    pub fn new() -> Self {
        Self { digest: CRC.digest(), steps: 0 }
    }

    /// Adds the logits (`[V]`) of one step.
    pub fn update(&mut self, logits: &[f16]) {
        for logit in logits {
            self.digest.update(&logit.to_bits().to_le_bytes());
        }
        self.steps += 1;
    }

    /// Steps so far.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// The digest so far.
    pub fn value(&self) -> u32 {
        self.digest.clone().finalize()
    }
}

impl Default for LogitsDigest {
    fn default() -> Self {
        Self::new()
    }
}

impl core::fmt::Debug for LogitsDigest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "LogitsDigest({:08x} after {} steps)", self.value(), self.steps)
    }
}
