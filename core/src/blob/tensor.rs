//! The layout of a matrix in its section.
//!
//! A section holds the codes of all rows, then the scales of all rows, then the biases of all rows
//! (absent for embeddings). Per precision:
//!
//! | precision | codes of a row | scales of a row |
//! |---|---|---|
//! | FP16 | `cols` IEEE halves | none |
//! | INT8 | `cols` bytes | `u16` mantissa m |
//! | INT2 to INT6 | its planes in order | `u16` mantissa m, then a nibble g per group, low first |
//!
//! A [`super::Plane`] holds 1, 2 or 4 bits of every code of the row, group by group: n inputs of w
//! bits take L = ⌈n·w/8⌉ bytes, and byte j holds input j in its lowest w bits, input j + L in the
//! next, and so on. INT4 and INT2 are a single plane. INT6, INT5 and INT3 have two: the upper bits,
//! two's complement, then the lower bits, unsigned; the code is `upper · 2^(bits of lower) +
//! lower`.
//!
//! The stored codes of INT8 and INT4 are offset by half their range, 128 or 8, except the highest
//! code of every two bytes, which is two's complement. Two bytes are then one signed 16-bit number,
//! the sum of its codes times their place values, and a 16-bit multiplier need not unpack the
//! highest code. [`super::INT8_OFFSETS`] and [`super::Plane::offsets`] convert between the two
//! forms.
//!
//! A weight is `code · m · 2^−e` (INT8) or `code · g · m · 2^−e` (INT2 to INT6) with the record's
//! exponent e. For linear layers m includes the factor 1/127 or 1/255 of the activation codes,
//! whose scale is the value of the largest code. A bias is an `i16` times 2^−b.

use super::precision::Precision;
use super::record::TensorRecord;
use super::{Dimensions, TensorId};
use crate::error::{Error, TensorProblem};

/// Sizes of the parts of a section, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TensorLayout {
    /// Codes of one row.
    pub row_codes: usize,
    /// Scales of one row.
    pub row_scales: usize,
    /// Rows.
    pub rows: usize,
    /// Whether there are biases.
    pub biased: bool,
}

impl TensorLayout {
    /// The layout of a `[rows, cols]` matrix. `group` is ignored unless the precision is grouped.
    #[inline(never)]
    pub const fn new(
        precision: Precision,
        rows: usize,
        cols: usize,
        group: usize,
        biased: bool,
    ) -> Self {
        let (row_codes, row_scales) = match precision {
            Precision::Fp16 => (2 * cols, 0),
            Precision::Int8 => (cols, 2),
            grouped => {
                let group = if group == 0 { 1 } else { group };
                // Devices ask for layouts often, and some divide slowly.
                let groups = cols / group;
                let rest = cols - groups * group;
                let (planes, mut codes, mut p) = (grouped.planes(), 0, 0);
                while p < planes.len() {
                    codes += groups * planes[p].bytes(group) + planes[p].bytes(rest);
                    p += 1;
                }
                (codes, 2 + (groups + (rest != 0) as usize).div_ceil(2))
            }
        };
        Self { row_codes, row_scales, rows, biased }
    }

    /// Offset of the scales in the section.
    pub const fn scales_at(&self) -> usize {
        self.rows * self.row_codes
    }

    /// Offset of the biases in the section.
    pub const fn biases_at(&self) -> usize {
        self.rows * (self.row_codes + self.row_scales)
    }

    /// Bytes of the section, without padding.
    pub const fn len(&self) -> usize {
        self.biases_at() + if self.biased { 2 * self.rows } else { 0 }
    }

    /// [`TensorLayout::len`] in 64 bits, for bounds checks: with a malicious header the length may
    /// overflow a 32-bit `usize`.
    pub const fn byte_len(&self) -> u64 {
        let row = self.row_codes + self.row_scales + if self.biased { 2 } else { 0 };
        self.rows as u64 * row as u64
    }

