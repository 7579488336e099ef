//! Trainable parameters of one stored matrix.

use std::ops::Range;

use half::f16;
use resnet_bk_core::blob::{Precision, Tensor, TensorId, TensorRecord};

use crate::error::{Error, Result};
use crate::quantize::decode::{biases, multiple, row_codes, weights};
use crate::quantize::division::Selection;
use crate::quantize::stored;
use crate::tensors::weight_name;
use resnet_bk_schema::Storage;

/// A matrix: its ranges in the model's parameters and its storage.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    id: TensorId,
    storage: Storage,
    rows: usize,
    cols: usize,
    /// Columns per multiple; all columns unless the precision is grouped.
    group: usize,
    part: Selection,
    /// Range of the whole weight in the model's parameters, and its number of columns.
    weight: (Range<usize>, usize),
    /// Range of the whole bias; `None` for an embedding.
    bias: Option<Range<usize>>,
    /// Initial mean weight per code; 1 for FP16, whose codes are the weights.
    step: f32,
}

/// A matrix's parameters by kind: codes `[rows, cols]`, logarithms of row units `[rows]`, multiples
/// `[rows, groups]`, biases `[rows]`. Kinds that a precision lacks are empty.
pub(super) struct MatrixParameters<S> {
    pub(super) codes: S,
    pub(super) units: S,
    pub(super) multiples: S,
    pub(super) biases: S,
}

/// The dequantized values of a matrix's parameters.
#[derive(Clone, Debug, Default)]
pub(super) struct Decoded {
    /// `[rows, cols]`.
    pub(super) weights: Vec<f32>,
    /// `[rows]`; empty for an embedding.
    pub(super) biases: Vec<f32>,
    /// Weight per code `[rows, groups]`; empty for FP16.
    scales: Vec<f32>,
    /// Weight per code at multiple 1 `[rows]`; empty for FP16.
    units: Vec<f32>,
}

impl Matrix {
    pub(super) fn new(
        id: TensorId,
        tensor: &Tensor<'_>,
        part: Selection,
        weight: (Range<usize>, usize),
        bias: Option<Range<usize>>,
    ) -> Self {
        let storage = Storage { precision: tensor.precision, group: tensor.group };
        let group = if storage.precision.is_grouped() { tensor.group } else { tensor.cols };
        let (rows, cols) = (tensor.rows, tensor.cols);
        Self { id, storage, rows, cols, group, part, weight, bias, step: 1.0 }
    }

    pub(super) fn id(&self) -> TensorId {
        self.id
    }

    fn groups(&self) -> usize {
        self.cols.div_ceil(self.group)
    }

    /// Number of parameters of each kind.
    pub(super) fn lengths(&self) -> MatrixParameters<usize> {
        let rows_unless = |without: bool| if without { 0 } else { self.rows };
        let grouped = rows_unless(!self.storage.precision.is_grouped());
        MatrixParameters {
            codes: self.rows * self.cols,
            units: rows_unless(self.storage.precision == Precision::Fp16),
            multiples: grouped * self.groups(),
            biases: rows_unless(self.bias.is_none()),
        }
    }

    /// Learning rate of each kind relative to that of weights: codes and biases move as fast as
    /// weights, multiples as fast as logarithms of units.
    pub(super) fn rates(&self, scale_rate: f32) -> MatrixParameters<f32> {
        let multiples = scale_rate * MULTIPLE;
        MatrixParameters { codes: self.step.recip(), units: scale_rate, multiples, biases: 1.0 }
    }

    /// Reads parameters from a section.
    pub(super) fn read(&mut self, tensor: &Tensor<'_>, parameters: MatrixParameters<&mut [f32]>) {
        parameters.biases.copy_from_slice(&biases(tensor)[..parameters.biases.len()]);
        if self.storage.precision == Precision::Fp16 {
            parameters.codes.copy_from_slice(&weights(self.id, tensor));
            return;
        }
        let (row_scales, groups) = (tensor.layout().row_scales, self.groups());
        let mut total = 0.0;
        for r in 0..self.rows {
            let codes = parameters.codes[r * self.cols..][..self.cols].iter_mut();
            codes.zip(row_codes(tensor, r)).for_each(|(own, code)| *own = code as f32);
            let scales = &tensor.scales[r * row_scales..][..row_scales];
            let mantissa = u16::from_le_bytes([scales[0], scales[1]]);
            let per_activation = stored::per_activation(self.id);
            let unit = stored::unit(mantissa, tensor.exponent as u8, per_activation);
            parameters.units[r] = unit.ln().max(ZERO_UNIT) as f32;
            for g in 0..groups {
                let multiple = match self.storage.precision.is_grouped() {
                    true => f32::from(multiple(scales, g)),
                    false => 1.0,
                };
                if let Some(own) = parameters.multiples.get_mut(r * groups + g) {
                    *own = multiple;
                }
                total += unit * f64::from(multiple);
            }
        }
        self.step = (total / (self.rows * groups) as f64).max(f64::from(f32::MIN_POSITIVE)) as f32;
    }

