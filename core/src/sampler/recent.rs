//! The repetition penalty.

use half::f16;
use heapless::Vec;

/// The smallest finite half.
const LEAST: f32 = -65504.0;

/// The last `N` distinct tokens of a text, oldest first.
#[derive(Clone, Debug)]
pub(super) struct Recent<const N: usize> {
    tokens: Vec<u32, N>,
}

impl<const N: usize> Recent<N> {
    pub(super) const fn new() -> Self {
        Self { tokens: Vec::new() }
    }

    /// Makes `token` the latest one.
    #[inline(always)]
    pub(super) fn push(&mut self, token: u32) {
        if N == 0 {
            return;
        }
        if let Some(place) = self.tokens.iter().position(|&known| known == token) {
            self.tokens.remove(place);
        } else if self.tokens.is_full() {
            self.tokens.remove(0);
        }
        // Cannot fail: the branches above leave room.
        let _ = self.tokens.push(token);
    }

    pub(super) fn clear(&mut self) {
        self.tokens.clear();
    }

    /// Divides the positive logits of the tokens by `penalty` and multiplies the others by it
    /// (Keskar et al., 2019), in f32. Results are rounded to FP16 and clamped to finite values.
    #[inline(always)]
    pub(super) fn penalize(&self, logits: &mut [f16], penalty: f32) {
        if N == 0 || penalty == 1.0 {
            return;
        }
        for &token in &self.tokens {
            if let Some(logit) = logits.get_mut(token as usize) {
                let value = logit.to_f32();
                let changed = if value > 0.0 { value / penalty } else { value * penalty };
                *logit = f16::from_f32(changed.max(LEAST));
            }
        }
    }
}
