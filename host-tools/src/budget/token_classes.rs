//! Token classes: tokens whose rows of both token tables share a storage.

use resnet_bk_core::blob::TensorId;

use crate::quantize::Source;
use crate::quantize::calibration::Calibration;
use crate::tensors::layer_name;

/// Class boundaries are tried between this many equal ranges of ranks; smaller vocabularies stay in
/// one class.
const CUTS: usize = 32;
/// Floor of a row's sensitivity as a fraction of the mean, so that unseen tokens rank equal.
const FLOOR: f64 = 1e-3;

/// Classes of tokens by the sensitivity of their rows in both token tables, most sensitive first.
/// Boundaries minimize the product over all rows of their class's mean sensitivity, which
/// determines the distortion at a fixed number of bits.
pub(super) fn classes(source: &Source, calibration: &Calibration) -> String {
    let vocab = source.dims.vocab as usize;
    if vocab < CUTS {
        return String::new();
    }
    let tables = [TensorId::TokenEmbedding(0), TensorId::LmHead(0)]
        .map(|id| matter(source, calibration, id));
    let mut ranked: Vec<usize> = (0..vocab).collect();
    let both = |token: usize| tables[0][token] * tables[1][token];
    ranked.sort_by(|&a, &b| both(b).total_cmp(&both(a)));
    // Logarithm of the mean over these ranks, times their number.
    let distortion = |from: usize, to: usize| -> f64 {
        let (from, to) = (from * vocab / CUTS, to * vocab / CUTS);
        let log = |table: &Vec<f64>| {
            let sum: f64 = ranked[from..to].iter().map(|&token| table[token]).sum();
            (sum / (to - from) as f64).ln() * (to - from) as f64
        };
        tables.iter().map(log).sum()
    };
    let mut best = (f64::INFINITY, [0; 3]);
    for a in 1..CUTS - 2 {
        for b in a + 1..CUTS - 1 {
            let first = distortion(0, a) + distortion(a, b);
            for c in b + 1..CUTS {
                let total = first + distortion(b, c) + distortion(c, CUTS);
                if total < best.0 {
                    best = (total, [a, b, c]);
                }
            }
        }
    }
    let mut classes = vec!['0'; vocab];
    for (rank, &token) in ranked.iter().enumerate() {
        let class = best.1.iter().filter(|&&cut| rank >= cut * vocab / CUTS).count();
        classes[token] = ['0', '1', '2', '3'][class];
    }
    classes.into_iter().collect()
}

/// Sensitivity to relative errors of each token's row: weighted by token frequency for the
/// embedding, by gradients for the output layer. The mean is 1.
fn matter(source: &Source, calibration: &Calibration, table: TensorId) -> Vec<f64> {
    let layer = layer_name(table);
    let (rows, cols) = source.shape(table);
    let weights = &source.folded.tensors[&format!("{layer}.weight")].data;
    let statistics = calibration.statistics(&layer, rows, cols);
    let squares = weights
        .chunks_exact(cols)
        .map(|row| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>());
    let weight: Vec<f64> = if table.is_embedding() {
        (0..rows).map(|token| calibration.count(token as u32) as f64).collect()
    } else {
        statistics.outputs.diagonal()
    };
    let mut matter: Vec<f64> =
        squares.zip(weight).map(|(square, weight)| square * weight).collect();
    let mean = (matter.iter().sum::<f64>() / rows as f64).max(f64::MIN_POSITIVE);
    matter.iter_mut().for_each(|value| *value = (*value / mean).max(FLOOR));
    matter
}
