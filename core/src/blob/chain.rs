//! Chain parameters: number format and storage.

use crate::error::Error;
use crate::numeric::RESIDUAL_FRAC;

/// Largest magnitude of a potential, Q15.16.
pub(crate) const POTENTIAL_LIMIT: i32 = 3 << RESIDUAL_FRAC;
/// Largest magnitude of a component of G as a feature, Q15.16.
pub(crate) const FEATURE_LIMIT: i32 = 10 << RESIDUAL_FRAC;
/// 127 / 3 with 16 fraction bits: the high word of its product with a Q15.16 potential is the INT8
/// code.
pub(crate) const CODE_PER_POTENTIAL: i64 = 2_774_357;

/// The number format of a chain, and its off-diagonal product.
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
    /// Allowed fraction bits.
    pub const FRACTIONS: core::ops::RangeInclusive<u8> = 12..=28;
    /// Allowed off-diagonal products: β below 32,768, so that signed and unsigned 32-bit
    /// multiplications agree.
    pub const OFF_DIAGONALS: core::ops::RangeInclusive<u32> = 0..=i32::MAX as u32;

    /// Validates the parameters that all potentials share.
    ///
    /// # Errors
    ///
    /// [`Error::ChainSection`] for fraction bits outside of [`Self::FRACTIONS`],
    /// [`Error::OffDiagonal`] for a β outside of [`Self::OFF_DIAGONALS`].
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

    /// Whether the recursion cannot overflow for this diagonal and η: η is positive, and both 1/η
    /// and the bound on |L|, |diagonal| + 3 + η + β/η, are below 2^30 units. L + R − α then fits 32
    /// bits, and its square 64. False for a format that [`Self::validate`] refuses.
    pub fn admits(&self, diagonal: i32, eta: i32) -> bool {
        if eta <= 0 || self.validate().is_err() {
            return false;
        }
        let one = 1u64 << self.frac;
        let inverse = self.largest_inverse(eta);
        let back = (inverse as u128 * self.off_diagonal as u128) >> 16;
        // 64 units of slack: INT8 potentials may exceed 3, and α − β/L is rounded.
        let bound = diagonal.unsigned_abs() as u128 + 3 * one as u128 + eta as u128 + back + 64;
        // The last condition, η > 2^−14, keeps the shift of the inversion positive.
        bound < 1 << 30 && inverse < 1 << 30 && (eta as u64) << 14 > one
    }

    /// Bound on |1/L| in units: 1/η rounded up, plus the error of the reciprocal.
    fn largest_inverse(&self, eta: i32) -> u64 {
        (1u64 << (2 * self.frac)).div_ceil(eta.max(1) as u64) + 2
    }

    /// Whether 1/L is in the range of a recursion with an admitted η: both parts at most 1/η in
    /// magnitude, the imaginary part not negative. By the induction behind [`Self::admits`],
    /// nothing overflows from such a state on.
    pub fn admits_state(&self, eta: i32, (re, im): (i32, i32)) -> bool {
        let most = self.largest_inverse(eta);
        im >= 0 && im as u64 <= most && u64::from(re.unsigned_abs()) <= most
    }

    /// Quantization step of an INT8 potential: 3/127 in units of the format, rounded to nearest.
    #[inline(always)]
    pub(crate) fn code_step(&self) -> i32 {
        ((3 << self.frac) + 63) / 127
    }
}

/// Diagonals and ηs of a block's potentials, as stored in the blob.
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
