//! Clips biases whose exact value cannot matter.
//!
//! The inputs of a linear layer after a layer norm have a mean square of at most 1 once the gain is
//! folded away ([`super::fold`]), so ‖x‖ ≤ √d and |w·x| ≤ ‖w‖·√d for any text. A bias beyond that
//! bound alone decides the outcome: a token is never likely, a hidden unit never or always active,
//! a potential always at its limit. All biases of a matrix share the exponent of the largest, so
//! masks of −10⁴ or −10³⁰ would leave the others no precision.

use crate::checkpoint::Checkpoint;

/// Distance below the largest logit, in nats, at which an output is impossible: e⁻¹⁰⁰ is 10⁻⁴⁴.
const IMPOSSIBLE: f64 = 100.0;
/// Potentials are clipped to ±this.
const POTENTIAL: f64 = 3.0;
/// Rounding can lengthen a normalized vector beyond √d by this factor.
const SLACK: f64 = 1.001;

/// Clips every bias of a folded checkpoint to the range where its inputs can still matter, keeping
/// probabilities, potentials and hidden units the same.
pub fn clip(folded: &mut Checkpoint) {
    for l in 0..folded.config.layers {
        let bk = format!("blocks.{l}.bk_layer");
        if folded.config.has_gate() {
            clip_softmax(folded, &format!("{bk}.moe_ffn.gating_network"));
        }
        // In a gated chain, potentials read numbers without a bound known from the weights.
        if folded.config.block.is_published() {
            clip_potentials(folded, &format!("{bk}.v_proj"));
        }
        for e in 0..folded.config.stored_experts() {
            let expert = format!("{bk}.moe_ffn.experts.{e}");
            clip_units(folded, &format!("{expert}.0"), &format!("{expert}.3"));
        }
    }
    clip_softmax(folded, "lm_head");
}

/// Bound on the magnitude of each row's dot product with a normalized input.
fn reach(checkpoint: &Checkpoint, layer: &str) -> Vec<f64> {
    let width = checkpoint.config.width;
    let rows = checkpoint.tensors[&format!("{layer}.weight")].data.chunks_exact(width);
    let square = |row: &[f32]| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>();
    rows.map(|row| (square(row) * width as f64).sqrt() * SLACK).collect()
}

/// Logits before a softmax: outputs impossible for every input are raised to the threshold of being
/// so, and all biases are shifted together if the largest logit can never be near zero.
fn clip_softmax(checkpoint: &mut Checkpoint, layer: &str) {
    let reach = reach(checkpoint, layer);
    let biases = checkpoint.data_mut(&format!("{layer}.bias"));
    let largest = |bound: &dyn Fn(f64, f64) -> f64| {
        let bounds = biases.iter().zip(&reach).map(|(&bias, &reach)| bound(f64::from(bias), reach));
        bounds.fold(f64::NEG_INFINITY, f64::max)
    };
    // For any input, the largest logit lies between these.
    let (low, high) = (largest(&|bias, reach| bias - reach), largest(&|bias, reach| bias + reach));
    if !(low.is_finite() && high.is_finite()) {
        return;
    }
    let shift = low.max(0.0) + high.min(0.0);
    for (bias, reach) in biases.iter_mut().zip(reach) {
        let least = low - IMPOSSIBLE - reach;
        if f64::from(*bias) < least {
            *bias = least as f32;
        }
        if shift != 0.0 {
            *bias = (f64::from(*bias) - shift) as f32;
        }
    }
}

/// Potentials, which are clipped to ±3: biases are clipped to where potentials are always beyond.
fn clip_potentials(checkpoint: &mut Checkpoint, layer: &str) {
    let reach = reach(checkpoint, layer);
    let biases = checkpoint.data_mut(&format!("{layer}.bias"));
    for (bias, reach) in biases.iter_mut().zip(reach) {
        let limit = (POTENTIAL + reach) as f32;
        *bias = bias.clamp(-limit, limit);
    }
}

