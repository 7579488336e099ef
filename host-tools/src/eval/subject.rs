//! What is evaluated.

use resnet_bk_core as core;

use crate::reference::Model;

/// A model that is compared with the reference.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A blob, through the integer path.
    Blob(core::Model<'a>),
    /// Other weights in the FP32 model.
    Weights(Model),
}