    /// Quantizes the parameters to what a section can hold. Clamps codes and multiples to the edge
    /// of their range, close enough for a later step to bring them back.
    pub(super) fn decode(
        &self,
        parameters: MatrixParameters<&mut [f32]>,
        out: &mut Decoded,
    ) -> Result<()> {
        let MatrixParameters { codes, units, multiples, biases } = parameters;
        out.weights.resize(codes.len(), 0.0);
        if self.bias.is_some() {
            let (mantissas, exponent) = self.stored_biases(biases)?;
            let unit = (-f32::from(exponent)).exp2();
            out.biases.clear();
            out.biases.extend(mantissas.iter().map(|&m| f32::from(m) * unit));
        }
        if self.storage.precision == Precision::Fp16 {
            for (weight, &code) in out.weights.iter_mut().zip(&*codes) {
                *weight = f16::from_f32(code).to_f32();
            }
            return Ok(());
        }
        let (low, high) = self.range();
        let (low, high) = (low - EDGE, high + EDGE);
        let (mantissas, exponent) = self.mantissas(units)?;
        let (groups, per_activation) = (self.groups(), stored::per_activation(self.id));
        out.scales.resize(self.rows * groups, 0.0);
        out.units.clear();
        for multiple in multiples.iter_mut().filter(|multiple| **multiple != 0.0) {
            *multiple = multiple.clamp(1.0 - EDGE, f32::from(MULTIPLES) + EDGE);
        }
        let rows = codes.chunks_exact_mut(self.cols).zip(out.weights.chunks_exact_mut(self.cols));
        for (r, (codes, weights)) in rows.enumerate() {
            let unit = stored::unit(mantissas[r], exponent, per_activation) as f32;
            out.units.push(unit);
            let columns = codes.chunks_mut(self.group).zip(weights.chunks_mut(self.group));
            for (g, (codes, weights)) in columns.enumerate() {
                let multiple = multiples.get(r * groups + g).map_or(1.0, |m| m.round_ties_even());
                let scale = unit * multiple;
                out.scales[r * groups + g] = scale;
                for (code, weight) in codes.iter_mut().zip(weights) {
                    *code = code.clamp(low, high);
                    *weight = crate::reference::Real::round(*code) * scale;
                }
            }
        }
        Ok(())
    }

    /// Weights and biases of the parameters without rounding.
    pub(super) fn unrounded(&self, parameters: &MatrixParameters<&[f32]>) -> (Vec<f32>, Vec<f32>) {
        let groups = self.groups();
        let weight = |(i, &code): (usize, &f32)| {
            let (r, c) = (i / self.cols, i % self.cols);
            let multiple = parameters.multiples.get(r * groups + c / self.group).unwrap_or(&1.0);
            code * parameters.units.get(r).map_or(1.0, |log| log.exp()) * multiple
        };
        (parameters.codes.iter().enumerate().map(weight).collect(), parameters.biases.to_vec())
    }

    /// Writes decoded values into the model's parameters.
    pub(super) fn put(&self, decoded: &Decoded, model: &mut [f32]) {
        self.part.put_matrix(&decoded.weights, &mut model[self.weight.0.clone()]);
        if let Some(bias) = &self.bias {
            self.part.put_biases(&decoded.biases, &mut model[bias.clone()]);
        }
    }

    /// Gradient of the parameters from that of the model: straight through rounding; scales get the
    /// gradient through the weights that they multiply.
    pub(super) fn gradient(
        &self,
        decoded: &Decoded,
        model: &[f32],
        out: MatrixParameters<&mut [f32]>,
    ) {
        if let Some(bias) = &self.bias {
            out.biases.copy_from_slice(&self.part.of_biases(&model[bias.clone()]));
        }
        let (weight, cols) = &self.weight;
        let gradient = self.part.of_matrix(&model[weight.clone()], *cols);
        if self.storage.precision == Precision::Fp16 {
            out.codes.copy_from_slice(&gradient);
            return;
        }
        let groups = self.groups();
        let row = |whole: usize| whole * self.cols..(whole + 1) * self.cols;
        for r in 0..self.rows {
            let (gradient, weights) = (&gradient[row(r)], &decoded.weights[row(r)]);
            let codes = out.codes[row(r)].chunks_mut(self.group);
            let columns = gradient.chunks(self.group).zip(weights.chunks(self.group)).zip(codes);
            let mut total = 0.0;
            for (g, ((gradient, weights), codes)) in columns.enumerate() {
                let scale = decoded.scales[r * groups + g];
                let along = crate::reference::dot(gradient, weights);
                codes.iter_mut().zip(gradient).for_each(|(code, g)| *code = g * scale);
                total += along;
                if let Some(multiple) = out.multiples.get_mut(r * groups + g) {
                    // Chain rule through the dequantized weights; a multiple of 0 has lost its
                    // codes and gets no gradient.
                    *multiple = if scale > 0.0 { along * decoded.units[r] / scale } else { 0.0 };
                }
            }
            out.units[r] = total;
        }
    }

