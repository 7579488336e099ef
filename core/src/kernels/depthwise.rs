//! The causal convolution of a gated chain: four taps for each channel, on 8-bit codes.
//!
//! ```text
//! f_j  = M_j · 2^(e_j − e), rounded                        e the largest of the four exponents
//! n_ji = (code_ji · f_j) >> 8
//! y_i  = round((Σ_j w_ij · n_ji) · m_i · 2^−shift) + bias_i
//! ```
//!
//! with M_j · 2^e_j the scale of position j. |w| is below 2^13 and |n| below 2^14, so that the sum
//! fits 31 bits.

use super::choice::{Choice, Reason};
use super::portable::{GroupCodes, bias, group_scale, int8_code};
use crate::blob::{Precision, TAPS, Tensor, pair_u16};
use crate::numeric::{RESIDUAL_FRAC, Scale, high_product, shift_round};

/// How the taps of a convolution are read: INT8, the storage that policies and budgets choose, by a
/// loop of its own.
pub(crate) fn choice(taps: &Tensor<'_>) -> Choice {
    match taps.precision {
        Precision::Int8 => Choice { kernel: "depthwise", fallback: None },
        _ => Choice { kernel: "portable", fallback: Some(Reason::Storage) },
    }
}

/// The last four positions of every channel, as codes in ±127.
#[derive(Clone, Copy, Debug)]
pub struct Positions<'a> {
    /// `[3, C]`: the positions before the last, oldest first.
    pub before: &'a [i8],
    /// `[C]`: the last.
    pub last: &'a [i8],
    /// Values of code 127, oldest first; zero for a position before the first.
    pub scales: [Scale; TAPS],
}

/// Outputs `[C]` in Q15.16: `activation` of what the taps give, which saturates. `taps` is
/// `[C, 4]`.
///
/// With P the largest value of a code 127 and W the sum of a channel's weights in magnitude, the
/// error before the activation is below 2 · 10^−4 · W · P plus one unit.
///
/// # Panics
///
/// On other shapes.
// Outlined on devices, for registers of its own.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
pub fn convolve(
    taps: &Tensor<'_>,
    positions: Positions<'_>,
    outputs: &mut [i32],
    activation: impl Fn(i32) -> i32,
) {
    let used = positions.scales.iter().filter(|scale| scale.mantissa != 0);
    // Without any position every factor is zero.
    let exponent = used.map(|scale| scale.exponent as i32).max().unwrap_or(0);
    let factors = positions
        .scales
        .map(|scale| shift_round(scale.mantissa as i64, exponent - scale.exponent as i32));
    // A number n is worth 2^(exponent + 8) / 127, and a weight 127 · w · m · 2^−e.
    let exponent = exponent + 24;
    match taps.precision {
        Precision::Int8 => {
            int8_sums(taps, &positions, factors, outputs);
            requantize_int8(taps, taps.exponent - exponent, outputs, activation);
        }
        _ => {
            others(taps, &positions, factors, exponent, outputs);
            outputs.iter_mut().for_each(|y| *y = activation(*y));
        }
    }
}

/// The outputs of other weights than INT8.
fn others(
    taps: &Tensor<'_>,
    positions: &Positions<'_>,
    factors: [i32; TAPS],
    exponent: i32,
    outputs: &mut [i32],
) {
    let channels = outputs.len();
    let before = positions.before.chunks_exact(channels.max(1));
    let mut rows = [positions.last; TAPS];
    rows.iter_mut().zip(before).for_each(|(row, before)| *row = before);
    for (i, output) in outputs.iter_mut().enumerate() {
        let weights =
            if taps.precision == Precision::Fp16 { fp16(taps, i) } else { grouped(taps, i) };
        let number = |j: usize| (rows[j][i] as i32 * factors[j]) >> 8;
        let sum: i32 = weights.w.iter().enumerate().map(|(j, w)| w * number(j)).sum();
        let product = sum as i64 * weights.mantissa as i64;
        let rounded = shift_round(product, weights.exponent - exponent);
        *output = rounded.saturating_add(bias(taps, i));
    }
}

/// The weights of a channel: w · mantissa · 2^−exponent.
struct Weights {
    w: [i32; TAPS],
    mantissa: i32,
    exponent: i32,
}

