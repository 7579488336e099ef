//! Encoding: from FP32 weights to the bytes of a section.

use half::f16;
use resnet_bk_core::blob::{Dimensions, Precision, Tensor, TensorId, TensorRecord};
use resnet_bk_schema::{Step, Steps, Storage};

use super::calibration::Statistics;
use super::grid::RowGrid;
use super::integer::{self, Layout, damping};
use super::metric::Metric;
use super::{decode, stored};
use crate::error::{Error, Result};

/// A matrix with its calibration statistics.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// Its identity in the blob.
    pub id: TensorId,
    /// Name for error messages.
    pub name: &'a str,
    /// Row-major `[rows, cols]`.
    pub weights: &'a [f32],
    /// Columns.
    pub cols: usize,
    /// `[rows]`; empty for embeddings.
    pub biases: &'a [f32],
    /// Statistics of its inputs and outputs; those of each row of a convolution, whose channels
    /// have inputs of their own.
    pub statistics: &'a [Statistics],
    /// Quantization steps to apply.
    pub steps: Steps,
}

/// A matrix as the blob stores it.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// Its record; the writer fills in the offset.
    pub record: TensorRecord,
    /// Its section, unpadded.
    pub section: Vec<u8>,
}

impl Encoded {
    /// The matrix as a blob of these dimensions holds it.
    pub fn tensor(&self, dims: &Dimensions, id: TensorId) -> Tensor<'_> {
        Tensor::new(&self.section, dims, id, &self.record).expect("encoding writes valid sections")
    }
}

/// Dequantized numbers, as encoding computes them.
#[derive(Debug)]
pub struct Decoded {
    /// `[rows, cols]`.
    pub weights: Vec<f32>,
    /// `[rows]`.
    pub biases: Vec<f32>,
}

/// Quantizes a matrix: scale search, codes, and a bias that compensates the mean error of the
/// weights, b + W·E\[x\] − Ŵ·E\[x̂\] with x̂ the inputs at inference.
pub fn encode(matrix: Matrix<'_>, storage: Storage) -> Result<(Encoded, Decoded)> {
    let rows = matrix.weights.len() / matrix.cols;
    let mut encoder = Encoder::new(matrix, rows);
    let exponent = match storage.precision {
        Precision::Fp16 => encoder.fp16()?,
        _ => encoder.integer(storage)?,
    };
    let Encoder { codes, scales, decoded, .. } = encoder;
    let biases = Biases::new(matrix, &decoded)?;
    let record = TensorRecord {
        exponent,
        bias_exponent: biases.exponent,
        ..storage.record(rows, matrix.cols)
    };
    let section = [codes, scales, biases.bytes()].concat();
    debug_assert_eq!(section.len(), storage.layout(matrix.id, rows, matrix.cols).len());
    Ok((Encoded { record, section }, Decoded { weights: decoded, biases: biases.decoded() }))
}

/// The encoded matrix with its codes and scales, which do not depend on the shift of its inputs,
/// and the biases that do.
pub(super) fn correct_biases(
    matrix: Matrix<'_>,
    dims: &Dimensions,
    encoded: &Encoded,
) -> Result<Encoded> {
    let tensor = encoded.tensor(dims, matrix.id);
    let biases = Biases::new(matrix, &decode::weights(matrix.id, &tensor))?;
    let mut section = encoded.section.clone();
    section.truncate(section.len() - tensor.biases.len());
    section.extend(biases.bytes());
    let record = TensorRecord { bias_exponent: biases.exponent, ..encoded.record };
    Ok(Encoded { record, section })
}

struct Encoder<'a> {
    matrix: Matrix<'a>,
    codes: Vec<u8>,
    scales: Vec<u8>,
    decoded: Vec<f32>,
}

impl<'a> Encoder<'a> {
    fn new(matrix: Matrix<'a>, rows: usize) -> Self {
        let decoded = Vec::with_capacity(rows * matrix.cols);
        Self { matrix, codes: Vec::new(), scales: Vec::new(), decoded }
    }