    /// Encodes the parameters: the record, without its offset, and the section.
    pub(super) fn encode(
        &self,
        parameters: MatrixParameters<&[f32]>,
    ) -> Result<(TensorRecord, Vec<u8>)> {
        let (mut codes, mut scales, mut biases) = (Vec::new(), Vec::new(), Vec::new());
        let mut exponent = 0;
        if self.storage.precision == Precision::Fp16 {
            let halves = parameters.codes.iter().map(|&weight| f16::from_f32(weight));
            if !halves.clone().all(f16::is_finite) {
                return Err(self.too_large());
            }
            codes.extend(halves.flat_map(f16::to_le_bytes));
        } else {
            let mantissas;
            (mantissas, exponent) = self.mantissas(parameters.units)?;
            let groups = self.groups();
            for (r, row) in parameters.codes.chunks_exact(self.cols).enumerate() {
                let (low, high) = self.range();
                let code = |code: &f32| code.round_ties_even().clamp(low, high) as i8;
                let row: Vec<i8> = row.iter().map(code).collect();
                stored::pack(self.storage, &row, &mut codes);
                let multiples = parameters.multiples.get(r * groups..(r + 1) * groups);
                let nibble = |multiple: &f32| multiple.round_ties_even() as u8;
                let multiples: Vec<u8> = multiples.unwrap_or(&[]).iter().map(nibble).collect();
                stored::pack_scales(self.storage, mantissas[r], &multiples, &mut scales);
            }
        }
        let mut bias_exponent = 0;
        if self.bias.is_some() {
            let mantissas;
            (mantissas, bias_exponent) = self.stored_biases(parameters.biases)?;
            biases.extend(mantissas.into_iter().flat_map(i16::to_le_bytes));
        }
        let record = TensorRecord {
            precision: self.storage.precision,
            exponent,
            bias_exponent,
            group: self.storage.group as u16,
            rows: self.rows as u32,
            cols: self.cols as u32,
            offset: 0,
        };
        Ok((record, [codes, scales, biases].concat()))
    }

    /// Smallest and largest code. −128 is never written, so that INT8 is symmetric.
    fn range(&self) -> (f32, f32) {
        let high = f32::from((1u16 << (self.storage.precision.bits() - 1)) - 1);
        (if self.storage.precision.is_grouped() { -high - 1.0 } else { -high }, high)
    }

    fn mantissas(&self, units: &[f32]) -> Result<(Vec<u16>, u8)> {
        let unit = |log: f64| if log > ZERO_UNIT { log.exp() } else { 0.0 };
        let units: Vec<f64> = units.iter().map(|&log| unit(f64::from(log))).collect();
        let per_activation = stored::per_activation(self.id);
        stored::mantissas(&units, per_activation).ok_or_else(|| self.too_large())
    }

    fn stored_biases(&self, biases: &[f32]) -> Result<(Vec<i16>, u8)> {
        let wanted: Vec<f64> = biases.iter().map(|&bias| f64::from(bias)).collect();
        stored::biases(&wanted).ok_or_else(|| stored::biases_too_large(self.id))
    }

    fn too_large(&self) -> Error {
        let precision = self.storage.precision.name();
        Error::WeightTooLarge { tensor: weight_name(self.id), precision }
    }
}

/// Logarithm that stands for a unit of zero; finite, since optimizers multiply it by zero. No other
/// unit is this small.
const ZERO_UNIT: f64 = -512.0;
/// Largest multiple of a group.
const MULTIPLES: u8 = 15;
/// Learning rate of multiples relative to that of logarithms of units: about the magnitude of a
/// multiple.
const MULTIPLE: f32 = 10.0;
/// How far a code may leave its range, less than half a step.
const EDGE: f32 = 0.49;

#[cfg(test)]
mod tests;
