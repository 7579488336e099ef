//! The causal convolution of a gated chain: four taps for each channel, on 8-bit codes.
//!
//! ```text
//! f_j  = M_j · 2^(e_j − e), rounded                        e the largest of the four exponents
//! n_ji = (code_ji · f_j + 128) >> 8
//! y_i  = round((Σ_j w_ij · n_ji) · m_i · 2^−shift) + bias_i
//! ```
//!
//! with M_j · 2^e_j the scale of position j. |w| is below 2^13 and |n| below 2^14, so that the sum
//! fits 31 bits.

use super::portable::{GroupCodes, bias, group_scale, int8_code};
use crate::blob::{Precision, TAPS, Tensor, pair_u16};
use crate::numeric::{Scale, shift_round};

/// One vector of codes in ±127, and the value of code 127.
#[derive(Clone, Copy, Debug)]
pub struct Position<'a> {
    /// `[C]`.
    pub codes: &'a [i8],
    /// Zero for a position before the first.
    pub scale: Scale,
}

/// Outputs `[C]` in Q15.16 from the last four positions, oldest first; they saturate. `taps` is
/// `[C, 4]`.
///
/// With P the largest value of a code 127 and W the sum of a channel's weights in magnitude, the
/// error is below 10^−4 · W · P plus one unit.
pub fn convolve(taps: &Tensor<'_>, positions: [Position<'_>; TAPS], outputs: &mut [i32]) {
    let used = positions.iter().filter(|position| position.scale.mantissa != 0);
    // Without any position every factor is zero.
    let exponent = used.map(|position| position.scale.exponent as i32).max().unwrap_or(0);
    let factors = positions.map(|Position { scale, .. }| {
        shift_round(scale.mantissa as i64, exponent - scale.exponent as i32)
    });
    // A number n is worth 2^(exponent + 8) / 127, and a weight 127 · w · m · 2^−e.
    let inputs = Inputs { positions, factors, exponent: exponent + 24 };
    match taps.precision {
        Precision::Int8 => {
            for (i, output) in outputs.iter_mut().enumerate() {
                *output = inputs.output(taps, i, int8(taps, i));
            }
        }
        Precision::Fp16 => {
            for (i, output) in outputs.iter_mut().enumerate() {
                *output = inputs.output(taps, i, fp16(taps, i));
            }
        }
        _ => {
            for (i, output) in outputs.iter_mut().enumerate() {
                *output = inputs.output(taps, i, grouped(taps, i));
            }
        }
    }
}

/// The four positions on a common scale.
struct Inputs<'a> {
    positions: [Position<'a>; TAPS],
    factors: [i32; TAPS],
    /// Binary exponent of a number, with the fraction bits of the output.
    exponent: i32,
}

/// The weights of a channel: w · mantissa · 2^−exponent.
struct Weights {
    w: [i32; TAPS],
    mantissa: i32,
    exponent: i32,
}

impl Inputs<'_> {
    #[inline(always)]
    fn output(&self, taps: &Tensor<'_>, i: usize, weights: Weights) -> i32 {
        let mut sum = 0;
        for (j, w) in weights.w.into_iter().enumerate() {
            let number = (self.positions[j].codes[i] as i32 * self.factors[j] + 128) >> 8;
            sum += w * number;
        }
        let product = sum as i64 * weights.mantissa as i64;
        shift_round(product, weights.exponent - self.exponent).saturating_add(bias(taps, i))
    }
}

#[inline(always)]
fn int8(taps: &Tensor<'_>, i: usize) -> Weights {
    let codes = &taps.codes[i * TAPS..][..TAPS];
    Weights {
        w: core::array::from_fn(|j| int8_code(codes[j], j) as i32),
        mantissa: pair_u16(taps.scales, i) as i32,
        exponent: taps.exponent,
    }
}

#[inline(always)]
fn grouped(taps: &Tensor<'_>, i: usize) -> Weights {
    let layout = taps.layout();
    let codes = &taps.codes[i * layout.row_codes..][..layout.row_codes];
    let scales = &taps.scales[i * layout.row_scales..][..layout.row_scales];
    let mut w = [0; TAPS];
    for (g, w) in w.chunks_mut(taps.group).enumerate() {
        let mut codes = GroupCodes::new(taps, codes, g, w.len());
        w.iter_mut().for_each(|w| *w = codes.next() * group_scale(scales, g));
    }
    Weights { w, mantissa: pair_u16(scales, 0) as i32, exponent: taps.exponent }
}

/// 2^22 / 127, rounded: halves do not include the value of an activation code.
const PER_CODE: (i32, i32) = (33_026, 22);