    fn rows(&self) -> std::slice::ChunksExact<'a, f32> {
        self.matrix.weights.chunks_exact(self.matrix.cols)
    }

    fn too_large(&self, precision: &'static str) -> Error {
        let tensor = self.matrix.name.to_string();
        Error::WeightTooLarge { tensor, precision }
    }

    fn integer(&mut self, storage: Storage) -> Result<u8> {
        let Matrix { cols, statistics, steps, .. } = self.matrix;
        let layout = Layout::new(cols, storage);
        let metric = |statistics: &Statistics| {
            Metric::new(&statistics.inputs, damping(cols, statistics.rows), steps.has(Step::Gptq))
        };
        let metrics: Vec<Metric> = statistics
            .iter()
            .map(metric)
            .collect::<Option<_>>()
            .ok_or_else(|| Error::Singular { tensor: self.matrix.name.into() })?;
        let rows: Vec<Vec<f64>> =
            self.rows().map(|row| row.iter().map(|&w| f64::from(w)).collect()).collect();
        let grids = integer::scales(&rows, &metrics, layout, steps);
        let units: Vec<f64> = grids.iter().map(|row| row.unit).collect();
        let per_activation = stored::per_activation(self.matrix.id);
        let (mantissas, exponent) = stored::mantissas(&units, per_activation)
            .ok_or_else(|| self.too_large("INT8 and INT4"))?;
        let scales: Vec<Vec<f64>> = grids
            .iter()
            .zip(&mantissas)
            .map(|(row, &mantissa)| {
                let stored = RowGrid {
                    unit: stored::unit(mantissa, exponent, per_activation),
                    ..row.clone()
                };
                stored.columns(cols, layout.group)
            })
            .collect();
        let codes = integer::codes(&rows, &scales, &metrics, statistics, layout, steps);
        for (((codes, scales), row), mantissa) in
            codes.iter().zip(&scales).zip(&grids).zip(mantissas)
        {
            let decoded = codes.iter().zip(scales).map(|(&c, s)| (f64::from(c) * s) as f32);
            self.decoded.extend(decoded);
            stored::pack(storage, codes, &mut self.codes);
            stored::pack_scales(storage, mantissa, &row.multiples, &mut self.scales);
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
}

/// Biases as stored: mantissas with a common exponent. Embeddings have none.
struct Biases {
    mantissas: Vec<i16>,
    exponent: u8,
}

impl Biases {
    /// Those that compensate the mean error of the `decoded` weights.
    fn new(matrix: Matrix<'_>, decoded: &[f32]) -> Result<Self> {
        if matrix.id.is_embedding() {
            return Ok(Self { mantissas: Vec::new(), exponent: 0 });
        }
        let cols = matrix.cols;
        let mut wanted = Vec::with_capacity(matrix.biases.len());
        let correct = f64::from(u8::from(matrix.steps.has(Step::BiasCorrection)));
        let statistics = matrix.statistics.iter().cycle();
        for ((r, &bias), statistics) in matrix.biases.iter().enumerate().zip(statistics) {
            let exact = &matrix.weights[r * cols..][..cols];
            let stored = &decoded[r * cols..][..cols];
            let Statistics { mean, shift, .. } = statistics;
            let inputs = mean.iter().zip(shift);
            let lost = exact.iter().zip(stored).zip(inputs).map(|((&w, &s), (mean, shift))| {
                f64::from(w) * (mean + shift) - f64::from(s) * mean
            });
            wanted.push(f64::from(bias) + correct * lost.sum::<f64>());
        }
        let (mantissas, exponent) =
            stored::biases(&wanted).ok_or_else(|| stored::biases_too_large(matrix.id))?;
        Ok(Self { mantissas, exponent })
    }

    fn bytes(&self) -> Vec<u8> {
        self.mantissas.iter().flat_map(|mantissa| mantissa.to_le_bytes()).collect()
    }

    fn decoded(&self) -> Vec<f32> {
        let unit = (-f64::from(self.exponent)).exp2();
        self.mantissas.iter().map(|&mantissa| (f64::from(mantissa) * unit) as f32).collect()
    }
}
