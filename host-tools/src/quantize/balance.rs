//! Balancing: rescales hidden units so that both of their weight vectors have similar norms.
//!
//! ReLU(s·x) = s·ReLU(x) for s > 0, so a unit's row of an expert's first matrix, its bias included,
//! can be multiplied by s and its column of the second divided by s: one free scale per unit that
//! leaves the function unchanged but not the rounding. Biases share an exponent, codes of the
//! second matrix share a scale per group, and activations are rounded relative to the largest.
//! Training with weight decay equalizes both norms, which also suits rounding; balancing brings
//! them within a factor of 2 of each other, whatever the checkpoint.
//!
//! A channel of a gated chain has a free scale as well: its row of `in_proj` can be multiplied by s
//! and its taps divided by s. The codes of all channels of a position share one scale, so the
//! channels' inputs are brought to about the same magnitude; rows of both matrices have scales of
//! their own.
//!
//! Scales are powers of two: FP32 results are unchanged to the bit, except where values become
//! subnormal.

use crate::checkpoint::{Block, Checkpoint};

/// Balances the hidden units of every expert of a folded checkpoint.
pub fn balance(folded: &mut Checkpoint) {
    let (layers, experts) = (folded.config.layers, folded.config.stored_experts());
    for (l, e) in (0..layers).flat_map(|l| (0..experts).map(move |e| (l, e))) {
        let expert = format!("blocks.{l}.bk_layer.moe_ffn.experts.{e}");
        balance_expert(folded, &format!("{expert}.0"), &format!("{expert}.3"));
    }
    if let Block::Gated { channels } = folded.config.block {
        for l in 0..layers {
            balance_channels(folded, &format!("blocks.{l}.bk_layer"), channels);
        }
    }
}

/// Brings the inputs of a convolution's channels to about the same magnitude.
fn balance_channels(checkpoint: &mut Checkpoint, bk: &str, channels: usize) {
    let width = checkpoint.config.width;
    let get = |name: &str| &checkpoint.tensors[&format!("{bk}.{name}")].data;
    let rows = get("in_proj.weight").chunks_exact(width).zip(get("in_proj.bias"));
    let taps = get("conv.weight");
    let scales: Vec<f64> = rows
        .take(channels)
        .enumerate()
        .map(|(c, (row, bias))| {
            let (input, taps) =
                (norm(row.iter().chain([bias])), norm(taps[c..].iter().step_by(channels)));
            if input == 0.0 || taps == 0.0 { 0.0 } else { (-input.log2()).round().exp2() }
        })
        .collect();
    let rows = checkpoint.data_mut(&format!("{bk}.in_proj.weight")).chunks_exact_mut(width);
    for (row, &scale) in rows.zip(&scales) {
        row.iter_mut().for_each(|w| times(w, scale));
    }
    let biases = checkpoint.data_mut(&format!("{bk}.in_proj.bias"));
    biases.iter_mut().zip(&scales).for_each(|(bias, &scale)| times(bias, scale));
    for taps in checkpoint.data_mut(&format!("{bk}.conv.weight")).chunks_exact_mut(channels) {
        taps.iter_mut().zip(&scales).for_each(|(w, &scale)| times(w, inverse(scale)));
    }
}

fn balance_expert(checkpoint: &mut Checkpoint, up: &str, down: &str) {
    let (width, hidden) = (checkpoint.config.width, checkpoint.config.hidden);
    let get = |name: String| &checkpoint.tensors[&name].data;
    let rows = get(format!("{up}.weight")).chunks_exact(width);
    let biases = get(format!("{up}.bias"));
    let columns = get(format!("{down}.weight"));
    let scales: Vec<f64> = rows
        .zip(biases)
        .enumerate()
        .map(|(unit, (row, bias))| {
            let row = norm(row.iter().chain([bias]));
            scale(row, norm(columns[unit..].iter().step_by(hidden)))
        })
        .collect();
    let rows = checkpoint.data_mut(&format!("{up}.weight")).chunks_exact_mut(width);
    for (row, &scale) in rows.zip(&scales) {
        row.iter_mut().for_each(|w| times(w, scale));
    }
    let biases = checkpoint.data_mut(&format!("{up}.bias"));
    biases.iter_mut().zip(&scales).for_each(|(bias, &scale)| times(bias, scale));
    for row in checkpoint.data_mut(&format!("{down}.weight")).chunks_exact_mut(hidden) {
        row.iter_mut().zip(&scales).for_each(|(w, &scale)| times(w, inverse(scale)));
    }
}

fn times(value: &mut f32, scale: f64) {
    *value = (f64::from(*value) * scale) as f32;
}

/// The power of two that brings the norms of `row · s` and `column / s` closest together; 0 for a
/// unit that contributes nothing, which zeroes its weights.
fn scale(row: f64, column: f64) -> f64 {
    if row == 0.0 || column == 0.0 {
        return 0.0;
    }
    ((column.log2() - row.log2()) / 2.0).round().exp2()
}

