//! The BK-core in fixed point: diagonal of the resolvent of a tridiagonal chain.
//!
//! With α_t = diagonal + v_t − iη and off-diagonal product β (section 3 of the design; Arai,
//! ResNet-BK, 2025, whose determinant recursion overflows instead):
//!
//! ```text
//! L_t = α_t − β / L_{t−1}        R_t = α_t − β / R_{t+1}
//! half chain: G_t = 1 / L_t      full chain: G_t = 1 / (L_t + R_t − α_t)
//! ```
//!
//! Im(−β/L) = β·Im(L)/|L|² has the sign of Im L, so Im L_t ≤ −η by induction: |L_t| ≥ η, |1/L_t| ≤ 1/η
//! and |L_t| ≤ |α| + β/η, whatever the potentials are. [`ChainFormat::admits`] turns that into the
//! statement that no number of the recursion leaves 31 bits.

use crate::error::Error;
use crate::numeric::{RESIDUAL_FRAC, reciprocal_mantissa, saturate};

/// A complex number in the chain's fixed-point format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Complex {
    /// Real part.
    pub re: i32,
    /// Imaginary part.
    pub im: i32,
}

/// Largest magnitude of a potential, Q15.16.
pub(crate) const POTENTIAL_LIMIT: i32 = 3 << RESIDUAL_FRAC;
/// Largest magnitude of a component of G as a feature, Q15.16.
pub(crate) const FEATURE_LIMIT: i32 = 10 << RESIDUAL_FRAC;
/// 127 / 3 with 16 fraction bits: Q15.16 potential to code, by the high word of a product.
pub(crate) const CODE_PER_POTENTIAL: i64 = 2_774_357;

/// The number format of a chain and its off-diagonal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainFormat {
    /// Fraction bits F of diagonals, η and 1/L.
    pub frac: u32,
    /// Off-diagonal product β, Q16.16, within [`ChainFormat::OFF_DIAGONALS`].
    pub off_diagonal: u32,
    /// Whether potentials are rounded to 127 steps on either side of zero.
    pub int8: bool,
}

impl ChainFormat {
    /// Fraction bits that a blob may ask for.
    pub const FRACTIONS: core::ops::RangeInclusive<u8> = 12..=28;
    /// Off-diagonal products that a blob may ask for: β below 32,768, so that it is the same number
    /// to processors that multiply 32 bits with a sign and to those that multiply them without.
    pub const OFF_DIAGONALS: core::ops::RangeInclusive<u32> = 0..=i32::MAX as u32;

    /// Checks what all potentials share.
    ///
    /// # Errors
    ///
    /// [`Error::ChainSection`] for fraction bits beyond [`Self::FRACTIONS`], [`Error::OffDiagonal`]
    /// for a β beyond [`Self::OFF_DIAGONALS`].
    pub fn validate(&self) -> Result<(), Error> {
        if !u8::try_from(self.frac).is_ok_and(|frac| Self::FRACTIONS.contains(&frac)) {
            return Err(Error::ChainSection);
        }
        if !Self::OFF_DIAGONALS.contains(&self.off_diagonal) {
            let limit = *Self::OFF_DIAGONALS.end();
            return Err(Error::OffDiagonal { found: self.off_diagonal, limit });
        }
        Ok(())
    }

    /// Whether a potential with this diagonal and η can never overflow: η is positive and
    /// |diagonal| + 3 + η + β/η, the bound on |L|, is below 2^30 units, as is 1/η. (L + R − α then
    /// fits 32 bits, and its square 64.) False in a format that [`Self::validate`] refuses.
    pub fn admits(&self, diagonal: i32, eta: i32) -> bool {
        if eta <= 0 || self.validate().is_err() {
            return false;
        }
        let one = 1u64 << self.frac;
        let inverse = self.largest_inverse(eta);
        let back = (inverse as u128 * self.off_diagonal as u128) >> 16;
        // 64 units for what INT8 potentials exceed 3 by and for the rounding of α − β/L.
        let bound = diagonal.unsigned_abs() as u128 + 3 * one as u128 + eta as u128 + back + 64;
        // The last condition keeps the shift of `invert` positive: η above 2^−14.
        bound < 1 << 30 && inverse < 1 << 30 && (eta as u64) << 14 > one
    }

    /// The bound on |1/L|: 1/η in units, rounded up, plus what the reciprocal may be off.
    fn largest_inverse(&self, eta: i32) -> u64 {
        (1u64 << (2 * self.frac)).div_ceil(eta.max(1) as u64) + 2
    }

    /// Whether a recursion with an admitted η can arrive at this 1/L: the parts are at most 1/η,
    /// the imaginary one is not negative. From such a state no later number overflows, by the
    /// induction of [`Self::admits`].
    pub fn admits_state(&self, eta: i32, state: Complex) -> bool {
        let most = self.largest_inverse(eta);
        state.im >= 0 && state.im as u64 <= most && u64::from(state.re.unsigned_abs()) <= most
    }

    /// Real part of α: the diagonal plus the potential `v` (Q15.16), clamped to ±3 and, where the
    /// format says so, rounded to INT8.
    #[inline(always)]
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

