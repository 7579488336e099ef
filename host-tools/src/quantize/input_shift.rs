//! Mean shift of a matrix's inputs caused by quantized layers before it.
//!
//! Errors of one layer shift the mean of the next layer's inputs and outputs, which a bias can
//! correct: with x the exact and x̂ the actual inputs, Ŵx̂ equals Wx on average for the bias b +
//! W·E\[x\] − Ŵ·E\[x̂\].

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::reference::{LinearCall, Model, Observer, WINDOWS_PER_PASS};

/// Mean of the exact minus the actual inputs of some layers, over positions that reach them in both
/// models.
pub fn shifts(
    exact: &Model,
    quantized: &Model,
    layers: &BTreeSet<String>,
    tokens: &[u32],
    window: usize,
) -> BTreeMap<String, Vec<f64>> {
    let tokens = &tokens[..tokens.len() / window * window];
    let parts: Vec<BTreeMap<String, (usize, Vec<f64>)>> = tokens
        .par_chunks(window * WINDOWS_PER_PASS)
        .map(|tokens| {
            let [x, real] = [exact, quantized].map(|model| {
                let mut inputs = Inputs { wanted: layers, layers: BTreeMap::new() };
                model.forward_observed(tokens, window, &mut inputs);
                inputs.layers
            });
            let both =
                x.into_iter().filter_map(|(layer, x)| Some((x.minus(real.get(&layer)?), layer)));
            both.map(|(sums, layer)| (layer, sums)).collect()
        })
        .collect();
    let mut total: BTreeMap<String, (usize, Vec<f64>)> = BTreeMap::new();
    for (layer, (count, sums)) in parts.into_iter().flatten() {
        let (all, total) = total.entry(layer).or_insert_with(|| (0, vec![0.0; sums.len()]));
        *all += count;
        total.iter_mut().zip(sums).for_each(|(total, sum)| *total += sum);
    }
    let mean = |(count, sums): (usize, Vec<f64>)| {
        sums.into_iter().map(|sum| sum / count.max(1) as f64).collect()
    };
    total.into_iter().map(|(layer, sums)| (layer, mean(sums))).collect()
}

/// Records the inputs of selected layers.
struct Inputs<'a> {
    wanted: &'a BTreeSet<String>,
    layers: BTreeMap<String, Rows>,
}

/// Inputs of one layer by position.
struct Rows {
    width: usize,
    /// Ascending.
    positions: Vec<usize>,
    values: Vec<f32>,
}

impl Observer for Inputs<'_> {
    fn linear(&mut self, call: LinearCall<'_>) {
        if !self.wanted.contains(call.name) {
            return;
        }
        let rows = call.inputs.len() / call.input_width;
        let positions = call.routed.map_or_else(|| (0..rows).collect(), |r| r.positions.to_vec());
        let (width, values) = (call.input_width, call.inputs.to_vec());
        self.layers.insert(call.name.to_owned(), Rows { width, positions, values });
    }
}

impl Rows {
    fn row(&self, i: usize) -> &[f32] {
        &self.values[i * self.width..][..self.width]
    }

    /// Sum of the differences over common positions, and their number.
    fn minus(&self, other: &Self) -> (usize, Vec<f64>) {
        let (mut count, mut sums) = (0, vec![0.0; self.width]);
        for (i, position) in self.positions.iter().enumerate() {
            let Ok(j) = other.positions.binary_search(position) else { continue };
            count += 1;
            for ((sum, &a), &b) in sums.iter_mut().zip(self.row(i)).zip(other.row(j)) {
                *sum += f64::from(a) - f64::from(b);
            }
        }
        (count, sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::random_checkpoint;

    /// A constant error of a layer's outputs is the shift of the next layer's inputs.
    #[test]
    fn the_shift_is_what_the_layer_before_is_off_by() {
        let checkpoint = random_checkpoint(1, 3);
        let tokens: Vec<u32> = (0..480).map(|i| i * 7 % 40).collect();
        let up = "blocks.1.bk_layer.moe_ffn.experts.2.0";
        let down = "blocks.1.bk_layer.moe_ffn.experts.2.3".to_owned();
        // Large enough to stay positive through the ReLU.
        let [exact, off] = [98.0, 100.0].map(|bias| {
            let mut checkpoint = checkpoint.clone();
            checkpoint.data_mut(&format!("{up}.bias"))[4] += bias;
            Model::from_checkpoint(&checkpoint)
        });
        let wanted = BTreeSet::from([down.clone()]);
        let found = shifts(&exact, &off, &wanted, &tokens, 12);
        assert!(found.keys().eq(&wanted));
        for (unit, shift) in found[&down].iter().enumerate() {
            let expected = if unit == 4 { -2.0 } else { 0.0 };
            assert!((shift - expected).abs() < 1e-4, "{unit}: {shift}");
        }
        let same = shifts(&exact, &exact, &wanted, &tokens, 12);
        assert!(same[&down].iter().all(|&shift| shift == 0.0));
    }
}