/// Sums of all channels with INT8 weights, the storage that microcontrollers should have.
#[inline(always)]
fn int8_sums(taps: &Tensor<'_>, positions: &Positions<'_>, factors: [i32; TAPS], sums: &mut [i32]) {
    #[cfg(arm_dsp)]
    if super::dsp::depthwise::sums(taps.codes, positions.before, positions.last, factors, sums) {
        return;
    }
    let (first, rest) = positions.before.split_at(sums.len());
    let (second, third) = rest.split_at(sums.len());
    let codes = first.iter().zip(second).zip(third.iter().zip(positions.last));
    let weights = taps.codes.as_chunks::<TAPS>().0;
    for ((sum, w), ((&a, &b), (&c, &d))) in sums.iter_mut().zip(weights).zip(codes) {
        let term =
            |j: usize, code: i8| int8_code(w[j], j) as i32 * ((code as i32 * factors[j]) >> 8);
        *sum = term(0, a) + term(1, b) + term(2, c) + term(3, d);
    }
}

/// Turns the sums of INT8 weights into outputs.
#[inline(always)]
fn requantize_int8(
    taps: &Tensor<'_>,
    shift: i32,
    sums: &mut [i32],
    activation: impl Fn(i32) -> i32,
) {
    let bias_shift = RESIDUAL_FRAC - taps.bias_exponent;
    let value = |bytes: &[u8; 2]| i16::from_le_bytes(*bytes) as i32;
    let mantissa = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes) as i32;
    let output = |rounded: i32, bias: &[u8; 2]| {
        activation(rounded.saturating_add(value(bias) << bias_shift))
    };
    let (scales, biases) = (taps.scales.as_chunks::<2>().0, taps.biases.as_chunks::<2>().0);
    // The sum has fewer than 24 bits: the rounded high word of its product with 31 bits.
    if let 17..=32 = shift {
        let channel = |sum: i32, scale, bias| {
            output(high_product(sum, mantissa(scale) << (32 - shift)), bias)
        };
        // Two at a time: small cores spend as much on a loop as on an element.
        let (pairs, rest) = sums.as_chunks_mut::<2>();
        let ((scales, last_scales), (biases, last_biases)) =
            (scales.as_chunks::<2>(), biases.as_chunks::<2>());
        for ((sums, [s, t]), [a, b]) in pairs.iter_mut().zip(scales).zip(biases) {
            *sums = [channel(sums[0], s, a), channel(sums[1], t, b)];
        }
        for ((sum, scale), bias) in rest.iter_mut().zip(last_scales).zip(last_biases) {
            *sum = channel(*sum, scale, bias);
        }
    } else {
        for ((sum, scale), bias) in sums.iter_mut().zip(scales).zip(biases) {
            *sum = output(shift_round(*sum as i64 * mantissa(scale) as i64, shift), bias);
        }
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
            let positions = Positions {
                before: &codes[..(TAPS - 1) * CHANNELS],
                last: &codes[(TAPS - 1) * CHANNELS..],
                scales: positions_scales.clone().try_into().unwrap(),
            };
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
            convolve(&taps, positions, &mut outputs, |y| y);
            let scales = positions_scales.iter().map(|scale| scale.to_f32() as f64);
            let peak = scales.fold(0.0, f64::max);
            for (i, &output) in outputs.iter().enumerate() {
                let value = |j: usize| {
                    codes[j * CHANNELS + i] as f64 * positions_scales[j].to_f32() as f64 / 127.0
                };
                let sum: f64 = (0..TAPS).map(|j| exact(&taps, i, j) * value(j)).sum();
                let saturate = |x: f64| x.clamp(-2147483648.0, 2147483647.0);
                let expected = saturate(saturate(sum * 65536.0) + bias(&taps, i) as f64);
                let weights: f64 = (0..TAPS).map(|j| exact(&taps, i, j).abs()).sum();
                // Halves lose what is below a 4096th of the largest.
                let relative = if precision == Precision::Fp16 { 9e-4 } else { 2e-4 };
                let allowed = relative * weights * peak * 65536.0 + 1.0;
                prop_assert!((output as f64 - expected).abs() <= allowed, "{output} {expected}");
            }
        }
    }
}
