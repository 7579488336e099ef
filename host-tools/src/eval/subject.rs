//! Models under evaluation.

use resnet_bk_core as core;

use crate::reference::Model;

/// A model to compare with the reference.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A blob, on the integer path.
    Blob(core::Model<'a>),
    /// The FP32 model with other weights.
    Weights(Model),
}
