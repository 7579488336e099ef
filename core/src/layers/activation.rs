//! Dynamic activation quantization: Q15.16 vectors to codes with one scale, with or without layer
//! normalization.
//!
//! With s the shift that leaves 15 bits of the largest magnitude A, a code is
//! `round((x >> s) · r / 2^22)` with `r = ⌊(max_code << 22) / (A >> s)⌋`: one 32-bit
//! multiplication per element. For layer normalization, x and A are relative to the mean; the
//! standard deviation cancels in the codes and enters only the scale.

use crate::kernels;
use crate::kernels::codes::{Code, code, write_with};
use crate::numeric::Scale;

/// Layer normalization fused with quantization to codes in ±127. Gain and bias are folded into the
/// linear layers that follow. Returns the value of code 127.
///
/// Shapes: `x` and `codes` are `[d]`. `eps` is 1e-5, as in the published model.
#[inline(always)]
pub fn normalize(x: &[i32], codes: &mut [i16]) -> Scale {
    let width = x.len().max(1);
    let sum = sum(x);
    // The mean is within the range of its terms.
    let mean = floor_div(sum + width as i64 / 2, width) as i32;
    let (low, high) = range(x);
    let peak = (high as i64 - mean as i64).max(mean as i64 - low as i64).max(0);
    if peak == 0 {
        codes.fill(0);
        return Scale::ZERO;
    }
    let grid = Grid::new(peak.min(i32::MAX as i64) as u32, 127);
    // If a difference saturates, the shift is 16 and drops the error of one.
    let squares = kernels::codes::write_centered(x, mean, grid.shift, grid.reciprocal, codes);
    // Variance with 48 fraction bits less twice the shift; 1e-5 · 2^48 is 2,814,749,767.
    let variance = floor_div(squares << 16, width) as u64;
    let variance = variance + (2_814_749_767 >> (2 * grid.shift));
    // σ has 24 fraction bits less the shift, the peak 16 less the shift.
    Scale::ratio((grid.peak as u64) << 8, root(variance))
}

/// Sum of all elements.
#[inline(always)]
fn sum(x: &[i32]) -> i64 {
    if cfg!(feature = "std") {
        return x.iter().map(|&x| x as i64).sum();
    }
    // Four at a time: see `write_with`.
    let (fours, rest) = x.as_chunks::<4>();
    let start = rest.iter().fold(0, |sum, &x| sum + x as i64);
    fours.iter().fold(start, |sum, &[a, b, c, d]| sum + a as i64 + b as i64 + c as i64 + d as i64)
}

/// Floor of the square root of a number below 2^52. The f64 square root of hosts is exact after
/// truncation: for k ≤ 2^26, √(k² − 1) is at least 2^−27 below k, and f64 resolves 2^−27 there.
#[inline(always)]
fn root(variance: u64) -> u32 {
    #[cfg(feature = "std")]
    return (variance as f64).sqrt() as u32;
    #[cfg(not(feature = "std"))]
    return variance.isqrt() as u32;
}

/// Quantizes a vector to codes in ±127. Returns the value of code 127.
///
/// Shapes: `x` and `codes` are `[n]`.
// Outlined on devices, for one copy.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
pub fn quantize(x: &[i32], codes: &mut [i16]) -> Scale {
    fill(x, codes, peak(x))
}

/// [`quantize`] to bytes.
// Outlined on devices, for one copy.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
pub fn quantize_narrow(x: &[i32], codes: &mut [i8]) -> Scale {
    fill(x, codes, peak(x))
}

/// ReLU fused with quantization to codes in 0 to 255. Returns the value of code 255.
///
/// Shapes: `x` and `codes` are `[n]`.
#[inline(always)]
pub fn quantize_relu(x: &[i32], codes: &mut [i16]) -> Scale {
    let peak = x.iter().fold(0, |peak, &x| peak.max(x)) as u32;
    if peak == 0 {
        codes.fill(0);
        return Scale::ZERO;
    }
    let grid = Grid::new(peak, 255);
    write_with(x, codes, |x| grid.code(x.max(0) >> grid.shift));
    grid.scale()
}

/// The largest magnitude, at most 2^31 − 1: that of −2^31 has its low bits shifted out in codes,
/// and with them the difference.
#[inline(always)]
fn peak(x: &[i32]) -> u32 {
    if cfg!(feature = "std") {
        x.iter().fold(0, |peak, &x| peak.max(magnitude(x)))
    } else {
        peak_by_widening(x)
    }
}

/// The smallest and the largest element; zeros for an empty slice.
#[inline(always)]
fn range(x: &[i32]) -> (i32, i32) {
    if cfg!(feature = "std") {
        let first = x.first().copied().unwrap_or(0);
        x.iter().fold((first, first), |(low, high), &x| (low.min(x), high.max(x)))
    } else {
        range_by_widening(x)
    }
}

#[inline(always)]
fn magnitude(x: i32) -> u32 {
    x.unsigned_abs().min(i32::MAX as u32)
}

