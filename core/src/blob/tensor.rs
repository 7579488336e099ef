//! Tensor records and the layout of a matrix in its section.
//!
//! A section holds, one after the other: the codes of all rows, the scales of all rows, the biases
//! of all rows (absent for embeddings). Per precision:
//!
//! | precision | codes of a row | scales of a row |
//! |---|---|---|
//! | FP16 | `cols` IEEE halves | none |
//! | INT8 | `cols` bytes | `u16` mantissa m |
//! | INT2 to INT6 | its planes, one after the other | `u16` mantissa m, then one nibble g per group, low nibble first |
//!
//! A [`Plane`] holds some bits of every code of the row, 1, 2 or 4, group by group: n inputs of w
//! bits take L = ⌈n·w/8⌉ bytes, and byte j holds input j in its lowest w bits, input j + L in the
//! next, and so on. INT4 and INT2 are a single plane. INT6, INT5 and INT3 have two: the upper bits,
//! two's complement, then the lower bits, unsigned; the code is `upper · 2^(bits of lower) + lower`.
//!
//! The stored codes of INT8 and INT4 are offset by half their range, 128 or 8, except the highest code of
//! every two bytes, which is two's complement: two bytes are then one signed number, the sum of its codes in
//! their places, and a 16-bit multiplier need not unpack the highest one. [`INT8_OFFSETS`] and
//! [`Plane::offsets`] convert between the two forms.
//!
//! A weight is `code · m · 2^−e` (INT8) or `code · g · m · 2^−e` (INT2 to INT6) with the record's
//! exponent e; for linear layers m includes the value of one unit of the activation code (1/127 or 1/255 of
//! the vector's largest magnitude). A bias is an `i16` times 2^−b.

use super::{Dimensions, TensorId};
use crate::error::{Error, TensorProblem};

/// Difference (exclusive or) between a row's even and odd bytes of INT8 codes and two's complement.
pub const INT8_OFFSETS: [u8; 2] = [0x80, 0];

/// How the numbers of a matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Precision {
    /// As [`Precision::Int4`] with 2-bit codes.
    Int2,
    /// As [`Precision::Int4`] with 3-bit codes.
    Int3,
    /// Symmetric 4-bit codes in groups along the input, a 4-bit scale per group and a 16-bit
    /// scale per row.
    Int4,
    /// As [`Precision::Int4`] with 5-bit codes.
    Int5,
    /// As [`Precision::Int4`] with 6-bit codes.
    Int6,
    /// Symmetric 8-bit codes, one 16-bit scale per row.
    Int8,
    /// IEEE halves, exact.
    Fp16,
}

/// Some bits of every code of a row, stored together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Bits per code in this plane: 1, 2 or 4.
    pub bits: u32,
    /// Bits of the code below this plane.
    pub shift: u32,
    /// Whether the bits are two's complement.
    pub signed: bool,
    /// Difference (exclusive or) between a group's even and odd stored bytes and that form.
    pub offsets: [u8; 2],
}

impl Plane {
    const fn new(bits: u32, shift: u32, signed: bool) -> Self {
        Self { bits, shift, signed, offsets: [0, 0] }
    }

    /// Bytes of `inputs` inputs of one group.
    pub const fn bytes(self, inputs: usize) -> usize {
        (inputs * self.bits as usize).div_ceil(8)
    }

    /// Bytes of a row.
    pub const fn row_bytes(self, cols: usize, group: usize) -> usize {
        cols / group * self.bytes(group) + self.bytes(cols % group)
    }
}

impl Precision {
    /// Every precision, in ascending order of bits.
    pub const ALL: [Self; 7] =
        [Self::Int2, Self::Int3, Self::Int4, Self::Int5, Self::Int6, Self::Int8, Self::Fp16];

    /// Bits of a weight's code; also the byte that denotes this precision in a record.
    pub const fn bits(self) -> u8 {
        match self {
            Self::Int2 => 2,
            Self::Int3 => 3,
            Self::Int4 => 4,
            Self::Int5 => 5,
            Self::Int6 => 6,
            Self::Int8 => 8,
            Self::Fp16 => 16,
        }
    }

