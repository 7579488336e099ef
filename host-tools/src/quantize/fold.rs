//! Folding: an equivalent model with fewer parameters.
//!
//! A layer norm's gain γ and bias β fold into every linear layer that reads its output:
//! `W·(γ∘n + β) + b = (W·diag γ)·n + (b + W·β)`. `bk_scale` folds into `output_proj`. What remains,
//! bare normalization and matrices, is what the blob stores and the core computes.

use crate::checkpoint::Checkpoint;

/// The equivalent folded checkpoint: gains 1, norm biases 0, `bk_scale` 1.
pub fn fold(checkpoint: &Checkpoint) -> Checkpoint {
    let mut folded = checkpoint.clone();
    for l in 0..checkpoint.config.layers {
        let bk = format!("blocks.{l}.bk_layer");
        let mut readers = vec![format!("{bk}.v_proj"), format!("{bk}.moe_ffn.gating_network")];
        readers
            .extend((0..checkpoint.config.experts).map(|e| format!("{bk}.moe_ffn.experts.{e}.0")));
        fold_norm(&mut folded, &format!("blocks.{l}.layer_norm"), &readers);
        let scale = std::mem::replace(&mut folded.data_mut(&format!("{bk}.bk_scale"))[0], 1.0);
        for part in ["weight", "bias"] {
            let values = folded.data_mut(&format!("{bk}.output_proj.{part}"));
            values.iter_mut().for_each(|value| *value *= scale);
        }
    }
    fold_norm(&mut folded, "layer_norm_final", &["lm_head".into()]);
    folded
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
    use crate::quantize::tests::random_checkpoint;
    use crate::reference::Model;

    #[test]
    fn folding_keeps_the_function() {
        let checkpoint = random_checkpoint(1, 3);
        let tokens: Vec<u32> = (0..24).map(|i| i * 5 % 40).collect();
        let before = Model::from_checkpoint(&checkpoint).forward(&tokens, 12);
        let after = Model::from_checkpoint(&fold(&checkpoint)).forward(&tokens, 12);
        for (a, b) in before.iter().zip(&after) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}
