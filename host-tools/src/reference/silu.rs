//! SiLU, x·σ(x), the activation function of gated chains (Elfwing, Uchibe and Doya, 2018).

use crate::reference::real::Real;
use crate::reference::simd::simd;

/// The logistic function, without overflow.
#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    let magnitude = if x < T::ZERO { -x } else { x };
    let e = (-magnitude).exp();
    let inverse = T::ONE / (T::ONE + e);
    if x < T::ZERO { e * inverse } else { inverse }
}

/// x·σ(x).
#[inline(always)]
pub(super) fn silu<T: Real>(x: T) -> T {
    x * sigmoid(x)
}

/// SiLU and its derivative σ(x)·(1 + x·(1 − σ(x))).
#[inline(always)]
fn silu_with_derivative<T: Real>(x: T) -> (T, T) {
    let sigma = sigmoid(x);
    (x * sigma, sigma * (T::ONE + x * (T::ONE - sigma)))
}

/// y = SiLU(x).
pub(crate) fn forward<T: Real>(x: &[T], y: &mut [T]) {
    simd(
        #[inline(always)]
        || y.iter_mut().zip(x).for_each(|(y, &x)| *y = silu(x)),
    );
}

/// The adjoint of [`forward`]: turns gradients of y into those of x.
pub(crate) fn backward<T: Real>(x: &[T], gradient: &mut [T]) {
    simd(
        #[inline(always)]
        || gradient.iter_mut().zip(x).for_each(|(dx, &x)| *dx = *dx * silu_with_derivative(x).1),
    );
}

/// out = s ⊙ SiLU(z) `[rows, C]`; z are the last C numbers of each row of `projected` `[rows, 2C]`.
pub(crate) fn gate<T: Real>(s: &[T], (projected, c): (&[T], usize), out: &mut [T]) {
    let rows = s.chunks_exact(c).zip(projected.chunks_exact(2 * c)).zip(out.chunks_exact_mut(c));
    simd(
        #[inline(always)]
        || {
            for ((s, projected), out) in rows {
                for ((out, &s), &z) in out.iter_mut().zip(s).zip(&projected[c..]) {
                    *out = s * silu(z);
                }
            }
        },
    );
}

/// The adjoint of [`gate`]: writes the gradients of s to `ds` and those of z to the last C numbers
/// of each row of `d_projected`.
pub(crate) fn gate_backward<T: Real>(
    (s, projected, c): (&[T], &[T], usize),
    d_out: &[T],
    (ds, d_projected): (&mut [T], &mut [T]),
) {
    let rows = s.chunks_exact(c).zip(projected.chunks_exact(2 * c)).zip(d_out.chunks_exact(c));
    let gradients = ds.chunks_exact_mut(c).zip(d_projected.chunks_exact_mut(2 * c));
    simd(
        #[inline(always)]
        || {
            for (((s, projected), d_out), (ds, dz)) in rows.zip(gradients) {
                let (z, dz) = (&projected[c..][..c], &mut dz[c..][..c]);
                for i in 0..c {
                    let (value, slope) = silu_with_derivative(z[i]);
                    ds[i] = d_out[i] * value;
                    dz[i] = d_out[i] * s[i] * slope;
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_and_derivative_match_the_definition() {
        for i in -400..=400 {
            let x = f64::from(i) * 0.05;
            let exact = |x: f64| x / (1.0 + (-x).exp());
            let (value, slope) = silu_with_derivative(x);
            assert!((value - exact(x)).abs() < 1e-14 && (silu(x) - exact(x)).abs() < 1e-14);
            let numeric = (exact(x + 1e-5) - exact(x - 1e-5)) / 2e-5;
            assert!((slope - numeric).abs() < 1e-8, "{x}: {slope} against {numeric}");
            assert!((f64::from(silu(x as f32)) - exact(x)).abs() < 1e-5);
        }
        assert!(silu(-1e4f32).abs() < 1e-30);
        assert_eq!(silu(1e4f32), 1e4);
    }
}
