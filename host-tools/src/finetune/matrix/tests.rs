//! Gradients and decoding of a stored matrix.

use super::*;
use crate::quantize::Source;
use crate::quantize::calibration::Calibration;
use crate::quantize::tests::random_checkpoint;

fn kinds(all: &mut [Vec<f32>; 4]) -> MatrixParameters<&mut [f32]> {
    let [codes, units, multiples, biases] = all;
    MatrixParameters { codes, units, multiples, biases }
}

/// A change of a code or multiple by one, or any change of a bias or of a log unit, changes a
/// linear function of the weights by what the gradient predicts.
#[test]
fn gradients_are_those_of_the_decoded_numbers() {
    let source = Source::new(&random_checkpoint(2, 2), [7; 32], 0, None).unwrap();
    let id = TensorId::ExpertDown(0, 1);
    for precision in [Precision::Int2, Precision::Int4, Precision::Int8] {
        let group = if precision.is_grouped() { 10 } else { 0 };
        let storage = Storage { precision, group };
        let encoded = source.encode(id, storage, &Calibration::default()).unwrap();
        let dims = source.dims;
        let tensor = encoded.tensor(&dims, id);
        let (rows, cols) = (tensor.rows, tensor.cols);
        let size = rows * cols;
        let mut matrix =
            Matrix::new(id, &tensor, Selection::Whole, (0..size, cols), Some(size..size + rows));
        let lengths = matrix.lengths();
        let zeros = |n| vec![0.0f32; n];
        let mut all = [lengths.codes, lengths.units, lengths.multiples, lengths.biases].map(zeros);
        matrix.read(&tensor, kinds(&mut all));
        let slope: Vec<f32> = (0..size + rows).map(|i| (i as f32 * 0.7).sin()).collect();
        let value = |all: &[Vec<f32>; 4]| {
            let mut decoded = Decoded::default();
            matrix.decode(kinds(&mut all.clone()), &mut decoded).unwrap();
            let numbers = decoded.weights.iter().chain(&decoded.biases);
            numbers.zip(&slope).map(|(&x, &s)| f64::from(x) * f64::from(s)).sum::<f64>()
        };
        let mut decoded = Decoded::default();
        matrix.decode(kinds(&mut all), &mut decoded).unwrap();
        for (own, decoded) in decoded.weights.iter().zip(&weights(id, &tensor)) {
            assert!((own - decoded).abs() <= 1e-6 * decoded.abs(), "{own} {decoded}");
        }
        let mut gradient = all.clone();
        matrix.gradient(&decoded, &slope, kinds(&mut gradient));
        for (kind, step) in [(0, 1.0), (1, 0.02), (2, 1.0), (3, 0.1)] {
            for i in (0..all[kind].len()).step_by(3) {
                let moved = |by: f32| {
                    let mut all = all.clone();
                    all[kind][i] += by;
                    all
                };
                let [up, down] = [step, -step].map(moved);
                // Skips parameters at the edge of their range.
                let (low, high) = match kind {
                    0 => matrix.range(),
                    2 => (1.0, 15.0),
                    _ => (f32::NEG_INFINITY, f32::INFINITY),
                };
                if up[kind][i] > high || down[kind][i] < low {
                    continue;
                }
                let numeric = (value(&up) - value(&down)) / f64::from(2.0 * step);
                let exact = f64::from(gradient[kind][i]);
                let error = (numeric - exact).abs() / (1e-3 + exact.abs());
                assert!(error < 0.02, "{storage} {kind} {i}: {exact} against {numeric}");
            }
        }
    }
}

/// Optimizers multiply parameters by zero: all must be finite, and a row of zeros stays one.
#[test]
fn a_row_of_zeros_has_finite_parameters() {
    let mut checkpoint = random_checkpoint(2, 2);
    checkpoint.data_mut("lm_head.weight")[..16].fill(0.0);
    let source = Source::new(&checkpoint, [7; 32], 0, None).unwrap();
    let id = TensorId::LmHead(0);
    for storage in [Storage::INT8, Storage::INT4] {
        let encoded = source.encode(id, storage, &Calibration::default()).unwrap();
        let tensor = encoded.tensor(&source.dims, id);
        let size = tensor.rows * tensor.cols;
        let bias = size..size + tensor.rows;
        let mut matrix =
            Matrix::new(id, &tensor, Selection::Whole, (0..size, tensor.cols), Some(bias));
        let lengths = matrix.lengths();
        let mut all =
            [lengths.codes, lengths.units, lengths.multiples, lengths.biases].map(|n| vec![0.0; n]);
        matrix.read(&tensor, kinds(&mut all));
        let mut decoded = Decoded::default();
        matrix.decode(kinds(&mut all), &mut decoded).unwrap();
        assert_eq!(decoded.weights[..16], [0.0; 16]);
        // Units pass through their logarithm.
        for (&a, &b) in decoded.weights.iter().zip(&weights(id, &tensor)) {
            assert!((a - b).abs() <= 1e-6 * b.abs(), "{storage}: {a} instead of {b}");
        }
        assert!(all.iter().flatten().all(|parameter| parameter.is_finite()), "{storage}");
    }
}
