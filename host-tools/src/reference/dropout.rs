//! Dropout of activations during training.

use crate::reference::real::Real;
use crate::reference::simd::simd;

/// Dropout: zeroes an activation with some probability and otherwise scales it up to keep the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Dropout {
    /// Drops where a random byte is below this.
    threshold: u8,
    /// State of the random number generator.
    state: u64,
}

impl Dropout {
    /// Drops a fraction of at most 255/256, rounded to 256ths; `stream` makes blocks independent.
    pub(crate) fn new(share: f32, seed: u64, stream: u64) -> Self {
        let threshold = (share * 256.0).round().clamp(0.0, 255.0) as u8;
        Self { threshold, state: seed ^ stream.wrapping_mul(0xd134_2543_de82_ef95) }
    }

    /// Factor of activations that are not dropped.
    pub(crate) fn gain<T: Real>(self) -> T {
        T::of(256.0 / (256.0 - f64::from(self.threshold)))
    }

    /// Zeroes dropped activations.
    pub(crate) fn apply<T: Real>(&mut self, activations: &mut [T]) {
        self.apply_with(activations, T::ONE);
    }

    /// Zeroes dropped activations and scales the others.
    pub(crate) fn apply_scaled<T: Real>(&mut self, activations: &mut [T]) {
        self.apply_with(activations, self.gain());
    }

    fn apply_with<T: Real>(&mut self, activations: &mut [T], gain: T) {
        let (eights, rest) = activations.as_chunks_mut::<8>();
        simd(
            #[inline(always)]
            || {
                for eight in eights {
                    let bytes = self.next().to_le_bytes();
                    for (x, byte) in eight.iter_mut().zip(bytes) {
                        *x = if byte < self.threshold { T::ZERO } else { *x * gain };
                    }
                }
            },
        );
        if !rest.is_empty() {
            for (x, byte) in rest.iter_mut().zip(self.next().to_le_bytes()) {
                *x = if byte < self.threshold { T::ZERO } else { *x * gain };
            }
        }
    }

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
