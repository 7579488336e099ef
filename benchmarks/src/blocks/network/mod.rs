//! Forward passes in FP32: what evaluation needs, and no more.

mod attention;
mod gated;
mod gru;
mod layers;
pub(super) mod mamba;
mod mixer;
#[cfg(test)]
pub(super) mod tests;

pub(super) use mixer::Network;

use super::tensors::{Failure, Tensors};
use super::trained::{Dimensions, Kind};
use layers::{FeedForward, Linear, Norm};
use mixer::Mixer;

/// The model of these weights.
pub(super) fn build(dims: &Dimensions, tensors: &Tensors) -> Result<Box<dyn Network>, Failure> {
    match &dims.kind {
        Kind::Gated(config) => Ok(Box::new(gated::Gated::new(tensors, config)?)),
        _ => Ok(Box::new(Stack::new(dims, tensors)?)),
    }
}

/// Embedding, blocks, normalization, output layer.
struct Stack {
    embedding: Vec<f32>,
    width: usize,
    blocks: Vec<Block>,
    norm: Norm,
    head: Linear,
}

struct Block {
    norm: Norm,
    mixer: Box<dyn Mixer>,
    ffn: Option<FeedForward>,
}

impl Stack {
    fn new(dims: &Dimensions, tensors: &Tensors) -> Result<Self, Failure> {
        let width = dims.width;
        let block = |l: usize| -> Result<Block, Failure> {
            let (block, mixer) = (format!("blocks.{l}"), format!("blocks.{l}.mixer"));
            let mixer: Box<dyn Mixer> = match dims.kind {
                Kind::Mamba { channels, states } => {
                    Box::new(mamba::Mamba::new(tensors, &mixer, (width, channels, states))?)
                }
                Kind::Gru => Box::new(gru::Gru::new(tensors, &mixer, width)?),
                Kind::Attention { heads } => {
                    Box::new(attention::Attention::new(tensors, &mixer, (width, heads))?)
                }
                Kind::Gated(_) => return Err("a gated chain is not a stack".into()),
            };
            let norm = Norm::new(tensors, &format!("{block}.norm"), width)?;
            let ffn = match dims.hidden {
                0 => None,
                hidden => Some(FeedForward::new(tensors, &block, (width, hidden))?),
            };
            Ok(Block { norm, mixer, ffn })
        };
        let head = Linear::new(tensors, "lm_head", width)?;
        if head.outputs != dims.vocab {
            return Err(format!("lm_head does not have {} rows", dims.vocab).into());
        }
        Ok(Self {
            embedding: tensors.vector("token_embedding.weight", dims.vocab * width)?,
            width,
            blocks: (0..dims.layers).map(block).collect::<Result<_, _>>()?,
            norm: Norm::new(tensors, "norm", width)?,
            head,
        })
    }
}

impl Network for Stack {
    fn logits(&self, tokens: &[u32], window: usize) -> Result<Vec<f32>, Failure> {
        let mut h = Vec::with_capacity(tokens.len() * self.width);
        for &token in tokens {
            let row = self.embedding.chunks_exact(self.width).nth(token as usize);
            h.extend(row.ok_or_else(|| format!("token {token} is not in the vocabulary"))?);
        }
        let add = |h: &mut [f32], y: Vec<f32>| h.iter_mut().zip(y).for_each(|(h, y)| *h += y);
        for block in &self.blocks {
            let y = block.mixer.forward(&block.norm.forward(&h), window)?;
            add(&mut h, y);
            if let Some(ffn) = &block.ffn {
                let y = ffn.forward(&h)?;
                add(&mut h, y);
            }
        }
        self.head.forward(&self.norm.forward(&h))
    }
}
