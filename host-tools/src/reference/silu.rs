//! SiLU, x·σ(x), the activation function of gated chains (Elfwing, Uchibe and Doya, 2018).

use crate::reference::real::Real;

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
pub(crate) fn silu<T: Real>(x: T) -> T {
    x * sigmoid(x)
}

/// SiLU and its derivative σ(x)·(1 + x·(1 − σ(x))).
#[inline(always)]
pub(crate) fn silu_with_derivative<T: Real>(x: T) -> (T, T) {
    let sigma = sigmoid(x);
    (x * sigma, sigma * (T::ONE + x * (T::ONE - sigma)))
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
