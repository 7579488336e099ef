//! The BK-core in fixed point: diagonal of the resolvent of a tridiagonal chain.
//!
//! With α_t = diagonal + v_t − iη and off-diagonal product β (`docs/numerics.md`, section 7; the
//! determinant recursion of Arai, ResNet-BK, 2025, overflows instead):
//!
//! ```text
//! L_t = α_t − β / L_{t−1}        R_t = α_t − β / R_{t+1}
//! half chain: G_t = 1 / L_t      full chain: G_t = 1 / (L_t + R_t − α_t)
//! ```
//!
//! Im(−β/L) = β·Im(L)/|L|² has the sign of Im L, so Im L_t ≤ −η by induction: |L_t| ≥ η, |1/L_t| ≤
//! 1/η and |L_t| ≤ |α| + β/η for all potentials. [`ChainFormat::admits`] derives from this that
//! every number of the recursion fits 31 bits.

use super::memory;
use crate::blob::{
    CODE_PER_POTENTIAL, ChainFormat, ChainParameters, FEATURE_LIMIT, POTENTIAL_LIMIT,
};
use crate::kernels;
use crate::numeric::{RESIDUAL_FRAC, reciprocal_mantissa, saturate};

/// A complex number in the chain's fixed-point format.
#[derive(Clone, Copy, Default)]
pub(crate) struct Complex {
    re: i32,
    im: i32,
}

impl ChainFormat {
    /// Real part of α: the diagonal plus the potential `v` (Q15.16), clamped to ±3 and, if the
    /// format has INT8 potentials, rounded to them.
    #[inline(always)]
    #[doc(hidden)]
    pub fn alpha(&self, diagonal: i32, v: i32) -> i32 {
        let v = v.clamp(-POTENTIAL_LIMIT, POTENTIAL_LIMIT);
        let potential = if self.int8 {
            let code = (v as i64 * CODE_PER_POTENTIAL + (1 << 31)) >> 32;
            code as i32 * self.code_step()
        } else if self.frac >= RESIDUAL_FRAC {
            v << (self.frac - RESIDUAL_FRAC)
        } else {
            v >> (RESIDUAL_FRAC - self.frac)
        };
        diagonal + potential
    }

    /// One step of either recursion: α − β·g, where g is the neighbour's 1/L or 1/R, zero at the
    /// chain's end.
    #[inline(always)]
    pub(crate) fn advance(&self, alpha_re: i32, eta: i32, neighbour: Complex) -> Complex {
        if self.off_diagonal == 1 << 16 {
            return Complex {
                re: alpha_re.saturating_sub(neighbour.re),
                im: (-eta).saturating_sub(neighbour.im),
            };
        }
        let back = |part: i32| (part as i64 * self.off_diagonal as i64) >> 16;
        Complex {
            re: saturate(alpha_re as i64 - back(neighbour.re)),
            im: saturate(-(eta as i64) - back(neighbour.im)),
        }
    }

    /// 1/(re + i·im), each part rounded towards −∞ from a 32-bit reciprocal of |L|².
    ///
    /// Inputs are in the chain's format, below 2^31 in magnitude, with im ≤ −2^(F−14): the square
    /// then fits 63 bits and so does each product with the reciprocal.
    #[inline(always)]
    pub(crate) fn invert(&self, re: i32, im: i32) -> Complex {
        let square = |part: i32| (part as i64 * part as i64) as u64;
        let square = (square(re) + square(im)).max(1);
        let zeros = square.leading_zeros();
        let mantissa = ((square << zeros) >> 32) as u32;
        let reciprocal = reciprocal_mantissa(mantissa) as i32;
        // 1/|L|² = reciprocal · 2^(zeros − 95 + 2F); one more F from L itself.
        let shift = (95 - zeros).saturating_sub(2 * self.frac).clamp(1, 63);
        // The reciprocal is at least 2^31: interpreted as signed it is 2^32 too small.
        let product = |part: i32| (part as i64 * reciprocal as i64) + ((part as i64) << 32);
        let part = |product: i64| match shift {
            32.. => ((product >> 32) as i32) >> (shift - 32),
            _ => saturate(product >> shift),
        };
        Complex { re: part(product(re)), im: part(product(im.wrapping_neg())) }
    }

    /// A component of G as a feature: Q15.16, clamped to ±10.
    #[inline(always)]
    pub(crate) fn feature(&self, part: i32) -> i32 {
        let value = if self.frac > RESIDUAL_FRAC {
            // Rounded to nearest; an admitted 1/L is below 2^30.
            ((part >> (self.frac - RESIDUAL_FRAC - 1)) + 1) >> 1
        } else {
            saturate((part as i64) << (RESIDUAL_FRAC - self.frac))
        };
        value.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
    }
}

