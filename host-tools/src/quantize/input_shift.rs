//! Mean shift of a matrix's inputs caused by quantized layers before it.
//!
//! Errors of one layer shift the mean of the next layer's inputs and outputs, which a bias can
//! correct: with x the exact and x̂ the actual inputs, Ŵx̂ equals Wx on average for the bias b +
//! W·E\[x\] − Ŵ·E\[x̂\].

use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;

use crate::reference::{LinearCall, Model, Observer, Tape, windows_per_pass};

/// A text on its way through an exact and a quantized model, a block at a time.
#[derive(Debug)]
pub struct Prefix<'a> {
    exact: &'a Model,
    window: usize,
    batches: Vec<Batch>,
    /// The next block.
    block: usize,
}

/// Part of the text.
#[derive(Debug)]
struct Batch {
    /// Residual stream `[positions, d]` of the exact model after the next block.
    exact: Vec<f32>,
    /// Inputs of the exact model's layers in the next block, or of its output layer.
    inputs: Inputs,
    /// Residual stream of the quantized model before the next block.
    quantized: Vec<f32>,
}

impl<'a> Prefix<'a> {
    /// Before the first block, of models whose embeddings may differ.
    pub fn new(exact: &'a Model, quantized: &Model, tokens: &[u32], window: usize) -> Self {
        let tokens = &tokens[..tokens.len() / window * window];
        let batches = tokens.par_chunks(window * windows_per_pass(exact.config().vocab, window));
        let batch = |tokens| {
            let [exact, quantized] = [exact, quantized].map(|model| model.stream(tokens, window));
            Batch { exact, inputs: Inputs::default(), quantized }
        };
        let mut prefix = Self { exact, window, batches: batches.map(batch).collect(), block: 0 };
        prefix.enter();
        prefix
    }

    /// Takes the exact model through the next block.
    fn enter(&mut self) {
        let (exact, block, window) = (self.exact, self.block, self.window);
        self.batches.par_iter_mut().for_each_init(Tape::default, |tape, batch| {
            batch.inputs = Inputs::default();
            observe(exact, (block, window), &mut batch.exact, tape, &mut batch.inputs);
        });
    }

    /// Mean of the exact minus the actual inputs of some layers of the next block, or of the output
    /// layer after the last one, over positions that reach them in both models. `quantized` has the
    /// weights of [`Prefix::new`] and [`Prefix::advance`] before this block.
    pub fn shifts(
        &self,
        quantized: &Model,
        layers: &BTreeSet<String>,
    ) -> BTreeMap<String, Vec<f64>> {
        let of_batch = |tape: &mut Tape, batch: &Batch| -> BTreeMap<String, (usize, Vec<f64>)> {
            let mut real = Inputs { only: Some(layers.clone()), ..Inputs::default() };
            let stream = &mut batch.quantized.clone();
            observe(quantized, (self.block, self.window), stream, tape, &mut real);
            let both = real.layers.into_iter().filter_map(|(layer, real)| {
                let shift = batch.inputs.layers.get(&layer)?.minus(&real);
                Some((layer, shift))
            });
            both.collect()
        };
        let parts: Vec<_> = self.batches.par_iter().map_init(Tape::default, of_batch).collect();
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

    /// Goes through the next block.
    pub fn advance(&mut self, quantized: &Model) {
        let (block, window) = (self.block, self.window);
        self.batches.par_iter_mut().for_each_init(Tape::default, |tape, batch| {
            quantized.advance(block, window, &mut batch.quantized, tape, None);
        });
        self.block += 1;
        self.enter();
    }
}

/// Takes a stream through a block, or to the logits after the last one.
fn observe(
    model: &Model,
    (block, window): (usize, usize),
    stream: &mut Vec<f32>,
    tape: &mut Tape,
    inputs: &mut Inputs,
) {
    let blocks = model.config().layers;
    if block < blocks {
        model.advance(block, window, stream, tape, Some(inputs));
    } else {
        model.logits_from(blocks, window, stream, tape, Some(inputs));
    }
}

/// Records the inputs of layers.
#[derive(Debug, Default)]
struct Inputs {
    /// The layers that are wanted; all without.
    only: Option<BTreeSet<String>>,
    layers: BTreeMap<String, Rows>,
}

/// Inputs of one layer by position.
#[derive(Debug)]
struct Rows {
    width: usize,
    /// Ascending.
    positions: Vec<usize>,
    values: Vec<f32>,
}

impl Observer for Inputs {
    fn linear(&mut self, call: LinearCall<'_>) {
        if self.only.as_ref().is_some_and(|only| !only.contains(call.name)) {
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
        let shifts = |quantized: &Model| {
            let mut prefix = Prefix::new(&exact, quantized, &tokens, 12);
            prefix.advance(quantized);
            prefix.shifts(quantized, &wanted)
        };
        let found = shifts(&off);
        assert!(found.keys().eq(&wanted));
        for (unit, shift) in found[&down].iter().enumerate() {
            let expected = if unit == 4 { -2.0 } else { 0.0 };
            assert!((shift - expected).abs() < 1e-4, "{unit}: {shift}");
        }
        let same = shifts(&exact);
        assert!(same[&down].iter().all(|&shift| shift == 0.0));
    }
}
