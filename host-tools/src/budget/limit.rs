//! A limit on the instructions of a token's matrix-vector products.

use resnet_bk_core::blob::TensorId;
use resnet_bk_core::kernels::Core;
use resnet_bk_schema::Storage;

use crate::error::Result;
use crate::instructions::Counts;
use crate::quantize::Source;

/// At most so many instructions per multiply-accumulate on a core, on average over the products of
/// a token.
#[derive(Clone, Debug)]
pub struct Limit {
    counts: Counts,
    per_mac: f64,
}

impl Limit {
    /// A limit for a core.
    pub fn new(core: Core, per_mac: f64) -> Result<Self> {
        Ok(Self { counts: Counts::of(core)?, per_mac })
    }

    /// Instructions that a matrix takes per token; none for an embedding, of which a token reads a
    /// row.
    pub(super) fn instructions(&self, source: &Source, id: TensorId, storage: Storage) -> f64 {
        if id.is_embedding() {
            return 0.0;
        }
        let (rows, cols) = source.shape(id);
        let fast = !matches!(id, TensorId::Convolution(_)) || storage == Storage::INT8;
        self.counts.product(storage, fast, [rows, cols])
    }

    /// Instructions that all products may take per token.
    pub(super) fn total(&self, source: &Source) -> f64 {
        let macs = |id: TensorId| {
            let (rows, cols) = source.shape(id);
            if id.is_embedding() { 0 } else { rows * cols }
        };
        self.per_mac * source.dims.tensors().map(macs).sum::<usize>() as f64
    }
}