/// Halves as 13-bit integers with the exponent of the largest.
#[inline(always)]
fn fp16(taps: &Tensor<'_>, i: usize) -> Weights {
    let halves: [u16; TAPS] = core::array::from_fn(|j| pair_u16(taps.codes, i * TAPS + j));
    // Subnormal halves have the exponent of the smallest normal ones.
    let exponent = |half: u16| (half >> 10 & 31).max(1);
    let largest = halves.into_iter().map(exponent).max().unwrap_or(1);
    let w = halves.map(|half| {
        let one = if half & 0x7c00 == 0 { 0 } else { 0x400 };
        let magnitude = ((half as i32 & 0x3ff | one) << 2) >> (largest - exponent(half));
        if half & 0x8000 == 0 { magnitude } else { -magnitude }
    });
    // The unit of a half with exponent x is 2^(x − 25).
    let (mantissa, fraction) = PER_CODE;
    Weights { w, mantissa, exponent: 27 - largest as i32 + fraction }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::TensorLayout;
    use proptest::prelude::*;
    use std::vec::Vec;

    const CHANNELS: usize = 5;

    /// The weight of each tap, decoded on its own.
    fn exact(taps: &Tensor<'_>, i: usize, j: usize) -> f64 {
        if taps.precision == Precision::Fp16 {
            return half::f16::from_bits(pair_u16(taps.codes, i * TAPS + j)).to_f64();
        }
        // A row of an embedding is decoded by other code.
        let mut decoded = [0; TAPS];
        let unit = Tensor { exponent: taps.exponent.min(16), ..*taps };
        super::super::portable::row(&unit, i, &mut decoded);
        decoded[j] as f64 / 65536.0 * 127.0 * ((unit.exponent - taps.exponent) as f64).exp2()
    }

    proptest! {
        #[test]
        fn outputs_are_within_the_bound(
            precision in prop::sample::select(&Precision::ALL[..]),
            group in 1usize..=TAPS,
            bytes in prop::collection::vec(any::<u8>(), 2 * TAPS * CHANNELS),
            mantissas in prop::collection::vec(any::<u16>(), CHANNELS),
            codes in prop::collection::vec(-127i8..=127, TAPS * CHANNELS),
            scales in prop::collection::vec((1u64..1 << 40, 0u32..40), TAPS),
            first in 0usize..=TAPS,
            exponent in 10i32..30,
            biases in prop::collection::vec(any::<i16>(), CHANNELS),
        ) {
            // Values of code 127 from 2^−32 to 2^8; positions before `first` are absent.
            let scale = |(j, &(n, drop)): (usize, &(u64, u32))| match j < first {
                true => Scale::ZERO,
                false => Scale::ratio((n >> drop).max(1), 1 << 31),
            };
            let positions_scales: Vec<Scale> = scales.iter().enumerate().map(scale).collect();
            let positions: Vec<Position<'_>> = codes
                .chunks(CHANNELS)
                .zip(&positions_scales)
                .map(|(codes, &scale)| Position { codes, scale })
                .collect();
            let group = if precision.is_grouped() { group } else { 0 };
            let layout = TensorLayout::new(precision, CHANNELS, TAPS, group, true);
            let mut bytes = bytes;
            if precision == Precision::Fp16 {
                // Finite.
                bytes.iter_mut().skip(1).step_by(2).for_each(|high| *high &= 0xbf);
            }
            let mut scales = Vec::new();
            for &mantissa in &mantissas {
                scales.extend(mantissa.to_le_bytes());
                scales.resize(scales.len() + layout.row_scales.saturating_sub(2), 0x3f);
            }
            let biases: Vec<u8> = biases.iter().flat_map(|bias| bias.to_le_bytes()).collect();
            let taps = Tensor {
                precision,
                rows: CHANNELS,
                cols: TAPS,
                group,
                exponent,
                bias_exponent: 8,
                max_code: 127,
                codes: &bytes[..CHANNELS * layout.row_codes],
                scales: &scales,
                biases: &biases,
            };
            let mut outputs = [0; CHANNELS];
            convolve(&taps, positions.clone().try_into().unwrap(), &mut outputs);
            let scales = positions_scales.iter().map(|scale| scale.to_f32() as f64);
            let peak = scales.fold(0.0, f64::max);
            for (i, &output) in outputs.iter().enumerate() {
                let value = |j: usize| {
                    positions[j].codes[i] as f64 * positions[j].scale.to_f32() as f64 / 127.0
                };
                let sum: f64 = (0..TAPS).map(|j| exact(&taps, i, j) * value(j)).sum();
                let saturate = |x: f64| x.clamp(-2147483648.0, 2147483647.0);
                let expected = saturate(saturate(sum * 65536.0) + bias(&taps, i) as f64);
                let weights: f64 = (0..TAPS).map(|j| exact(&taps, i, j).abs()).sum();
                // Halves lose what is below a 4096th of the largest.
                let relative = if precision == Precision::Fp16 { 8e-4 } else { 1e-4 };
                let allowed = relative * weights * peak * 65536.0 + 1.0;
                prop_assert!((output as f64 - expected).abs() <= allowed, "{output} {expected}");
            }
        }
    }
}
