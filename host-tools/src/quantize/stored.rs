//! The stored form of codes, scales and biases (see `docs/format.md`).

use resnet_bk_core::blob::{INT8_OFFSETS, Precision, TensorId, TensorRecord};

use crate::error::Error;
use crate::tensors::bias_name;
use resnet_bk_schema::Storage;

/// Ratio of a row scale as stored to the weight per code: a linear layer's row scale includes the
/// scale of one activation code.
pub(crate) fn per_activation(id: TensorId) -> f64 {
    if id.is_embedding() { 1.0 } else { f64::from(id.max_code()) }
}

/// Mantissas of row scales with a common exponent; the largest uses 16 bits. `None` if a scale is
/// too large.
pub(crate) fn mantissas(units: &[f64], per_activation: f64) -> Option<(Vec<u16>, u8)> {
    let largest = units.iter().copied().fold(0.0, f64::max) / per_activation;
    if largest == 0.0 {
        return Some((vec![0; units.len()], 32));
    }
    let exponent = (f64::from(u16::MAX) / largest).log2().floor() as i32;
    let exponent = exponent.min(i32::from(*TensorRecord::EXPONENTS.end()));
    if exponent < i32::from(*TensorRecord::EXPONENTS.start()) {
        return None;
    }
    let factor = f64::from(exponent).exp2();
    let mantissa = |unit: &f64| (unit / per_activation * factor).round() as u16;
    Some((units.iter().map(mantissa).collect(), exponent as u8))
}

/// Weight per code at multiple 1, from a stored mantissa.
pub(crate) fn unit(mantissa: u16, exponent: u8, per_activation: f64) -> f64 {
    f64::from(mantissa) * (-f64::from(exponent)).exp2() * per_activation
}

/// Mantissas of biases with a common exponent; `None` where they are too large.
pub(crate) fn biases(wanted: &[f64]) -> Option<(Vec<i16>, u8)> {
    let largest = wanted.iter().fold(0.0, |peak: f64, b| peak.max(b.abs()));
    let limit = i32::from(TensorRecord::MAX_BIAS_EXPONENT);
    let exponent = match largest {
        0.0 => limit,
        _ => ((f64::from(i16::MAX) / largest).log2().floor() as i32).min(limit),
    };
    let factor = f64::from(exponent).exp2();
    let mantissas = wanted.iter().map(|bias| (bias * factor).round() as i16);
    (exponent >= 0).then(|| (mantissas.collect(), exponent as u8))
}

/// The error for biases that [`biases`] cannot represent.
pub(crate) fn biases_too_large(id: TensorId) -> Error {
    Error::WeightTooLarge { tensor: bias_name(id), precision: "biases, which end at ±32767" }
}

/// Packs a row's codes into the bit planes of its precision.
pub(crate) fn pack(storage: Storage, codes: &[i8], bytes: &mut Vec<u8>) {
    if storage.precision == Precision::Int8 {
        bytes.extend(codes.iter().zip(INT8_OFFSETS.iter().cycle()).map(|(&c, o)| c as u8 ^ o));
    }
    for plane in storage.precision.planes() {
        for codes in codes.chunks(storage.group) {
            let length = plane.bytes(codes.len());
            let start = bytes.len();
            bytes.resize(start + length, 0);
            for (i, &code) in codes.iter().enumerate() {
                let field = (code >> plane.shift) as u8 & ((1 << plane.bits) - 1);
                bytes[start + i % length] |= field << (plane.bits as usize * (i / length));
            }
            for (byte, offset) in bytes[start..].iter_mut().zip(plane.offsets.iter().cycle()) {
                *byte ^= offset;
            }
        }
    }
}

/// Packs a row's mantissa and its groups' multiples.
pub(crate) fn pack_scales(storage: Storage, mantissa: u16, multiples: &[u8], bytes: &mut Vec<u8>) {
    bytes.extend(mantissa.to_le_bytes());
    if storage.precision.is_grouped() {
        let nibbles = multiples.chunks(2);
        bytes.extend(nibbles.map(|pair| pair[0] | pair.get(1).map_or(0, |high| high << 4)));
    }
}
