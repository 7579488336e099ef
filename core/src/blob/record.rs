//! Tensor records: sixteen bytes per matrix in the header.

use super::precision::Precision;
use super::{Dimensions, TensorId};
use crate::error::TensorProblem;

/// Bytes of a tensor record.
pub const RECORD_LEN: usize = 16;

/// Description of one matrix in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorRecord {
    /// Storage precision.
    pub precision: Precision,
    /// Exponent e of the row scales; 0 for FP16.
    pub exponent: u8,
    /// Exponent b of the biases, at most 16.
    pub bias_exponent: u8,
    /// Inputs per group; 0 unless the precision is grouped.
    pub group: u16,
    /// Rows (outputs).
    pub rows: u32,
    /// Columns (inputs).
    pub cols: u32,
    /// Offset of the section from the first section of the blob.
    pub offset: u32,
}

// Byte 3 is reserved for a layout tag and must be zero.
impl TensorRecord {
    /// The record of an empty matrix.
    pub(crate) const EMPTY: Self = Self {
        precision: Precision::Int8,
        exponent: 0,
        bias_exponent: 0,
        group: 0,
        rows: 0,
        cols: 0,
        offset: 0,
    };
    /// Allowed exponents of row scales: the shifts that inference supports.
    pub const EXPONENTS: core::ops::RangeInclusive<u8> = 0..=80;
    /// Largest exponent of biases: they have no more fraction bits than the residual stream.
    pub const MAX_BIAS_EXPONENT: u8 = crate::numeric::RESIDUAL_FRAC as u8;

    /// Checks the record against the dimensions, for both reader and writer. The offset is not
    /// checked, since it depends on the other sections.
    ///
    /// # Errors
    ///
    /// An invalid shape, group size or exponent.
    #[inline]
    pub fn check(&self, dims: &Dimensions, id: TensorId) -> Result<(), TensorProblem> {
        if !dims.admits(id, (self.rows, self.cols)) {
            return Err(TensorProblem::Shape);
        }
        if self.precision.is_grouped() != (self.group != 0)
            || self.group as u32 > Self::longest_group(self.cols)
        {
            return Err(TensorProblem::Group);
        }
        let exponents_fit = Self::EXPONENTS.contains(&self.exponent)
            && self.bias_exponent <= Self::MAX_BIAS_EXPONENT;
        if exponents_fit { Ok(()) } else { Err(TensorProblem::Exponent) }
    }

    /// Largest group in a row of `cols` inputs: the whole row, but at least 32.
    pub const fn longest_group(cols: u32) -> u32 {
        if cols > 32 { cols } else { 32 }
    }

    /// The record's bytes.
    pub fn to_bytes(self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[0] = self.precision.bits();
        bytes[1] = self.exponent;
        bytes[2] = self.bias_exponent;
        bytes[4..6].copy_from_slice(&self.group.to_le_bytes());
        // Columns are at most 16,384 and fit sixteen bits.
        bytes[6..8].copy_from_slice(&(self.cols as u16).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.rows.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes
    }

    /// Reads a record; `None` for a precision or layout that this version does not know.
    pub fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Option<Self> {
        if bytes[3] != 0 {
            return None;
        }
        Some(Self {
            precision: Precision::from_bits(bytes[0])?,
            exponent: bytes[1],
            bias_exponent: bytes[2],
            group: u16::from_le_bytes([bytes[4], bytes[5]]),
            cols: u16::from_le_bytes([bytes[6], bytes[7]]) as u32,
            rows: u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
            offset: u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]),
        })
    }
}
