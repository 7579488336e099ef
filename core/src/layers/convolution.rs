//! The causal convolution of a gated chain behind its SiLU, and the tail of inputs that it keeps.

use super::activation::quantize_narrow;
use crate::blob::{TAPS, Tensor};
use crate::kernels::{self, Positions};
use crate::numeric::{Scale, silu};

/// Positions that the convolution remembers.
const BEFORE: usize = TAPS - 1;

/// The inputs of the positions before the next one, oldest first.
pub struct Tail<'a> {
    /// `[3, C]`, each in ±127.
    pub codes: &'a mut [i8],
    /// `[3]`: packed values of code 127; zero before the first position.
    pub scales: &'a mut [u32],
}

impl<'a> Tail<'a> {
    /// Words of memory for C channels.
    pub(crate) const fn words(channels: usize) -> usize {
        BEFORE + (BEFORE * channels).div_ceil(4)
    }

    /// Divides [`Tail::words`] of memory.
    pub(crate) fn new(words: &'a mut [u32], channels: usize) -> Self {
        let (scales, codes) = words.split_at_mut(BEFORE);
        Self { codes: &mut bytemuck::cast_slice_mut(codes)[..BEFORE * channels], scales }
    }
}

/// One position: replaces `a` by SiLU of the output of the convolution, and adds it to the tail.
///
/// Shapes: `taps` is `[C, 4]`, `a` is `[C]` in Q15.16, `own` is `[C]`, scratch for its codes.
// Outlined on devices: the places of its panics must not depend on the order of closures.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
pub fn step(taps: &Tensor<'_>, tail: &mut Tail<'_>, own: &mut [i8], a: &mut [i32]) {
    let channels = a.len();
    let scale = quantize_narrow(a, own);
    let before = |j: usize| Scale::unpack(tail.scales[j]);
    let scales = [before(0), before(1), before(2), scale];
    kernels::convolve(taps, Positions { before: tail.codes, last: own, scales }, a, silu);
    tail.codes.copy_within(channels.., 0);
    tail.codes[(BEFORE - 1) * channels..].copy_from_slice(own);
    tail.scales.copy_within(1.., 0);
    tail.scales[BEFORE - 1] = scale.pack();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::{INT8_OFFSETS, Precision};

    /// A position is seen by its own output and the next three.
    #[test]
    fn outputs_see_four_positions() {
        const CHANNELS: usize = 2;
        // Channel 0 passes on its newest input, channel 1 its oldest: 127 · 2^8 · 2^−15 · 127/127.
        let stored = |code: i8, j: usize| code as u8 ^ INT8_OFFSETS[j % 2];
        let codes: [u8; 8] = core::array::from_fn(|i| match i {
            3 => stored(127, 3),
            4 => stored(127, 0),
            i => stored(0, i % 4),
        });
        let taps = Tensor {
            precision: Precision::Int8,
            rows: CHANNELS,
            cols: TAPS,
            group: 0,
            // A weight is code · m · 127 · 2^−e: one.
            exponent: 28,
            bias_exponent: 0,
            max_code: 127,
            codes: &codes,
            scales: &((1u32 << 28) / (127 * 127)).to_le_bytes()[..2].repeat(CHANNELS),
            biases: &[0; 2 * CHANNELS],
        };
        let mut words = [0; Tail::words(CHANNELS)];
        let mut tail = Tail::new(&mut words, CHANNELS);
        let inputs = [1000 << 16, 200 << 16, -(30 << 16), 4 << 16, 0, 0, 0, 0];
        for (t, &input) in inputs.iter().enumerate() {
            let (mut a, mut own) = ([input; CHANNELS], [0; CHANNELS]);
            step(&taps, &mut tail, &mut own, &mut a);
            let before = if t < 3 { 0 } else { inputs[t - 3] };
            for (found, expected) in a.into_iter().zip([input, before].map(silu)) {
                let error = (found as f64 - expected as f64).abs();
                assert!(error <= 0.01 * (expected as f64).abs() + 70_000.0, "{t}: {found}");
            }
        }
    }
}