/// Hidden units: one that is never active is zeroed; of one that is always active, the excess bias
/// is a constant and moves into the second layer's biases.
fn clip_units(checkpoint: &mut Checkpoint, up: &str, down: &str) {
    let reach = reach(checkpoint, up);
    let width = checkpoint.config.width;
    let hidden = reach.len();
    for (unit, &reach) in reach.iter().enumerate() {
        let bias = &mut checkpoint.data_mut(&format!("{up}.bias"))[unit];
        let excess = f64::from(*bias) - reach;
        let dead = f64::from(*bias) <= -reach;
        if dead {
            *bias = 0.0;
            checkpoint.data_mut(&format!("{up}.weight"))[unit * width..][..width].fill(0.0);
            let columns = checkpoint.data_mut(&format!("{down}.weight"));
            columns[unit..].iter_mut().step_by(hidden).for_each(|w| *w = 0.0);
        } else if excess > 0.0 {
            *bias = reach as f32;
            let columns = &checkpoint.tensors[&format!("{down}.weight")].data;
            let column: Vec<f32> = columns[unit..].iter().step_by(hidden).copied().collect();
            let biases = checkpoint.data_mut(&format!("{down}.bias"));
            for (bias, w) in biases.iter_mut().zip(column) {
                *bias = (f64::from(*bias) + excess * f64::from(w)) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::fold::fold;
    use crate::quantize::tests::random_checkpoint;
    use crate::reference::Model;

    const UP: &str = "blocks.0.bk_layer.moe_ffn.experts.1.0";
    const DOWN: &str = "blocks.0.bk_layer.moe_ffn.experts.1.3";

    /// Probabilities of the next token, by position.
    fn probabilities(checkpoint: &Checkpoint) -> Vec<f32> {
        let tokens: Vec<u32> = (0..48).map(|i| i * 7 % 40).collect();
        let logits = Model::from_checkpoint(checkpoint).forward(&tokens, 12);
        let mut all = Vec::new();
        for row in logits.chunks_exact(40) {
            crate::eval::divergence::log_softmax(row, &mut all);
        }
        all.iter().map(|p| p.exp()).collect()
    }

    fn same_probabilities(before: &Checkpoint, after: &Checkpoint) {
        near_probabilities(before, after, 0.0);
    }

    /// Equal probabilities, up to FP32 rounding of logits of this `magnitude` and of their
    /// normalizer.
    fn near_probabilities(before: &Checkpoint, after: &Checkpoint, magnitude: f32) {
        for (a, b) in probabilities(before).iter().zip(probabilities(after)) {
            let rounding = a * 2.0 * magnitude * f32::EPSILON;
            assert!((a - b).abs() <= 2e-5 + rounding, "{a} {b}");
        }
    }

    #[test]
    fn usual_biases_stay() {
        let folded = fold(&random_checkpoint(1, 2));
        let mut clipped = folded.clone();
        clip(&mut clipped);
        assert_eq!(clipped, folded);
    }

    #[test]
    fn masks_keep_probabilities_and_become_small() {
        for (mask, others) in [(-1e4, 0.0), (-3e4, 0.0), (-1e30, 0.0), (0.0, 1e4), (0.0, -1e4)] {
            let mut folded = fold(&random_checkpoint(1, 2));
            let biases = folded.data_mut("lm_head.bias");
            biases.iter_mut().for_each(|bias| *bias += others);
            biases[3..7].iter_mut().for_each(|bias| *bias += mask);
            let gates = folded.data_mut("blocks.1.bk_layer.moe_ffn.gating_network.bias");
            gates[1] += mask;
            let mut clipped = folded.clone();
            clip(&mut clipped);
            near_probabilities(&folded, &clipped, f32::abs(others));
            for layer in ["lm_head", "blocks.1.bk_layer.moe_ffn.gating_network"] {
                for bias in &clipped.tensors[&format!("{layer}.bias")].data {
                    assert!(bias.abs() < 150.0, "{layer}: {bias} with {mask} and {others}");
                }
            }
        }
    }

    #[test]
    fn potentials_beyond_their_limit_stay_there() {
        let mut folded = fold(&random_checkpoint(1, 2));
        let name = "blocks.0.bk_layer.v_proj.bias";
        folded.data_mut(name)[1] = 1e6;
        folded.data_mut(name)[2] = -1e6;
        let mut clipped = folded.clone();
        clip(&mut clipped);
        same_probabilities(&folded, &clipped);
        let reach = reach(&folded, "blocks.0.bk_layer.v_proj");
        assert_eq!(clipped.tensors[name].data[1], (POTENTIAL + reach[1]) as f32);
        assert_eq!(clipped.tensors[name].data[2], -(POTENTIAL + reach[2]) as f32);
    }

    #[test]
    fn units_that_are_never_or_always_active() {
        let mut folded = fold(&random_checkpoint(1, 3));
        let (up, down) = (format!("{UP}.bias"), format!("{DOWN}.weight"));
        folded.data_mut(&up)[2] = -1e9;
        folded.data_mut(&up)[5] = 400.0;
        // A unit without incoming weights is a constant.
        folded.data_mut(&format!("{UP}.weight"))[7 * 16..8 * 16].fill(0.0);
        folded.data_mut(&up)[7] = 3.0;
        let mut clipped = folded.clone();
        clip(&mut clipped);
        same_probabilities(&folded, &clipped);
        assert!(clipped.tensors[&up].data.iter().all(|bias| bias.abs() < 10.0));
        assert_eq!(clipped.tensors[&up].data[7], 0.0);
        assert!(clipped.tensors[&down].data[2..].iter().step_by(24).all(|&w| w == 0.0));
    }
}
