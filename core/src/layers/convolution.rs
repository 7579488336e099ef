//! The causal convolution of a gated chain: four taps for each channel, on 8-bit codes.

use crate::numeric::{Scale, shift_round};

/// Positions that an output depends on: its own and the three before it.
pub const TAPS: usize = 4;

/// Weights and biases of a convolution.
///
/// The weight of tap j and channel i is 127 · `weights[j * C + i]` · 2^−`exponent`, the oldest
/// position first. The magnitudes of a channel's four weights sum to at most 2^15.
#[derive(Clone, Copy, Debug)]
pub struct Taps<'a> {
    /// `[TAPS, C]`.
    pub weights: &'a [i16],
    /// Fraction bits of the weights.
    pub exponent: i32,
    /// `[C]`, Q15.16.
    pub biases: &'a [i32],
}

/// One vector of codes in ±127, and the value of code 127.
#[derive(Clone, Copy, Debug)]
pub struct Position<'a> {
    /// `[C]`.
    pub codes: &'a [i8],
    /// Zero for a position before the first.
    pub scale: Scale,
}

/// Outputs `[C]` in Q15.16 from the last four positions, oldest first; saturate.
///
/// Codes are brought to the largest of the four scales, as 15-bit numbers: with P the largest value
/// of a code 127 and W the sum of a channel's weights in magnitude, the error is below
/// 10^−4 · W · P plus one unit.
#[inline(always)]
pub fn convolve(taps: Taps<'_>, positions: [Position<'_>; TAPS], outputs: &mut [i32]) {
    let channels = outputs.len();
    let used = positions.iter().filter(|position| position.scale.mantissa != 0);
    let Some(exponent) = used.map(|position| position.scale.exponent as i32).max() else {
        outputs.copy_from_slice(&taps.biases[..channels]);
        return;
    };
    let factor = |position: Position<'_>| {
        shift_round(position.scale.mantissa as i64, exponent - position.scale.exponent as i32)
    };
    let factors = positions.map(factor);
    // A number of code · factor / 2^8 is worth 2^(exponent + 8) / 127.
    let shift = taps.exponent - exponent - 24;
    for (i, output) in outputs.iter_mut().enumerate() {
        let mut sum = 0;
        for (j, (position, factor)) in positions.iter().zip(factors).enumerate() {
            let number = (position.codes[i] as i32 * factor + 128) >> 8;
            sum += taps.weights[j * channels + i] as i32 * number;
        }
        *output = shift_round(sum as i64, shift).saturating_add(taps.biases[i]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const CHANNELS: usize = 5;

    proptest! {
        #[test]
        fn outputs_are_within_the_bound(
            weights in prop::collection::vec(-8191i16..8192, TAPS * CHANNELS),
            codes in prop::collection::vec(-127i8..=127, TAPS * CHANNELS),
            scales in prop::collection::vec((1u64..1 << 40, 0u32..40), TAPS),
            first in 0usize..=TAPS,
            exponent in 10i32..30,
            biases in prop::collection::vec(-(1i32 << 24)..1 << 24, CHANNELS),
        ) {
            // Values of code 127 from 2^−32 to 2^8; positions before `first` are absent.
            let scale = |(j, &(n, drop)): (usize, &(u64, u32))| match j < first {
                true => Scale::ZERO,
                false => Scale::ratio((n >> drop).max(1), 1 << 31),
            };
            let scales: Vec<Scale> = scales.iter().enumerate().map(scale).collect();
            let positions: Vec<Position<'_>> = codes
                .chunks(CHANNELS)
                .zip(&scales)
                .map(|(codes, &scale)| Position { codes, scale })
                .collect();
            let taps = Taps { weights: &weights, exponent, biases: &biases };
            let mut outputs = [0; CHANNELS];
            convolve(taps, positions.clone().try_into().unwrap(), &mut outputs);
            let peak = scales.iter().map(|scale| scale.to_f32() as f64).fold(0.0, f64::max);
            for (i, &output) in outputs.iter().enumerate() {
                let weight = |j: usize| {
                    127.0 * weights[j * CHANNELS + i] as f64 * (-exponent as f64).exp2()
                };
                let value = |j: usize| {
                    positions[j].codes[i] as f64 * positions[j].scale.to_f32() as f64 / 127.0
                };
                let exact: f64 = (0..TAPS).map(|j| weight(j) * value(j)).sum();
                let exact = (exact * 65536.0).clamp(-2147483648.0, 2147483647.0);
                let exact = (exact + biases[i] as f64).clamp(-2147483648.0, 2147483647.0);
                let sum: f64 = (0..TAPS).map(|j| weight(j).abs()).sum();
                let allowed = 1e-4 * sum * peak * 65536.0 + 1.0;
                prop_assert!((output as f64 - exact).abs() <= allowed, "{} {}", output, exact);
            }
        }
    }
}