/// [`peak`] where comparisons take their time.
#[inline(always)]
fn peak_by_widening(x: &[i32]) -> u32 {
    let around = |peak: u32| Range { low: -(peak as i32), span: 2 * peak };
    widened(around(0), x, |_, x| around(magnitude(x))).span / 2
}

/// [`range`] where comparisons take their time.
#[inline(always)]
fn range_by_widening(x: &[i32]) -> (i32, i32) {
    let wider = |range: Range, x: i32| match x < range.low {
        true => Range { low: x, span: range.high().wrapping_sub(x) as u32 },
        false => Range { span: x.wrapping_sub(range.low) as u32, ..range },
    };
    let first = x.first().copied().unwrap_or(0);
    let range = widened(Range { low: first, span: 0 }, x, wider);
    (range.low, range.high())
}

/// The integers from `low` to `low + span`.
#[derive(Clone, Copy)]
struct Range {
    low: i32,
    span: u32,
}

impl Range {
    fn high(self) -> i32 {
        self.low.wrapping_add_unsigned(self.span)
    }
}

/// The range after all elements, each of which that is outside makes it `wider`. Few elements of a
/// vector are outside the range of those before them, and one unsigned comparison finds them.
#[inline(always)]
fn widened(mut range: Range, x: &[i32], wider: impl Fn(Range, i32) -> Range) -> Range {
    let mut include = |x: i32| {
        if x.wrapping_sub(range.low) as u32 > range.span {
            range = seldom(|| wider(range, x));
        }
    };
    let (fours, rest) = x.as_chunks::<4>();
    rest.iter().for_each(|&x| include(x));
    for &[a, b, c, d] in fours {
        include(a);
        include(b);
        include(c);
        include(d);
    }
    range
}

/// Calls `f`, out of the way of what is done often.
#[cold]
#[inline(never)]
fn seldom<T>(f: impl FnOnce() -> T) -> T {
    f()
}

/// ⌊value / width⌋, by a shift for powers of two: 64-bit divisions are slow on small cores.
#[inline(always)]
fn floor_div(value: i64, width: usize) -> i64 {
    if width.is_power_of_two() {
        value >> width.trailing_zeros()
    } else {
        value.div_euclid(width as i64)
    }
}

/// Codes in ±127 of a vector whose largest magnitude is `peak`. Returns the value of code 127.
#[inline(always)]
fn fill<C: Code>(x: &[i32], codes: &mut [C], peak: u32) -> Scale {
    if peak == 0 {
        codes.fill(C::new(0));
        return Scale::ZERO;
    }
    let grid = Grid::new(peak, 127);
    kernels::codes::write(x, grid.shift, grid.reciprocal, codes);
    grid.scale()
}

/// The quantization grid for a largest magnitude.
struct Grid {
    /// Right shift of every element.
    shift: u32,
    /// The largest magnitude after the shift, below 2^15.
    peak: u32,
    /// `⌊(max_code << 22) / peak⌋`.
    reciprocal: u32,
}

impl Grid {
    /// `peak` is not 0 and at most `i32::MAX`.
    #[inline(always)]
    fn new(peak: u32, max_code: u32) -> Self {
        let shift = 17u32.saturating_sub(peak.leading_zeros());
        let peak = (peak >> shift).max(1);
        Self { shift, peak, reciprocal: (max_code << 22) / peak }
    }

    /// `scaled · reciprocal` is at most `max_code << 22` in magnitude, below 2^30.
    #[inline(always)]
    fn code(&self, scaled: i32) -> i16 {
        code(scaled, self.reciprocal)
    }

