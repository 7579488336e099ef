//! The gated chain, by the product's own FP32 reference.

use resnet_bk_tools::checkpoint::{Checkpoint, ModelConfig};
use resnet_bk_tools::reference::Model;

use super::mixer::Network;
use crate::blocks::tensors::{Failure, Tensors};

/// The reference model.
pub(super) struct Gated(Model);

impl Gated {
    pub(super) fn new(tensors: &Tensors, config: &ModelConfig) -> Result<Self, Failure> {
        let checkpoint =
            Checkpoint::new(config.clone(), tensors.0.clone(), std::collections::BTreeMap::new())?;
        Ok(Self(Model::from_checkpoint(&checkpoint)))
    }
}

impl Network for Gated {
    fn logits(&self, tokens: &[u32], window: usize) -> Result<Vec<f32>, Failure> {
        Ok(self.0.forward(tokens, window))
    }
}