    /// Whether the section has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A matrix, read in place from the blob.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Storage precision.
    pub precision: Precision,
    /// Rows (outputs).
    pub rows: usize,
    /// Columns (inputs).
    pub cols: usize,
    /// Inputs per group; 0 unless the precision is grouped.
    pub group: usize,
    /// Exponent of the row scales.
    pub exponent: i32,
    /// Exponent of the biases.
    pub bias_exponent: u32,
    /// Largest activation code of its input vectors.
    pub max_code: u32,
    /// Codes of all rows.
    pub codes: &'a [u8],
    /// Scales of all rows.
    pub scales: &'a [u8],
    /// Biases of all rows; empty for embeddings.
    pub biases: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Validates a record and borrows its matrix from the sections. `dims` must be valid and
    /// contain `id`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] for an invalid record, a section that is misaligned or out of bounds, or a
    /// non-finite weight.
    pub fn new(
        sections: &'a [u8],
        dims: &Dimensions,
        id: TensorId,
        record: &TensorRecord,
    ) -> Result<Self, Error> {
        Self::read::<true>(sections, dims, id, record)
    }

    /// [`Tensor::new`], without the pass over FP16 weights unless `VERIFY`.
    #[inline]
    pub(crate) fn read<const VERIFY: bool>(
        sections: &'a [u8],
        dims: &Dimensions,
        id: TensorId,
        record: &TensorRecord,
    ) -> Result<Self, Error> {
        let problem = |problem| Error::Tensor { index: dims.index(id) as u32, problem };
        record.check(dims, id).map_err(problem)?;
        let (rows, cols) = (record.rows as usize, record.cols as usize);
        let group = record.group as usize;
        let layout = TensorLayout::new(record.precision, rows, cols, group, !id.is_embedding());
        let start = record.offset as usize;
        if !start.is_multiple_of(super::ALIGN) {
            return Err(problem(TensorProblem::Alignment));
        }
        if record.offset as u64 + layout.byte_len() > sections.len() as u64 {
            return Err(problem(TensorProblem::Bounds));
        }
        let section = &sections[start..][..layout.len()];
        if VERIFY && record.precision == Precision::Fp16 {
            let halves = section[..layout.scales_at()].chunks_exact(2);
            let finite = |half: &[u8]| half[1] & 0x7c != 0x7c;
            if !halves.into_iter().all(finite) {
                return Err(problem(TensorProblem::NotFinite));
            }
        }
        Ok(Self::cut(sections, id, record))
    }

    /// [`Tensor::new`] without its checks, for a record that has passed them.
    pub(crate) fn cut(sections: &'a [u8], id: TensorId, record: &TensorRecord) -> Self {
        let (rows, cols) = (record.rows as usize, record.cols as usize);
        let group = record.group as usize;
        let layout = TensorLayout::new(record.precision, rows, cols, group, !id.is_embedding());
        let section = &sections[record.offset as usize..][..layout.len()];
        let (codes, rest) = section.split_at(layout.scales_at());
        let (scales, biases) = rest.split_at(layout.biases_at() - layout.scales_at());
        Self {
            precision: record.precision,
            rows,
            cols,
            group,
            exponent: record.exponent as i32,
            bias_exponent: record.bias_exponent as u32,
            max_code: id.max_code(),
            codes,
            scales,
            biases,
        }
    }

    /// The submatrix of `count` rows from `first` on.
    ///
    /// # Panics
    ///
    /// If the rows are out of bounds.
    #[inline(never)]
    pub fn rows(&self, first: usize, count: usize) -> Self {
        let layout = self.layout();
        let cut = |bytes: &'a [u8], each: usize| &bytes[first * each..][..count * each];
        Self {
            rows: count,
            codes: cut(self.codes, layout.row_codes),
            scales: cut(self.scales, layout.row_scales),
            biases: cut(self.biases, if layout.biased { 2 } else { 0 }),
            ..*self
        }
    }

    /// The layout of this matrix.
    pub fn layout(&self) -> TensorLayout {
        let biased = !self.biases.is_empty();
        TensorLayout::new(self.precision, self.rows, self.cols, self.group, biased)
    }
}

/// The `index`-th little-endian `u16` of `bytes`.
#[inline(always)]
pub(crate) fn pair_u16(bytes: &[u8], index: usize) -> u16 {
    u16::from_le_bytes([bytes[2 * index], bytes[2 * index + 1]])
}

/// The `index`-th little-endian `i16` of `bytes`.
#[inline(always)]
pub(crate) fn pair_i16(bytes: &[u8], index: usize) -> i16 {
    pair_u16(bytes, index) as i16
}
