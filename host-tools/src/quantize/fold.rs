//! Folding: an equivalent model with fewer parameters.
//!
//! A layer norm's gain γ and bias β fold into every linear layer that reads its output:
//! `W·(γ∘n + β) + b = (W·diag γ)·n + (b + W·β)`. `bk_scale` folds into `output_proj`. What remains,
//! bare normalization and matrices, is what the blob stores and the core computes. In a gated chain
//! the first norm is read by `in_proj`, the second by the experts and their gate.

use crate::checkpoint::{Block, Checkpoint};

/// The equivalent folded checkpoint: gains 1, norm biases 0, `bk_scale` 1.
pub fn fold(checkpoint: &Checkpoint) -> Checkpoint {
    let mut folded = checkpoint.clone();
    for l in 0..checkpoint.config.layers {
        let bk = format!("blocks.{l}.bk_layer");
        let mut experts: Vec<String> = (0..checkpoint.config.stored_experts())
            .map(|e| format!("{bk}.moe_ffn.experts.{e}.0"))
            .collect();
        if checkpoint.config.has_gate() {
            experts.push(format!("{bk}.moe_ffn.gating_network"));
        }
        let norm = format!("blocks.{l}.layer_norm");
        match checkpoint.config.block {
            Block::Resolvent => {
                experts.push(format!("{bk}.v_proj"));
                fold_norm(&mut folded, &norm, &experts);
                fold_scale(&mut folded, &bk);
            }
            Block::Gated { .. } => {
                fold_norm(&mut folded, &norm, &[format!("{bk}.in_proj")]);
                if !experts.is_empty() {
                    fold_norm(&mut folded, &format!("blocks.{l}.ffn_norm"), &experts);
                }
            }
        }
    }
    fold_norm(&mut folded, "layer_norm_final", &["lm_head".into()]);
    folded
}

fn fold_scale(checkpoint: &mut Checkpoint, bk: &str) {
    let scale = std::mem::replace(&mut checkpoint.data_mut(&format!("{bk}.bk_scale"))[0], 1.0);
    for part in ["weight", "bias"] {
        let values = checkpoint.data_mut(&format!("{bk}.output_proj.{part}"));
        values.iter_mut().for_each(|value| *value *= scale);
    }
}

fn fold_norm(checkpoint: &mut Checkpoint, norm: &str, readers: &[String]) {
    let gain = std::mem::take(checkpoint.data_mut(&format!("{norm}.weight")));
    let bias = std::mem::take(checkpoint.data_mut(&format!("{norm}.bias")));
    for reader in readers {
        let weights = checkpoint.data_mut(&format!("{reader}.weight"));
        let mut shifts = Vec::with_capacity(weights.len() / gain.len());
        for row in weights.chunks_exact_mut(gain.len()) {
            let products = row.iter().zip(&bias).map(|(&w, &b)| f64::from(w) * f64::from(b));
            shifts.push(products.sum::<f64>());
            row.iter_mut().zip(&gain).for_each(|(w, g)| *w *= g);
        }
        let biases = checkpoint.data_mut(&format!("{reader}.bias"));
        biases.iter_mut().zip(shifts).for_each(|(b, s)| *b = (f64::from(*b) + s) as f32);
    }
    *checkpoint.data_mut(&format!("{norm}.weight")) = vec![1.0; gain.len()];
    *checkpoint.data_mut(&format!("{norm}.bias")) = vec![0.0; gain.len()];
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::tests::{random_checkpoint, random_gated};
    use crate::reference::Model;

    #[test]
    fn folding_keeps_the_function() {
        let gated = [(0, 1, 1), (24, 1, 1), (24, 3, 2)].map(|sizes| random_gated(1, sizes));
        for checkpoint in gated.into_iter().chain([random_checkpoint(1, 3)]) {
            let tokens: Vec<u32> = (0..24).map(|i| i * 5 % 40).collect();
            let before = Model::from_checkpoint(&checkpoint).forward(&tokens, 12);
            let after = Model::from_checkpoint(&fold(&checkpoint)).forward(&tokens, 12);
            for (a, b) in before.iter().zip(&after) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
            let norms = |name: &str| name.contains("norm.") || name.contains("norm_final.");
            let folded = fold(&checkpoint);
            for (name, tensor) in folded.tensors.iter().filter(|(name, _)| norms(name)) {
                let identity = f32::from(u8::from(name.ends_with("weight")));
                assert!(tensor.data.iter().all(|&x| x == identity), "{name} is left");
            }
        }
    }
}