/// The inverse of a scale; 0 for 0.
fn inverse(scale: f64) -> f64 {
    if scale == 0.0 { 0.0 } else { scale.recip() }
}

fn norm<'a>(values: impl Iterator<Item = &'a f32>) -> f64 {
    values.map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantize::fold::fold;
    use crate::quantize::tests::{random_checkpoint, random_gated};
    use crate::reference::Model;

    const UP: &str = "blocks.1.bk_layer.moe_ffn.experts.2.0";
    const DOWN: &str = "blocks.1.bk_layer.moe_ffn.experts.2.3";

    /// Multiplies the rows of the first `units` hidden units by a factor and divides their columns
    /// by it.
    fn rescale(checkpoint: &mut Checkpoint, units: usize, factor: impl Fn(usize) -> f32) {
        let (width, hidden) = (checkpoint.config.width, checkpoint.config.hidden);
        for unit in 0..units {
            let factor = factor(unit);
            let rows = checkpoint.data_mut(&format!("{UP}.weight"));
            rows[unit * width..][..width].iter_mut().for_each(|w| *w *= factor);
            checkpoint.data_mut(&format!("{UP}.bias"))[unit] *= factor;
            let columns = checkpoint.data_mut(&format!("{DOWN}.weight"));
            columns[unit..].iter_mut().step_by(hidden).for_each(|w| *w /= factor);
        }
    }

    fn forward(checkpoint: &Checkpoint) -> Vec<f32> {
        let tokens: Vec<u32> = (0..48).map(|i| i * 7 % 40).collect();
        Model::from_checkpoint(checkpoint).forward(&tokens, 12)
    }

    #[test]
    fn no_bit_of_the_function_changes() {
        let mut folded = fold(&random_checkpoint(1, 3));
        rescale(&mut folded, 20, |unit| [1e-30, 1e-6, 1e-3, 7.0, 1e4, 1e30][unit % 6]);
        // A unit with zero outgoing weights, and one with zero incoming weights and bias.
        let hidden = folded.config.hidden;
        folded.data_mut(&format!("{DOWN}.weight"))[22..]
            .iter_mut()
            .step_by(hidden)
            .for_each(|w| *w = 0.0);
        folded.data_mut(&format!("{UP}.bias"))[23] = 0.0;
        let width = folded.config.width;
        folded.data_mut(&format!("{UP}.weight"))[23 * width..].fill(0.0);
        let mut balanced = folded.clone();
        balance(&mut balanced);
        assert_ne!(balanced, folded);
        assert_eq!(forward(&balanced), forward(&folded));
    }

    #[test]
    fn whatever_scale_units_come_with_they_leave_with_the_same() {
        let plain = fold(&random_checkpoint(1, 3));
        let mut expected = plain.clone();
        balance(&mut expected);
        for power in [-90, -10, 1, 20, 90] {
            let mut scaled = plain.clone();
            rescale(&mut scaled, 20, |unit| {
                if unit % 2 == 0 { 2f32.powi(power) } else { 2f32.powi(-power) }
            });
            balance(&mut scaled);
            assert_eq!(scaled, expected, "2^{power}");
        }
        // Balancing is idempotent.
        let mut again = expected.clone();
        balance(&mut again);
        assert_eq!(again, expected);
    }

    #[test]
    fn channels_of_any_scale_become_the_same() {
        let plain = fold(&random_gated(1, (0, 1, 1)));
        let mut expected = plain.clone();
        balance(&mut expected);
        assert_ne!(expected, plain);
        assert_eq!(forward(&expected), forward(&plain));
        let bk = "blocks.1.bk_layer";
        let (width, channels) = (plain.config.width, 20);
        for power in [-60, -3, 40] {
            let mut scaled = plain.clone();
            let factor = |c: usize| if c.is_multiple_of(3) { 2f32.powi(power) } else { 1.0 };
            for c in 0..channels {
                let rows = scaled.data_mut(&format!("{bk}.in_proj.weight"));
                rows[c * width..][..width].iter_mut().for_each(|w| *w *= factor(c));
                scaled.data_mut(&format!("{bk}.in_proj.bias"))[c] *= factor(c);
                let taps = scaled.data_mut(&format!("{bk}.conv.weight"));
                taps[c..].iter_mut().step_by(channels).for_each(|w| *w /= factor(c));
            }
            balance(&mut scaled);
            assert_eq!(scaled, expected, "2^{power}");
        }
    }

    #[test]
    fn norms_end_within_a_factor_of_two() {
        for (row, column) in [(1.0, 1.0), (3.0, 1e-9), (1e-20, 5.0), (1e30, 1e-30), (1.0, 2.1)] {
            let scale = scale(row, column);
            let ratio = row * scale / (column / scale);
            assert!((0.5..=2.0).contains(&ratio), "{row} {column}: {ratio}");
        }
        assert_eq!((scale(0.0, 1.0), scale(1.0, 0.0)), (0.0, 0.0));
    }
}