    /// The precision that a record's byte denotes.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            2 => Some(Self::Int2),
            3 => Some(Self::Int3),
            4 => Some(Self::Int4),
            5 => Some(Self::Int5),
            6 => Some(Self::Int6),
            8 => Some(Self::Int8),
            16 => Some(Self::Fp16),
            _ => None,
        }
    }

    /// Name as policies spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int2 => "int2",
            Self::Int3 => "int3",
            Self::Int4 => "int4",
            Self::Int5 => "int5",
            Self::Int6 => "int6",
            Self::Int8 => "int8",
            Self::Fp16 => "fp16",
        }
    }

    /// Whether codes come in groups with a scale each.
    pub const fn is_grouped(self) -> bool {
        !self.planes().is_empty()
    }

    /// The planes of a row's codes, in the order in which they are stored; none unless grouped.
    pub const fn planes(self) -> &'static [Plane] {
        match self {
            Self::Int2 => const { &[Plane::new(2, 0, true)] },
            Self::Int3 => const { &[Plane::new(2, 1, true), Plane::new(1, 0, false)] },
            Self::Int4 => const { &[Plane { offsets: [0x88, 0x08], ..Plane::new(4, 0, true) }] },
            Self::Int5 => const { &[Plane::new(4, 1, true), Plane::new(1, 0, false)] },
            Self::Int6 => const { &[Plane::new(4, 2, true), Plane::new(2, 0, false)] },
            Self::Int8 | Self::Fp16 => &[],
        }
    }
}

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

// Byte 3 is reserved for a layout tag; zero today.
impl TensorRecord {
    /// A matrix without rows and columns.
    pub(crate) const EMPTY: Self = Self {
        precision: Precision::Int8,
        exponent: 0,
        bias_exponent: 0,
        group: 0,
        rows: 0,
        cols: 0,
        offset: 0,
    };
    /// Smallest and largest exponent of row scales that inference can shift by.
    pub const EXPONENTS: core::ops::RangeInclusive<u8> = 0..=80;
    /// Largest exponent of biases: their unit is never finer than the residual stream's.
    pub const MAX_BIAS_EXPONENT: u8 = crate::numeric::RESIDUAL_FRAC as u8;

    /// Checks whether a blob of these dimensions may hold such a matrix: what the reader accepts and the tools
    /// write. The offset is not checked, since it depends on the other sections.
    ///
    /// # Errors
    ///
    /// The shape, the group size or the exponent that is impossible.
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

    /// Largest group in a row of `cols` inputs: the whole row, and 32 in any case.
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
        // Columns are at most 16,384: sixteen bits hold them.
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

/// Sizes of the parts of a matrix's section, in bytes.
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
    /// The layout of a `[rows, cols]` matrix. `group` is used for grouped precisions only and must
    /// not be 0 there.
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
                let (planes, mut codes, mut p) = (grouped.planes(), 0, 0);
                while p < planes.len() {
                    codes += planes[p].row_bytes(cols, group);
                    p += 1;
                }
                (codes, 2 + cols.div_ceil(group).div_ceil(2))
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

    /// [`TensorLayout::len`] in 64 bits: the length in a malicious header may exceed a 32-bit
    /// address space, and must be compared before it is computed in `usize`.
    pub const fn byte_len(&self) -> u64 {
        let row = self.row_codes + self.row_scales + if self.biased { 2 } else { 0 };
        self.rows as u64 * row as u64
    }

    /// Whether the section has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A matrix in place in the blob.
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
    /// Largest activation code of the vectors it multiplies.
    pub max_code: u32,
    /// Codes of all rows.
    pub codes: &'a [u8],
    /// Scales of all rows.
    pub scales: &'a [u8],
    /// Biases of all rows; empty for embeddings.
    pub biases: &'a [u8],
}

impl<'a> Tensor<'a> {
    /// Cuts the matrix out of the blob's sections. `dims` must be valid and have the matrix.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] where the record contradicts the dimensions, names an impossible number or
    /// reaches outside of the sections, or a weight is not finite.
    pub fn new(
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
        if record.precision == Precision::Fp16 {
            let halves = section[..layout.scales_at()].chunks_exact(2);
            let finite = |half: &[u8]| half[1] & 0x7c != 0x7c;
            if !halves.into_iter().all(finite) {
                return Err(problem(TensorProblem::NotFinite));
            }
        }
        Ok(Self::cut(sections, id, record))
    }

    /// [`Tensor::new`] for a record that it has accepted before, without its checks.
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

    /// `count` rows from `first` on, as a matrix of their own.
    ///
    /// # Panics
    ///
    /// If they do not lie within the matrix.
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
