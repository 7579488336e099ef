//! Storage precisions of matrices.

/// XOR masks between the stored even and odd bytes of a row of INT8 codes and two's complement.
pub const INT8_OFFSETS: [u8; 2] = [0x80, 0];

/// Storage precision of a matrix.
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
    /// IEEE halves.
    Fp16,
}

/// A bit plane: some bits of every code of a row, stored together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// Bits per code in this plane: 1, 2 or 4.
    pub bits: u32,
    /// Bits of the code below this plane.
    pub shift: u32,
    /// Whether the bits are two's complement.
    pub signed: bool,
    /// XOR masks between the stored even and odd bytes of a group and that form.
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

    /// The precision of a record's byte.
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

    /// Name in policy files.
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

    /// Whether codes are grouped, with a scale per group.
    pub const fn is_grouped(self) -> bool {
        !self.planes().is_empty()
    }

    /// The planes of a row's codes, in storage order; none unless grouped.
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
