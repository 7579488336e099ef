//! Tensor element types, as far as checkpoints of this model use them.

use std::collections::BTreeMap;

/// Element encoding of a stored tensor, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    BF16,
    /// Two F32: real and imaginary part.
    Complex64,
    /// An integer of this many bytes. Only counters use it, and their values are ignored.
    Integer(usize),
}

/// The values of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    Real(Vec<f32>),
    Complex(Vec<[f32; 2]>),
    Integers,
}

/// A tensor of a foreign checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Row-major.
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

impl Values {
    /// Multiplies real numbers, or both parts of complex ones, by -1.
    pub(super) fn negate(&mut self) {
        match self {
            Self::Real(values) => values.iter_mut().for_each(|x| *x = -*x),
            Self::Complex(values) => values.iter_mut().flatten().for_each(|x| *x = -*x),
            Self::Integers => {}
        }
    }

    /// Mirrors complex numbers at the real axis.
    pub(super) fn conjugate(&mut self) {
        if let Self::Complex(values) = self {
            values.iter_mut().for_each(|[_, im]| *im = -*im);
        }
    }
}

impl Element {
    /// The element type of a PyTorch storage class such as `FloatStorage`.
    pub(super) fn of_storage(class: &str) -> Option<Self> {
        Some(match class.strip_prefix("torch.")? {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::BF16,
            "ComplexFloatStorage" => Self::Complex64,
            "LongStorage" => Self::Integer(8),
            "IntStorage" => Self::Integer(4),
            "ShortStorage" => Self::Integer(2),
            "CharStorage" | "ByteStorage" | "BoolStorage" => Self::Integer(1),
            _ => return None,
        })
    }

    /// The element type of a safetensors tensor.
    pub(super) fn of_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype;
        Some(match dtype {
            Dtype::F64 => Self::F64,
            Dtype::F32 => Self::F32,
            Dtype::F16 => Self::F16,
            Dtype::BF16 => Self::BF16,
            Dtype::C64 => Self::Complex64,
            Dtype::I64 | Dtype::U64 => Self::Integer(8),
            Dtype::I32 | Dtype::U32 => Self::Integer(4),
            Dtype::I16 | Dtype::U16 => Self::Integer(2),
            Dtype::I8 | Dtype::U8 | Dtype::BOOL => Self::Integer(1),
            _ => return None,
        })
    }

    /// Name in listings.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::F64 => "F64",
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Complex64 => "C64",
            Self::Integer(8) => "I64",
            Self::Integer(4) => "I32",
            Self::Integer(2) => "I16",
            Self::Integer(_) => "I8",
        }
    }

    /// Bytes per element.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 | Self::Complex64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Integer(size) => size,
        }
    }

    /// Decodes the elements in `bytes`; an incomplete last element is ignored.
    pub(super) fn decode(self, bytes: &[u8]) -> Values {
        let float = |b: [u8; 4]| f32::from_le_bytes(b);
        match self {
            Self::F64 => {
                Values::Real(chunks(bytes).map(|b| f64::from_le_bytes(b) as f32).collect())
            }
            Self::F32 => Values::Real(chunks(bytes).map(float).collect()),
            Self::F16 => {
                Values::Real(chunks(bytes).map(|b| half::f16::from_le_bytes(b).to_f32()).collect())
            }
            Self::BF16 => {
                Values::Real(chunks(bytes).map(|b| half::bf16::from_le_bytes(b).to_f32()).collect())
            }
            Self::Complex64 => Values::Complex(
                chunks::<8>(bytes)
                    .map(|[a, b, c, d, e, f, g, h]| [float([a, b, c, d]), float([e, f, g, h])])
                    .collect(),
            ),
            Self::Integer(_) => Values::Integers,
        }
    }
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    bytes.as_chunks::<N>().0.iter().copied()
}

/// The tensors of a foreign checkpoint, by name.
pub(super) type Entries = BTreeMap<String, Entry>;
