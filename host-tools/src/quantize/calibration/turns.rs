//! Sums that batches add to in their order, whichever thread computes them, so that sums do not
//! depend on the number of threads and there is one of each.
//!
//! Backward passes meet the layers in the same order. A batch waits at a layer until the one before
//! it has passed there: batches follow each other through the model.

use std::collections::BTreeMap;

use super::channels::ChannelSums;
use super::statistics::Statistics;
use super::sums::{LayerSums, Sums};
use crate::reference::LayerGradient;
use crate::threads::Turn;

/// The sums of every layer, by name.
pub(super) struct Turns {
    layers: BTreeMap<String, Turn<Sums>>,
}

/// A batch on its way; dropping it lets the next one pass everywhere.
pub(super) struct Pass<'a> {
    turns: &'a Turns,
    batch: usize,
}

impl Turns {
    /// Without any batch, for linear layers and embeddings and for convolutions of these names.
    pub(super) fn new(
        linear: impl Iterator<Item = String>,
        convolutions: impl Iterator<Item = String>,
    ) -> Self {
        let linear = linear.map(|name| (name, Sums::Linear(LayerSums::default())));
        let convolutions =
            convolutions.map(|name| (name, Sums::Convolution(ChannelSums::default())));
        let turn = |(name, sums)| (name, Turn::new(sums));
        Self { layers: linear.chain(convolutions).map(turn).collect() }
    }

    /// Batch number `batch`; every number from 0 on must have its turn.
    pub(super) fn pass(&self, batch: usize) -> Pass<'_> {
        Pass { turns: self, batch }
    }

    /// Statistics of linear layers and embeddings that were reached, and of every channel of the
    /// convolutions.
    pub(super) fn finish(
        self,
    ) -> (BTreeMap<String, Statistics>, BTreeMap<String, Vec<Statistics>>) {
        let (mut layers, mut convolutions) = (BTreeMap::new(), BTreeMap::new());
        for (name, turn) in self.layers {
            match turn.into_inner() {
                Sums::Linear(sums) if sums.is_empty() => {}
                Sums::Linear(sums) => {
                    layers.insert(name, sums.finish());
                }
                Sums::Convolution(sums) => {
                    convolutions.insert(name, sums.finish());
                }
            }
        }
        (layers, convolutions)
    }
}

impl Pass<'_> {
    /// Adds what the batch's backward pass saw of a layer. `scratch` is a buffer.
    pub(super) fn add(&self, seen: LayerGradient<'_, f32>, scratch: &mut Vec<f64>) {
        let name = match seen {
            LayerGradient::Linear(seen) => seen.name,
            LayerGradient::Convolution(seen) => seen.name,
        };
        self.turns.layers[name].take(self.batch, |sums| sums.add(seen, scratch));
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // Layers that the batch did not reach, such as experts that no token was routed to.
        self.turns.layers.values().for_each(|turn| turn.take(self.batch, |_| {}));
    }
}
