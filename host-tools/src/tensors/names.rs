//! Maps the core's matrices to the checkpoint's tensor names.

use resnet_bk_core::blob::{self, Dimensions, TensorId};

use crate::checkpoint::{Block, Chain, ModelConfig};

/// Layer name of a matrix: its weight's name without `.weight`.
pub fn layer_name(id: TensorId) -> String {
    let bk = |l: u32| format!("blocks.{l}.bk_layer");
    match id {
        TensorId::TokenEmbedding(_) => "token_embedding".into(),
        TensorId::PositionEmbedding => "position_embedding".into(),
        TensorId::InProj(l) => format!("{}.in_proj", bk(l)),
        TensorId::Convolution(l) => format!("{}.conv", bk(l)),
        TensorId::VProj(l) => format!("{}.v_proj", bk(l)),
        TensorId::OutputProj(l) => format!("{}.output_proj", bk(l)),
        TensorId::Gate(l) => format!("{}.moe_ffn.gating_network", bk(l)),
        TensorId::ExpertUp(l, e) => format!("{}.moe_ffn.experts.{e}.0", bk(l)),
        TensorId::ExpertDown(l, e) => format!("{}.moe_ffn.experts.{e}.3", bk(l)),
        TensorId::LmHead(_) => "lm_head".into(),
    }
}

/// Weight name of a matrix, as policies match it: as in the checkpoint, except for token classes
/// after the first.
pub fn weight_name(id: TensorId) -> String {
    let layer = layer_name(id);
    match id {
        TensorId::TokenEmbedding(class @ 1..) | TensorId::LmHead(class @ 1..) => {
            format!("{layer}.class{class}.weight")
        }
        _ => format!("{layer}.weight"),
    }
}

/// Bias name of a matrix, formed as in [`weight_name`].
pub fn bias_name(id: TensorId) -> String {
    weight_name(id).replace(".weight", ".bias")
}

/// Whether a matrix is a linear layer, whose rows read the same inputs: neither a lookup table nor
/// a convolution.
pub fn is_linear(id: TensorId) -> bool {
    !id.is_embedding() && !matches!(id, TensorId::Convolution(_))
}

/// Whether a ReLU or softmax follows a layer, so that the input decides which outputs count.
pub fn feeds_a_choice(layer: &str) -> bool {
    layer == "lm_head" || layer.contains(".experts.") && layer.ends_with(".0")
}

/// The core's dimensions of a model; a valid configuration fits their limits.
pub fn dimensions(config: &ModelConfig) -> Dimensions {
    Dimensions {
        vocab: config.vocab as u32,
        width: config.width as u32,
        layers: config.layers as u32,
        experts: config.experts as u32,
        top_k: config.top_k as u32,
        hidden: config.hidden as u32,
        potentials: config.potentials as u32,
        positions: config.positions.unwrap_or(0) as u32,
        token_classes: 1,
        chain: match config.chain {
            Chain::Full => blob::Chain::Full,
            Chain::Half => blob::Chain::Half,
        },
        block: match config.block {
            Block::Resolvent => blob::Block::Resolvent,
            Block::Gated { channels } => blob::Block::Gated { channels: channels as u32 },
        },
    }
}