/// One position of a half chain, for all potentials.
///
/// Shapes: `potentials` is `[K]` in Q15.16, `state` is `[2K]` (1/L of the previous position: real
/// parts, then imaginary parts; zeros before the first), `features` is `[2K]` (Re G, then Im G).
#[inline(always)]
pub fn half_step(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    features: &mut [i32],
) {
    if !kernels::half_step(format, parameters, potentials, state, features) {
        half_step_portably(format, parameters, potentials, state, features);
    }
}

/// Portable [`half_step`].
#[inline(always)]
fn half_step_portably(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    features: &mut [i32],
) {
    let (feature_re, feature_im) = features.split_at_mut(potentials.len());
    let mut features = feature_re.iter_mut().zip(feature_im);
    half_recursion(format, parameters, potentials, state, &mut |g| {
        if let Some((re, im)) = features.next() {
            (*re, *im) = (format.feature(g.re), format.feature(g.im));
        }
    });
}

/// One position of a half chain whose potentials become gates: η / (η + Im G) with 31 fraction
/// bits.
///
/// Shapes: `potentials` is `[K]`, in Q15.16 before and gates after, `state` is `[2K]` as in
/// [`half_step`].
#[inline(always)]
pub fn half_gates(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &mut [i32],
    state: &mut [i32],
) {
    let count = potentials.len();
    half_recursion(format, parameters, potentials, state, &mut |_| {});
    let gates = potentials.iter_mut().zip(parameters.iter()).zip(&state[count..]);
    for ((gate, (_, eta)), &imaginary) in gates {
        *gate = memory::gate(eta, imaginary);
    }
}

/// The recursion of [`half_step`]; calls `each` with every potential's G.
// Outlined on devices, for one copy.
#[cfg_attr(feature = "std", inline(always))]
#[cfg_attr(not(feature = "std"), inline(never))]
fn half_recursion(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    each: &mut dyn FnMut(Complex),
) {
    let (state_re, state_im) = state.split_at_mut(potentials.len());
    let states = state_re.iter_mut().zip(state_im);
    let all = parameters.iter().zip(potentials).zip(states);
    for (((diagonal, eta), &v), (state_re, state_im)) in all {
        let alpha = format.alpha(diagonal, v);
        let before = Complex { re: *state_re, im: *state_im };
        let l = format.advance(alpha, eta, before);
        let g = format.invert(l.re, l.im);
        (*state_re, *state_im) = (g.re, g.im);
        each(g);
    }
}

/// A window of a full chain, for all potentials.
///
/// Shapes, with N positions and K potentials: `potentials` is `[N, K]` in Q15.16, `left` is `[2N]`
/// scratch, `features` is `[N, 2K]` (per position Re G, then Im G).
#[inline(always)]
pub fn full_chain(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    left: &mut [i32],
    features: &mut [i32],
) {
    let positions = left.len() / 2;
    let count = potentials.len().checked_div(positions).unwrap_or(0);
    for k in 0..count {
        full_chain_of(format, parameters.get(k), k, potentials, left, features);
    }
}

#[inline(always)]
fn full_chain_of(
    format: ChainFormat,
    (diagonal, eta): (i32, i32),
    k: usize,
    potentials: &[i32],
    left: &mut [i32],
    features: &mut [i32],
) {
    let positions = left.len() / 2;
    let count = potentials.len() / positions;
    let mut before = Complex::default();
    for t in 0..positions {
        let alpha = format.alpha(diagonal, potentials[t * count + k]);
        let l = format.advance(alpha, eta, before);
        (left[2 * t], left[2 * t + 1]) = (l.re, l.im);
        before = format.invert(l.re, l.im);
    }
    let mut after = Complex::default();
    for t in (0..positions).rev() {
        let alpha = format.alpha(diagonal, potentials[t * count + k]);
        let r = format.advance(alpha, eta, after);
        let re = left[2 * t] as i64 + r.re as i64 - alpha as i64;
        let im = left[2 * t + 1] as i64 + r.im as i64 + eta as i64;
        // Never saturates for an admitted chain: see `ChainFormat::admits`.
        let g = format.invert(saturate(re), saturate(im));
        features[t * 2 * count + k] = format.feature(g.re);
        features[t * 2 * count + count + k] = format.feature(g.im);
        after = format.invert(r.re, r.im);
    }
}

#[cfg(test)]
#[path = "bk_tests.rs"]
mod tests;
