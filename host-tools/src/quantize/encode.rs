//! From FP32 weights to the bytes of a section.

use half::f16;
use resnet_bk_core::blob::{Precision, TensorId, TensorLayout, TensorRecord};

use super::grid::{self, INT8_MAX};
use crate::error::{Error, Result};

/// A matrix with what is known about its inputs.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Which one.
    pub id: TensorId,
    /// Name for messages.
    pub name: &'a str,
    /// Row-major `[rows, cols]`.
    pub weights: &'a [f32],
    /// Columns.
    pub cols: usize,
    /// `[rows]`; empty for embeddings.
    pub biases: &'a [f32],
    /// Mean square of each input `[cols]`.
    pub importance: &'a [f64],
    /// Mean of each input `[cols]`.
    pub means: &'a [f64],
}

/// A matrix as the blob stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Its record; the offset is the writer's to fill in.
    pub record: TensorRecord,
    /// Its section, unpadded.
    pub section: Vec<u8>,
    /// The weights that the section stands for, `[rows, cols]`.
    pub decoded: Vec<f32>,
    /// The biases that the section stands for, `[rows]`.
    pub decoded_biases: Vec<f32>,
}

/// A storage precision with its group size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Precision of the codes.
    pub precision: Precision,
    /// Inputs per group for INT4, 0 otherwise.
    pub group: usize,
}

impl Storage {
    /// FP16.
    pub const FP16: Self = Self { precision: Precision::Fp16, group: 0 };
    /// INT8 per row.
    pub const INT8: Self = Self { precision: Precision::Int8, group: 0 };
    /// INT4 in groups of 32.
    pub const INT4: Self = Self { precision: Precision::Int4, group: 32 };

    /// Bytes of a matrix's section.
    pub fn layout(self, id: TensorId, rows: usize, cols: usize) -> TensorLayout {
        TensorLayout::new(self.precision, rows, cols, self.group, !id.is_embedding())
    }
}

/// Quantizes a matrix: scale search, codes, and a bias that makes up for the mean error of the
/// weights, b + (W − Ŵ)·E\[x\].
pub fn encode(matrix: Matrix<'_>, storage: Storage) -> Result<Encoded> {
    let rows = matrix.weights.len() / matrix.cols;
    let mut encoder = Encoder::new(matrix, rows);
    let exponent = match storage.precision {
        Precision::Fp16 => encoder.fp16()?,
        Precision::Int8 => encoder.int8()?,
        Precision::Int4 => encoder.int4(storage.group)?,
    };
    let bias_exponent = encoder.biases()?;
    let record = TensorRecord {
        precision: storage.precision,
        exponent,
        bias_exponent,
        group: storage.group as u16,
        rows: rows as u32,
        cols: matrix.cols as u32,
        offset: 0,
    };
    let Encoder { codes, scales, biases, decoded, decoded_biases, .. } = encoder;
    let section = [codes, scales, biases].concat();
    debug_assert_eq!(section.len(), storage.layout(matrix.id, rows, matrix.cols).len());
    Ok(Encoded { record, section, decoded, decoded_biases })
}

struct Encoder<'a> {
    matrix: Matrix<'a>,
    codes: Vec<u8>,
    scales: Vec<u8>,
    biases: Vec<u8>,
    decoded: Vec<f32>,
    decoded_biases: Vec<f32>,
}

impl<'a> Encoder<'a> {
    fn new(matrix: Matrix<'a>, rows: usize) -> Self {
        let decoded = Vec::with_capacity(rows * matrix.cols);
        let empty = Vec::new;
        Self {
            matrix,
            codes: empty(),
            scales: empty(),
            biases: empty(),
            decoded,
            decoded_biases: Vec::with_capacity(rows),
        }
    }

