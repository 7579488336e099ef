//! What the inputs of each linear layer look like on a text.

use std::collections::BTreeMap;

use rayon::prelude::*;

use crate::reference::{LinearCall, Model, Observer};

/// First and second moments of a layer's inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// Rows that were seen; for an expert, tokens that were routed to it.
    pub rows: usize,
    /// Mean of each input.
    pub mean: Vec<f64>,
    /// Mean square of each input.
    pub mean_square: Vec<f64>,
}

/// Moments of every layer's inputs by layer name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    layers: BTreeMap<String, Moments>,
}

impl Calibration {
    /// Runs the (folded) model over windows of `window` tokens. The result does not depend on the
    /// number of threads.
    pub fn collect(model: &Model, tokens: &[u32], window: usize) -> Self {
        // A fixed number of tokens a part, summed in order: the same sums on any machine.
        let parts: Vec<Sums> = tokens
            .par_chunks(window * 8)
            .map(|part| {
                let mut sums = Sums::default();
                let whole = part.len() / window * window;
                if whole > 0 {
                    model.forward_observed(&part[..whole], window, &mut sums);
                }
                sums
            })
            .collect();
        let mut total = Sums::default();
        for part in parts {
            total.add(part);
        }
        let mean = |sum: &f64, rows: usize| sum / rows.max(1) as f64;
        let layers = total.layers.into_iter().map(|(name, sums)| {
            let rows = sums.rows;
            let moments = Moments {
                rows,
                mean: sums.sum.iter().map(|s| mean(s, rows)).collect(),
                mean_square: sums.square.iter().map(|s| mean(s, rows)).collect(),
            };
            (name, moments)
        });
        Self { layers: layers.collect() }
    }

    /// Moments of a layer's `cols` inputs; where the text never reached the layer (an embedding, an
    /// expert that no token was routed to), mean 0 and mean square 1.
    pub fn moments(&self, layer: &str, cols: usize) -> Moments {
        self.layers.get(layer).cloned().unwrap_or_else(|| Moments {
            rows: 0,
            mean: vec![0.0; cols],
            mean_square: vec![1.0; cols],
        })
    }

    /// Layers by name with the rows that each saw.
    pub fn rows(&self) -> impl Iterator<Item = (&str, usize)> {
        self.layers.iter().map(|(name, moments)| (name.as_str(), moments.rows))
    }
}

#[derive(Default)]
struct Sums {
    layers: BTreeMap<String, LayerSums>,
}

#[derive(Default)]
struct LayerSums {
    rows: usize,
    sum: Vec<f64>,
    square: Vec<f64>,
}

impl LayerSums {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.sum.resize(other.sum.len(), 0.0);
        self.square.resize(other.square.len(), 0.0);
        self.sum.iter_mut().zip(&other.sum).for_each(|(a, b)| *a += b);
        self.square.iter_mut().zip(&other.square).for_each(|(a, b)| *a += b);
    }
}

impl Sums {
    fn add(&mut self, other: Self) {
        for (name, sums) in other.layers {
            self.layers.entry(name).or_default().add(&sums);
        }
    }
}

impl Observer for Sums {
    fn linear(&mut self, call: LinearCall<'_>) {
        let layer = self.layers.entry(call.name.to_string()).or_default();
        layer.sum.resize(call.input_width, 0.0);
        layer.square.resize(call.input_width, 0.0);
        for row in call.inputs.chunks_exact(call.input_width) {
            layer.rows += 1;
            for ((&x, sum), square) in row.iter().zip(&mut layer.sum).zip(&mut layer.square) {
                let x = f64::from(x);
                *sum += x;
                *square += x * x;
            }
        }
    }
}
