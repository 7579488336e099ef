//! Fake quantization: rounds activations as the integer path does, for quantization-aware
//! fine-tuning.
//!
//! Inputs of linear layers are rounded to ±127 steps of their largest magnitude, or to 255 steps
//! after a ReLU; the residual stream is fine enough to ignore. Backward passes use the
//! straight-through estimator.

use crate::reference::bounds::POTENTIAL_BOUND;
use crate::reference::real::Real;

/// Activations to round besides the inputs of linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FakeQuant {
    /// Whether to round potentials to ±127 steps.
    pub potentials_int8: bool,
}

impl FakeQuant {
    /// Rounds clamped potentials, if enabled.
    pub(crate) fn potentials<T: Real>(self, v: &mut [T]) {
        if self.potentials_int8 {
            round_to(v, T::of(POTENTIAL_BOUND), 127);
        }
    }
}

/// Rounds each row of `x` `[rows, width]` to `steps` steps of its largest magnitude.
pub(crate) fn round_rows<T: Real>(x: &mut [T], width: usize, steps: u32) {
    for row in x.chunks_exact_mut(width) {
        let peak = largest_magnitude(row);
        if peak > T::ZERO {
            round_to(row, peak, steps);
        }
    }
}

/// Rounds to integer multiples of `peak / steps`.
#[inline(always)]
fn round_to<T: Real>(x: &mut [T], peak: T, steps: u32) {
    let steps = T::of(f64::from(steps));
    let (per_step, step) = (steps / peak, peak / steps);
    for x in x {
        *x = (*x * per_step).round() * step;
    }
}

/// Computed in lanes, like reductions: a running maximum would be a sequential dependency.
fn largest_magnitude<T: Real>(row: &[T]) -> T {
    let larger = |a: T, x: T| {
        let x = if x < T::ZERO { -x } else { x };
        if x > a { x } else { a }
    };
    let mut lanes = [T::ZERO; 16];
    let (chunks, rest) = row.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] = larger(lanes[i], chunk[i]);
        }
    }
    lanes.iter().chain(rest).fold(T::ZERO, |a, &x| larger(a, x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use resnet_bk_core::internals::activation::{quantize, quantize_relu};

    /// Matches the core's codes of the same vectors, up to the core's own error bound.
    #[test]
    fn rounding_is_that_of_the_integer_path() {
        for scale in [0.01f32, 1.0, 300.0] {
            let wave = |i: i32| ((i as f32 * 1.7).sin() * scale * 65536.0) as i32;
            let fixed: Vec<i32> = (0..96).map(wave).collect();
            let x: Vec<f32> = fixed.iter().map(|&x| x as f32 / 65536.0).collect();
            for (steps, relu) in [(127, false), (255, true)] {
                let mut rounded = x.clone();
                if relu {
                    rounded.iter_mut().for_each(|x| *x = x.max(0.0));
                }
                let exact = rounded.clone();
                round_rows(&mut rounded, 48, steps);
                for (row, (rounded, exact)) in
                    fixed.chunks(48).zip(rounded.chunks(48).zip(exact.chunks(48)))
                {
                    let mut codes = vec![0; 48];
                    let core = if relu { quantize_relu } else { quantize };
                    let worth = core(row, &mut codes).to_f32() / steps as f32;
                    let differing = codes
                        .iter()
                        .zip(rounded)
                        .filter(|&(&code, x)| (f32::from(code) * worth - x).abs() > worth / 2.0)
                        .count();
                    assert!(differing <= 1, "{differing} codes of {scale} differ");
                    let off = rounded.iter().zip(exact).map(|(a, b)| (a - b).abs());
                    assert!(off.fold(0.0, f32::max) <= worth * 0.501);
                }
            }
        }
        let mut zeros = [0.0f64; 4];
        round_rows(&mut zeros, 4, 127);
        assert_eq!(zeros, [0.0; 4]);
    }

    #[test]
    fn potentials_are_rounded_only_where_asked() {
        let exact = [3.0, -1.0, 0.011, 0.012];
        let mut v = exact;
        FakeQuant { potentials_int8: false }.potentials(&mut v);
        assert_eq!(v, exact);
        FakeQuant { potentials_int8: true }.potentials(&mut v);
        let expected = [127.0, -42.0, 0.0, 1.0].map(|code: f64| code * 3.0 / 127.0);
        assert!(v.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{v:?}");
    }
}
