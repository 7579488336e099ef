//! The number type of the reference: `f32` for training and evaluation, `f64` for checking
//! gradients against finite differences.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub, SubAssign};

/// A floating-point number.
pub trait Real:
    Copy
    + Default
    + PartialOrd
    + Send
    + Sync
    + std::fmt::Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + Sum
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Rounds to the nearest number of this type.
    fn of(value: f64) -> Self;
    /// Converts to `f64`, exactly.
    fn to_f64(self) -> f64;
    /// e^x for x ≤ 0 or moderately positive.
    fn exp(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The nearest integer, for magnitudes below 2^22.
    fn round(self) -> Self;

    /// Clips to ±`bound`.
    #[inline(always)]
    fn clip(self, bound: Self) -> Self {
        let low = if self < -bound { -bound } else { self };
        if low > bound { bound } else { low }
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    fn of(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    fn round(self) -> Self {
        self.round_ties_even()
    }
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    fn of(value: f64) -> Self {
        value as Self
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    /// A branch-free polynomial without table look-ups, which the compiler vectorizes: otherwise
    /// the softmax over the vocabulary would cost as much as a linear layer. Relative error below
    /// 2.4e-7 (2 ulp); arguments are clamped to ±87.
    #[inline(always)]
    fn exp(self) -> Self {
        let x = self.clip(87.0);
        let shifted = x * std::f32::consts::LOG2_E + ROUND;
        let n = shifted - ROUND;
        // ln 2 in two parts; the first has few bits, so that n · high is exact.
        let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
        let p = 1.0 / 720.0 + r * (1.0 / 5040.0);
        let p = 1.0 / 120.0 + r * p;
        let p = 1.0 / 24.0 + r * p;
        let p = 1.0 / 6.0 + r * p;
        let p = 0.5 + r * p;
        let p = 1.0 + r * (1.0 + r * p);
        // The low bits of `shifted` are n: shift them into the exponent.
        p * Self::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000))
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    /// By two additions, which vectorize; baseline x86-64 would need a library call.
    #[inline(always)]
    fn round(self) -> Self {
        (self + ROUND) - ROUND
    }
}

/// 1.5 · 2^23: adding it rounds to an integer.
const ROUND: f32 = 12_582_912.0;

/// Partial sums of a reduction. Floating-point addition is not associative, so the compiler cannot
/// split a sum over SIMD lanes by itself.
const LANES: usize = 16;

/// Σ aᵢ·bᵢ.
#[inline]
pub(crate) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] += x[i] * y[i];
        }
    }
    lanes.into_iter().sum::<T>() + a_rest.iter().zip(b_rest).map(|(&x, &y)| x * y).sum::<T>()
}

/// Σ aᵢ·bᵢ for four b, each the same bits as [`dot`]: `a` is read once, and four sums do not wait
/// for one another.
#[inline(always)]
pub(crate) fn dot_four<T: Real>(a: &[T], b: [&[T]; 4]) -> [T; 4] {
    let [mut p, mut q, mut r, mut s] = [[T::ZERO; LANES]; 4];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let [(b, b_rest), (c, c_rest), (d, d_rest), (e, e_rest)] = b.map(|b| b.as_chunks::<LANES>());
    for ((a, (b, c)), (d, e)) in a_chunks.iter().zip(b.iter().zip(c)).zip(d.iter().zip(e)) {
        for i in 0..LANES {
            p[i] += a[i] * b[i];
            q[i] += a[i] * c[i];
            r[i] += a[i] * d[i];
            s[i] += a[i] * e[i];
        }
    }
    let rest = |b: &[T]| a_rest.iter().zip(b).map(|(&x, &y)| x * y).sum::<T>();
    let of = |lanes: [T; LANES], b| lanes.into_iter().sum::<T>() + rest(b);
    [of(p, b_rest), of(q, c_rest), of(r, d_rest), of(s, e_rest)]
}

/// Σ aᵢ.
#[inline]
pub(crate) fn sum<T: Real>(a: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (chunks, rest) = a.as_chunks::<LANES>();
    for x in chunks {
        for i in 0..LANES {
            lanes[i] += x[i];
        }
    }
    lanes.into_iter().sum::<T>() + rest.iter().copied().sum::<T>()
}

/// The largest element; `a` is not empty.
#[inline]
pub(crate) fn maximum<T: Real>(a: &[T]) -> T {
    // In lanes, like reductions: a running maximum would be a sequential dependency.
    let mut lanes = [a[0]; 16];
    let (chunks, rest) = a.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(rest).fold(a[0], |a, &b| if b > a { b } else { a })
}

/// y += x.
#[inline]
pub(crate) fn add_to<T: Real>(y: &mut [T], x: &[T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

/// y += scale · x.
#[inline]
pub(crate) fn add_scaled<T: Real>(y: &mut [T], scale: T, x: &[T]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// Resizes `buffer`, with unspecified content. Reusing the allocation avoids page faults in every
/// training step.
pub(crate) fn size<T: Real>(buffer: &mut Vec<T>, length: usize) {
    if buffer.len() != length {
        buffer.clear();
        buffer.resize(length, T::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_to_two_ulps() {
        let mut worst = 0.0f64;
        for i in -86_000..86_000 {
            let x = i as f32 * 1e-3;
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(Real::exp(x)) - exact).abs() / exact);
        }
        assert!(worst < 2.4e-7, "{worst:e}");
        assert_eq!(Real::exp(0.0f32), 1.0);
        assert!(Real::exp(f32::NEG_INFINITY) < 1e-37);
        assert!(Real::exp(f32::NAN).is_nan());
    }

    #[test]
    fn reductions_cover_every_element() {
        for n in 0..40 {
            let a: Vec<f64> = (0..n).map(f64::from).collect();
            assert_eq!(sum(&a), a.iter().sum::<f64>());
            assert_eq!(dot(&a, &a), a.iter().map(|x| x * x).sum::<f64>());
        }
    }
}