    fn rows(&self) -> std::slice::ChunksExact<'a, f32> {
        self.matrix.weights.chunks_exact(self.matrix.cols)
    }

    /// What the stored mantissa is multiplied by before it multiplies a code: a linear layer's row
    /// scale contains the worth of one activation code.
    fn per_activation(&self) -> f64 {
        if self.matrix.id.is_embedding() { 1.0 } else { f64::from(self.matrix.id.max_code()) }
    }

    /// Mantissas of row scales with a common exponent: the largest one takes 16 bits.
    fn mantissas(&self, scales: &[f64]) -> Result<(Vec<u16>, u8)> {
        let scales: Vec<f64> = scales.iter().map(|s| s / self.per_activation()).collect();
        let largest = scales.iter().copied().fold(0.0, f64::max);
        if largest == 0.0 {
            return Ok((vec![0; scales.len()], 32));
        }
        let mut exponent = (f64::from(u16::MAX) / largest).log2().floor() as i32;
        exponent = exponent.min(i32::from(*TensorRecord::EXPONENTS.end()));
        if exponent < i32::from(*TensorRecord::EXPONENTS.start()) {
            return Err(self.too_large("INT8 and INT4"));
        }
        let mantissa = |s: &f64| (s * f64::from(exponent).exp2()).round() as u16;
        Ok((scales.iter().map(mantissa).collect(), exponent as u8))
    }

    fn too_large(&self, precision: &'static str) -> Error {
        let tensor = self.matrix.name.to_string();
        Error::WeightTooLarge { tensor, precision }
    }

    fn int8(&mut self) -> Result<u8> {
        let scales: Vec<f64> =
            self.rows().map(|row| grid::int8_row(row, self.matrix.importance).scale).collect();
        let (mantissas, exponent) = self.mantissas(&scales)?;
        for (row, mantissa) in self.rows().zip(mantissas) {
            let scale = self.stored(mantissa, exponent);
            for &weight in row {
                let code = grid::code(weight, scale, -INT8_MAX, INT8_MAX);
                self.codes.push(code as u8);
                self.decoded.push((f64::from(code) * scale) as f32);
            }
            self.scales.extend(mantissa.to_le_bytes());
        }
        Ok(exponent)
    }

    fn int4(&mut self, group: usize) -> Result<u8> {
        let rows: Vec<grid::Int4Row> =
            self.rows().map(|row| grid::int4_row(row, self.matrix.importance, group)).collect();
        let units: Vec<f64> = rows.iter().map(|row| row.unit).collect();
        let (mantissas, exponent) = self.mantissas(&units)?;
        for ((weights, row), mantissa) in self.rows().zip(&rows).zip(mantissas) {
            let unit = self.stored(mantissa, exponent);
            for (weights, &group_scale) in weights.chunks(group).zip(&row.group_scales) {
                let scale = unit * f64::from(group_scale);
                let codes: Vec<i8> =
                    weights.iter().map(|&w| grid::code(w, scale, -8.0, 7.0)).collect();
                self.decoded.extend(codes.iter().map(|&c| (f64::from(c) * scale) as f32));
                let (low, high) = codes.split_at(codes.len().div_ceil(2));
                for (j, &low) in low.iter().enumerate() {
                    let high = high.get(j).copied().unwrap_or(0);
                    self.codes.push((low as u8 & 15) | (high as u8) << 4);
                }
            }
            self.scales.extend(mantissa.to_le_bytes());
            for pair in row.group_scales.chunks(2) {
                self.scales.push(pair[0] | pair.get(1).map_or(0, |high| high << 4));
            }
        }
        Ok(exponent)
    }

    fn fp16(&mut self) -> Result<u8> {
        for &weight in self.matrix.weights {
            let half = f16::from_f32(weight);
            if !half.is_finite() {
                return Err(self.too_large("FP16"));
            }
            self.codes.extend(half.to_le_bytes());
            self.decoded.push(half.to_f32());
        }
        Ok(0)
    }

    /// Weight per code of a stored mantissa.
    fn stored(&self, mantissa: u16, exponent: u8) -> f64 {
        f64::from(mantissa) * (-f64::from(exponent)).exp2() * self.per_activation()
    }

    fn biases(&mut self) -> Result<u8> {
        if self.matrix.id.is_embedding() {
            return Ok(0);
        }
        let cols = self.matrix.cols;
        let mut wanted = Vec::with_capacity(self.matrix.biases.len());
        for (r, &bias) in self.matrix.biases.iter().enumerate() {
            let exact = &self.matrix.weights[r * cols..][..cols];
            let stored = &self.decoded[r * cols..][..cols];
            let lost =
                |((&w, &s), &mean): ((&f32, &f32), &f64)| (f64::from(w) - f64::from(s)) * mean;
            wanted.push(
                f64::from(bias)
                    + exact.iter().zip(stored).zip(self.matrix.means).map(lost).sum::<f64>(),
            );
        }
        let largest = wanted.iter().fold(0.0, |peak: f64, b| peak.max(b.abs()));
        let limit = i32::from(TensorRecord::MAX_BIAS_EXPONENT);
        let exponent = if largest == 0.0 {
            limit
        } else {
            ((f64::from(i16::MAX) / largest).log2().floor() as i32).min(limit)
        };
        if exponent < 0 {
            return Err(self.too_large("a bias"));
        }
        let unit = (-f64::from(exponent)).exp2();
        for bias in wanted {
            let mantissa = (bias / unit).round() as i16;
            self.biases.extend(mantissa.to_le_bytes());
            self.decoded_biases.push((f64::from(mantissa) * unit) as f32);
        }
        Ok(exponent as u8)
    }
}
