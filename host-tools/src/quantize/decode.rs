//! Dequantization: from the bytes of a section to weights and biases.

use half::f16;
use resnet_bk_core::blob::{INT8_OFFSETS, Precision, Tensor, TensorId};

use super::stored;

/// Weights of a matrix, `[rows, cols]`.
pub fn weights(id: TensorId, tensor: &Tensor<'_>) -> Vec<f32> {
    let layout = tensor.layout();
    let per_activation = stored::per_activation(id);
    let mut weights = Vec::with_capacity(tensor.rows * tensor.cols);
    for r in 0..tensor.rows {
        let codes = &tensor.codes[r * layout.row_codes..][..layout.row_codes];
        if tensor.precision == Precision::Fp16 {
            let halves = codes.chunks_exact(2);
            weights.extend(halves.map(|h| f16::from_le_bytes([h[0], h[1]]).to_f32()));
            continue;
        }
        let scales = &tensor.scales[r * layout.row_scales..][..layout.row_scales];
        let mantissa = u16::from_le_bytes([scales[0], scales[1]]);
        let unit = stored::unit(mantissa, tensor.exponent as u8, per_activation);
        if tensor.precision == Precision::Int8 {
            weights.extend(row_codes(tensor, r).into_iter().map(|c| (f64::from(c) * unit) as f32));
            continue;
        }
        for (c, code) in row_codes(tensor, r).into_iter().enumerate() {
            let multiple = multiple(scales, c / tensor.group);
            weights.push((f64::from(code) * (unit * f64::from(multiple))) as f32);
        }
    }
    weights
}

/// Multiple of the row's unit for group `group`.
pub(crate) fn multiple(row_scales: &[u8], group: usize) -> u8 {
    row_scales[2 + group / 2] >> (4 * (group % 2)) & 15
}

/// Codes of row `r` of an integer precision (see `docs/format.md`).
pub(crate) fn row_codes(tensor: &Tensor<'_>, r: usize) -> Vec<i32> {
    let length = tensor.layout().row_codes;
    let mut row = &tensor.codes[r * length..][..length];
    if tensor.precision == Precision::Int8 {
        let codes = row.iter().zip(INT8_OFFSETS.iter().cycle());
        return codes.map(|(c, o)| i32::from((c ^ o) as i8)).collect();
    }
    let mut codes = vec![0; tensor.cols];
    for plane in tensor.precision.planes() {
        for codes in codes.chunks_mut(tensor.group) {
            let (bytes, rest) = row.split_at(plane.bytes(codes.len()));
            row = rest;
            for (i, code) in codes.iter_mut().enumerate() {
                let j = i % bytes.len();
                let byte = bytes[j] ^ plane.offsets[j % 2];
                let field = byte >> (plane.bits as usize * (i / bytes.len()));
                let field = i32::from(field) & ((1 << plane.bits) - 1);
                let negative = plane.signed && field >> (plane.bits - 1) == 1;
                *code += (field - (i32::from(negative) << plane.bits)) << plane.shift;
            }
        }
    }
    codes
}

/// Biases of a linear layer's rows.
pub fn biases(tensor: &Tensor<'_>) -> Vec<f32> {
    let unit = (-f64::from(tensor.bias_exponent)).exp2();
    let pairs = tensor.biases.chunks_exact(2);
    pairs.map(|b| (f64::from(i16::from_le_bytes([b[0], b[1]])) * unit) as f32).collect()
}