    /// What one unit of a potential's code is worth: 3/127 in units of the format, rounded to nearest.
    #[inline(always)]
    pub(crate) fn code_step(&self) -> i32 {
        ((3 << self.frac) + 63) / 127
    }

    /// One step of either recursion: α − β·g, with g the inverse of the neighbour's value, zero at
    /// the chain's end.
    #[inline(always)]
    pub fn advance(&self, alpha_re: i32, eta: i32, neighbour: Complex) -> Complex {
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

    /// 1/(re + i·im), every part truncated towards −∞ from a 32-bit reciprocal of |L|².
    ///
    /// Inputs are in the chain's format, below 2^31 in magnitude, with im ≤ −2^(F−14): the square
    /// then fits 63 bits and so does each product with the reciprocal.
    #[inline(always)]
    pub fn invert(&self, re: i32, im: i32) -> Complex {
        let square = |part: i32| (part as i64 * part as i64) as u64;
        let square = (square(re) + square(im)).max(1);
        let zeros = square.leading_zeros();
        let mantissa = ((square << zeros) >> 32) as u32;
        let reciprocal = reciprocal_mantissa(mantissa) as i32;
        // 1/|L|² = reciprocal · 2^(zeros − 95 + 2F); one more F from L itself.
        let shift = (95 - zeros).saturating_sub(2 * self.frac).clamp(1, 63);
        // The reciprocal is at least 2^31: as a signed number it is 2^32 too small.
        let product = |part: i32| (part as i64 * reciprocal as i64) + ((part as i64) << 32);
        let part = |product: i64| match shift {
            32.. => ((product >> 32) as i32) >> (shift - 32),
            _ => saturate(product >> shift),
        };
        Complex { re: part(product(re)), im: part(product(im.wrapping_neg())) }
    }

    /// A component of G as a feature: Q15.16, clamped to ±10.
    #[inline(always)]
    pub fn feature(&self, part: i32) -> i32 {
        let value = if self.frac > RESIDUAL_FRAC {
            // With half of the last bit that stays; an admitted 1/L is below 2^30.
            ((part >> (self.frac - RESIDUAL_FRAC - 1)) + 1) >> 1
        } else {
            saturate((part as i64) << (RESIDUAL_FRAC - self.frac))
        };
        value.clamp(-FEATURE_LIMIT, FEATURE_LIMIT)
    }
}

/// Diagonals and ηs of a block's potentials, as they lie in the blob.
#[derive(Clone, Copy, Debug)]
pub struct ChainParameters<'a> {
    /// Eight bytes per potential: diagonal and η, little-endian `i32`.
    pub bytes: &'a [u8],
}

impl ChainParameters<'_> {
    /// Bytes per potential.
    pub const BYTES: usize = 8;

    /// Diagonal and η of potential `k`.
    #[inline(always)]
    pub fn get(&self, k: usize) -> (i32, i32) {
        Self::decode(&self.bytes.as_chunks().0[k])
    }

    /// Diagonals and ηs of all potentials.
    #[inline(always)]
    pub fn iter(&self) -> impl Iterator<Item = (i32, i32)> {
        self.bytes.as_chunks().0.iter().map(Self::decode)
    }

    #[inline(always)]
    fn decode([d0, d1, d2, d3, e0, e1, e2, e3]: &[u8; 8]) -> (i32, i32) {
        (i32::from_le_bytes([*d0, *d1, *d2, *d3]), i32::from_le_bytes([*e0, *e1, *e2, *e3]))
    }
}

/// One position of a half chain, for all potentials.
///
/// Shapes: `potentials` is `[K]` in Q15.16, `state` is `[2K]` (1/L of the position before: real
/// parts, then imaginary parts; zeros before the first), `features` is `[2K]` (Re G, then Im G).
#[inline(always)]
pub fn half_step(
    format: ChainFormat,
    parameters: ChainParameters<'_>,
    potentials: &[i32],
    state: &mut [i32],
    features: &mut [i32],
) {
    let count = potentials.len();
    let (state_re, state_im) = state.split_at_mut(count);
    let (feature_re, feature_im) = features.split_at_mut(count);
    let states = state_re.iter_mut().zip(state_im);
    let features = feature_re.iter_mut().zip(feature_im);
    let all = parameters.iter().zip(potentials).zip(states).zip(features);
    for ((((diagonal, eta), &v), (state_re, state_im)), (feature_re, feature_im)) in all {
        let alpha = format.alpha(diagonal, v);
        let before = Complex { re: *state_re, im: *state_im };
        let l = format.advance(alpha, eta, before);
        let g = format.invert(l.re, l.im);
        (*state_re, *state_im) = (g.re, g.im);
        (*feature_re, *feature_im) = (format.feature(g.re), format.feature(g.im));
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
        // Both fit, as is proven for every chain that is admitted.
        let g = format.invert(saturate(re), saturate(im));
        features[t * 2 * count + k] = format.feature(g.re);
        features[t * 2 * count + count + k] = format.feature(g.im);
        after = format.invert(r.re, r.im);
    }
}
