//! Chain parameters: their number format and how they are stored.

use crate::error::Error;
use crate::numeric::RESIDUAL_FRAC;

/// Largest magnitude of a potential, Q15.16.
pub(crate) const POTENTIAL_LIMIT: i32 = 3 << RESIDUAL_FRAC;
/// Largest magnitude of a component of G as a feature, Q15.16.
pub(crate) const FEATURE_LIMIT: i32 = 10 << RESIDUAL_FRAC;
/// 127 / 3 with 16 fraction bits: the high word of its product with a Q15.16 potential is the code.
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
    /// Off-diagonal products that a blob may ask for: β below 32,768, the same number to signed and
    /// unsigned multiplications of 32 bits.
    pub const OFF_DIAGONALS: core::ops::RangeInclusive<u32> = 0..=i32::MAX as u32;

    /// Checks the parameters that all potentials share.
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
        // 64 units for the excess of INT8 potentials over 3 and for the rounding of α − β/L.
        let bound = diagonal.unsigned_abs() as u128 + 3 * one as u128 + eta as u128 + back + 64;
        // The last condition keeps the shift of the inversion positive: η above 2^−14.
        bound < 1 << 30 && inverse < 1 << 30 && (eta as u64) << 14 > one
    }

    /// The bound on |1/L|: 1/η in units, rounded up, plus what the reciprocal may be off.
    fn largest_inverse(&self, eta: i32) -> u64 {
        (1u64 << (2 * self.frac)).div_ceil(eta.max(1) as u64) + 2
    }

    /// Whether a recursion with an admitted η can arrive at this 1/L: the parts are at most 1/η,
    /// the imaginary one is not negative. From such a state no later number overflows, by the
    /// induction of [`Self::admits`].
    pub fn admits_state(&self, eta: i32, (re, im): (i32, i32)) -> bool {
        let most = self.largest_inverse(eta);
        im >= 0 && im as u64 <= most && u64::from(re.unsigned_abs()) <= most
    }

    /// Value of one unit of a potential's code: 3/127 in units of the format, rounded to nearest.
    #[inline(always)]
    pub(crate) fn code_step(&self) -> i32 {
        ((3 << self.frac) + 63) / 127
    }
}

/// Diagonals and ηs of a block's potentials, as the blob stores them.
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