    /// The value of the largest code, of elements in Q15.16.
    #[inline(always)]
    fn scale(&self) -> Scale {
        Scale { mantissa: self.peak as u16, exponent: self.shift as i8 - 16 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    fn vectors() -> impl Strategy<Value = Vec<i32>> {
        let element = prop_oneof![
            8 => -(1i32 << 20)..(1 << 20),
            1 => any::<i32>(),
            1 => prop::sample::select(vec![i32::MIN, i32::MAX, 0, 1, -1]),
        ];
        prop::collection::vec(element, 1..300)
    }

    /// The error bound of `docs/numerics.md` for normalization, for an element `y` of a vector with
    /// largest magnitude `peak`, both normalized.
    fn allowed(y: f64, peak: f64, sigma: f64, width: usize) -> f64 {
        let step = peak / 127.0 * (0.5 + (-7f64).exp2() + 127.0 / 16384.0);
        let scale = ((width as f64).sqrt() + 2.0) / 16384.0;
        (step + y.abs() * scale) * (1.0 + scale) + 1.0 / 65536.0 / sigma
    }

    #[test]
    fn a_constant_vector_normalizes_to_zero() {
        for value in [0, 1, -7, i32::MIN, i32::MAX] {
            let mut codes = [1; 9];
            assert_eq!(normalize(&[value; 9], &mut codes), Scale::ZERO);
            assert_eq!(codes, [0; 9]);
            let mut codes = [1; 9];
            let expected = if value == 0 { 0 } else { 127 * value.signum() as i16 };
            quantize(&[value; 9], &mut codes);
            assert_eq!(codes, [expected; 9]);
        }
    }

    #[test]
    fn roots_are_floors() {
        for k in (1..1 << 24).step_by(997).chain((1 << 24) - 99..1 << 24) {
            for variance in [k * k - 1, k * k, k * k + 1] {
                assert_eq!(root(variance) as u64, variance.isqrt(), "{variance}");
            }
        }
    }

    /// Codes are invariant to a gain and an offset of the whole vector: only the scale depends on
    /// σ.
    #[test]
    fn codes_do_not_depend_on_sigma() {
        let x: Vec<i32> = (0..64).map(|i| (i * 7919 % 128 - 64) << 9).collect();
        let mut expected = vec![0; 64];
        let scale = normalize(&x, &mut expected);
        for (gain, offset) in [(1, 1 << 20), (16, -12345), (4096, 0)] {
            let moved: Vec<i32> = x.iter().map(|x| x * gain + offset).collect();
            let mut codes = vec![0; 64];
            let moved = normalize(&moved, &mut codes);
            assert_eq!(codes, expected);
            let ratio = moved.to_f32() / scale.to_f32();
            assert!((ratio - 1.0).abs() < 2e-3, "{ratio}");
        }
    }

    proptest! {
        #[test]
        fn widening_finds_the_same(x in vectors(), drop in 0u32..28) {
            let x: Vec<i32> = x.iter().map(|x| x >> drop).collect();
            prop_assert_eq!(peak_by_widening(&x), peak(&x));
            prop_assert_eq!(range_by_widening(&x), range(&x));
        }

        /// The full range of residuals, saturation included.
        #[test]
        fn normalize_is_layer_norm_everywhere(x in vectors(), drop in 0u32..28) {
            let x: Vec<i32> = x.iter().map(|x| x >> drop).collect();
            let mut codes = vec![0; x.len()];
            let scale = normalize(&x, &mut codes).to_f32() as f64;
            let values: Vec<f64> = x.iter().map(|&x| x as f64 / 65536.0).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let squares = values.iter().map(|v| (v - mean).powi(2));
            let sigma = (squares.sum::<f64>() / values.len() as f64 + 1e-5).sqrt();
            let peak = values.iter().map(|v| (v - mean).abs()).fold(0.0, f64::max);
            // Deviations from the mean saturate at 32768.
            let saturated = peak >= 32767.0;
            for (v, &code) in values.iter().zip(&codes) {
                prop_assert!((-127..=127).contains(&code));
                let y = (v - mean) / sigma;
                let error = (y - code as f64 / 127.0 * scale).abs();
                let allowed = allowed(y, peak / sigma, sigma, x.len());
                prop_assert!(saturated || error <= allowed, "{} is beyond {}", error, allowed);
            }
        }

        #[test]
        fn codes_times_scale_is_the_vector(x in vectors()) {
            let mut codes = vec![0; x.len()];
            let scale = quantize(&x, &mut codes).to_f32() as f64;
            let peak = x.iter().map(|x| x.unsigned_abs()).max().unwrap() as f64 / 65536.0;
            for (&x, &code) in x.iter().zip(&codes) {
                prop_assert!((-127..=127).contains(&code));
                let error = (x as f64 / 65536.0 - code as f64 / 127.0 * scale).abs();
                // Half a step, the dropped bits and the truncated peak.
                prop_assert!(error <= peak / 127.0 * 0.52 + 1.0 / 65536.0, "{} {}", x, error);
            }
        }

        #[test]
        fn relu_codes_times_scale_is_the_vector(x in vectors()) {
            let mut codes = vec![0; x.len()];
            let scale = quantize_relu(&x, &mut codes).to_f32() as f64;
            let peak = x.iter().map(|&x| x.max(0)).max().unwrap() as f64 / 65536.0;
            for (&x, &code) in x.iter().zip(&codes) {
                prop_assert!((0..=255).contains(&code));
                let error = (x.max(0) as f64 / 65536.0 - code as f64 / 255.0 * scale).abs();
                prop_assert!(error <= peak / 255.0 * 0.53 + 1.0 / 65536.0, "{} {}", x, error);
            }
        }

        #[test]
        fn normalize_is_layer_norm(x in prop::collection::vec(-(1i32 << 22)..(1 << 22), 2..300)) {
            let mut codes = vec![0; x.len()];
            let scale = normalize(&x, &mut codes).to_f32() as f64;
            let values: Vec<f64> = x.iter().map(|&x| x as f64 / 65536.0).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance =
                values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            let sigma = (variance + 1e-5).sqrt();
            let peak = values.iter().map(|v| (v - mean).abs()).fold(0.0, f64::max) / sigma;
            for (v, &code) in values.iter().zip(&codes) {
                prop_assert!((-127..=127).contains(&code));
                let error = ((v - mean) / sigma - code as f64 / 127.0 * scale).abs();
                prop_assert!(error <= peak / 127.0 * 0.53 + 1e-3, "{} {}", v, error);
            }
        }
    }
}
