//! Which tokens are stored alike, and which hidden units not at all.

use rayon::prelude::*;
use resnet_bk_core::blob::TensorId;

use super::Bench;
use crate::error::Result;
use crate::quantize::Source;
use crate::quantize::calibration::Calibration;
use crate::quantize::division::{Division, contributions, least_last};
use crate::quantize::names::layer_name;

/// Hidden units are given up so many at a time: what kernels take at once, and a group of codes.
const UNITS: usize = 32;
/// KL divergence in nats per token that giving up hidden units of an expert may cost. Of the best mixes
/// five times smaller than FP32 it is one or two hundredths.
const GIVEN_UP: f64 = 2e-5;
/// Ranks between which classes may begin, and the most classes that those are tried for.
const CUTS: usize = 32;
/// What a token's rows matter at least, as a share of the mean: two tokens that were not seen once are not
/// told apart.
const FLOOR: f64 = 1e-3;

/// Divides a model into what a budget may store differently.
pub fn divide(
    bench: &Bench<'_>,
    calibration: &Calibration,
    progress: impl Fn(f64) + Sync,
) -> Result<Division> {
    let source = bench.source();
    let classes = if source.methods.classes { classes(source, calibration) } else { String::new() };
    let experts: Vec<(u32, u32)> = source.experts().filter(|_| source.methods.prune).collect();
    let done = std::sync::atomic::AtomicUsize::new(0);
    let kept: Vec<Option<(String, usize)>> = experts
        .par_iter()
        .map(|&(l, e)| {
            let kept = needed(bench, calibration, TensorId::ExpertDown(l, e))?;
            let count = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            progress(count as f64 / experts.len() as f64);
            Ok(kept.map(|kept| (layer_name(TensorId::ExpertDown(l, e)), kept)))
        })
        .collect::<Result<_>>()?;
    Ok(Division { classes, kept: kept.into_iter().flatten().collect() })
}

/// Hidden units that an expert needs, if not all.
fn needed(bench: &Bench<'_>, calibration: &Calibration, down: TensorId) -> Result<Option<usize>> {
    let source = bench.source();
    let (width, hidden) = source.shape(down);
    let layer = layer_name(down);
    let weights = &source.folded.tensors[&format!("{layer}.weight")].data;
    let adds = contributions(weights, &calibration.statistics(&layer, width, hidden));
    let mut enough = None;
    for kept in (1..hidden).rev().filter(|kept| kept.is_multiple_of(UNITS)) {
        let dropped = &least_last(&adds, kept)[kept..];
        let mut without = weights.clone();
        for row in without.chunks_exact_mut(hidden) {
            dropped.iter().for_each(|&unit| row[unit] = 0.0);
        }
        if bench.kl_with_weights(down, &without)? > GIVEN_UP {
            break;
        }
        enough = Some(kept);
    }
    Ok(enough)
}

/// Classes of tokens by how much the rows of both token tables matter, the most important first; the
/// ranks at which they begin are those with the smallest product of distortions over all rows, which is
/// what a fixed number of bits comes down to.
fn classes(source: &Source, calibration: &Calibration) -> String {
    let vocab = source.dims.vocab as usize;
    if vocab < CUTS {
        return String::new();
    }
    let tables = [TensorId::TokenEmbedding(0), TensorId::LmHead(0)]
        .map(|id| matter(source, calibration, id));
    let mut ranked: Vec<usize> = (0..vocab).collect();
    let both = |token: usize| tables[0][token] * tables[1][token];
    ranked.sort_by(|&a, &b| both(b).total_cmp(&both(a)));
    // Logarithm of the mean over ranks, times their number.
    let stretch = |from: usize, to: usize| -> f64 {
        let (from, to) = (from * vocab / CUTS, to * vocab / CUTS);
        let log = |table: &Vec<f64>| {
            let sum: f64 = ranked[from..to].iter().map(|&token| table[token]).sum();
            (sum / (to - from) as f64).ln() * (to - from) as f64
        };
        tables.iter().map(log).sum()
    };
    let mut best = (f64::INFINITY, [0; 3]);
    for a in 1..CUTS - 2 {
        for b in a + 1..CUTS - 1 {
            let first = stretch(0, a) + stretch(a, b);
            for c in b + 1..CUTS {
                let total = first + stretch(b, c) + stretch(c, CUTS);
                if total < best.0 {
                    best = (total, [a, b, c]);
                }
            }
        }
    }
    let mut classes = vec!['0'; vocab];
    for (rank, &token) in ranked.iter().enumerate() {
        let class = best.1.iter().filter(|&&cut| rank >= cut * vocab / CUTS).count();
        classes[token] = ['0', '1', '2', '3'][class];
    }
    classes.into_iter().collect()
}

/// How much an error of each token's row matters, relative to its magnitude: by how often the token
/// occurs for the embedding, by its gradients for the output layer. The mean is 1.
fn matter(source: &Source, calibration: &Calibration, table: TensorId) -> Vec<f64> {
    let layer = layer_name(table);
    let (rows, cols) = source.shape(table);
    let weights = &source.folded.tensors[&format!("{layer}.weight")].data;
    let statistics = calibration.statistics(&layer, rows, cols);
    let squares = weights
        .chunks_exact(cols)
        .map(|row| row.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>());
    let weight: Vec<f64> = if table.is_embedding() {
        (0..rows).map(|token| calibration.count(token as u32) as f64).collect()
    } else {
        statistics.outputs.diagonal().collect()
    };
    let mut matter: Vec<f64> =
        squares.zip(weight).map(|(square, weight)| square * weight).collect();
    let mean = (matter.iter().sum::<f64>() / rows as f64).max(f64::MIN_POSITIVE);
    matter.iter_mut().for_each(|value| *value = (*value / mean).max(FLOOR));
    matter
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::ModelConfig;
    use crate::eval::sample::sample;
    use crate::quantize::tests::{random_checkpoint, random_checkpoint_of};
    use crate::reference::Model;

    #[test]
    fn frequent_tokens_come_first_and_dead_units_go() {
        let hidden = 2 * UNITS;
        let config = ModelConfig { hidden, ..random_checkpoint(3, 2).config };
        let mut checkpoint = random_checkpoint_of(config, 3);
        let up = "blocks.0.bk_layer.moe_ffn.experts.0.0.bias";
        checkpoint.data_mut(up)[..UNITS + 5].fill(-1e3);
        // Tokens 0 to 3 are common.
        checkpoint.data_mut("lm_head.bias")[..4].fill(5.0);
        let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
        let model = Model::from_checkpoint(&source.folded);
        let tokens = sample(&model, 1024, 1, |_| {}).unwrap();
        let calibration = Calibration::collect(&model, &tokens, 16, 1, |_| {}).unwrap();
        let bench = Bench::new(&source, &calibration, &tokens[..512], 16);
        let division = divide(&bench, &calibration, |_| {}).unwrap();
        assert_eq!(division.classes.len(), checkpoint.config.vocab);
        assert!(division.classes.starts_with("0000"), "{}", division.classes);
        let down = layer_name(TensorId::ExpertDown(0, 0));
        assert_eq!(division.kept.get(&down), Some(&UNITS), "{:?}", division.kept);
        let mut divided = source.clone();
        divided.divide(&division, &mut calibration.clone()).unwrap();
        assert!(divided.dims.token_classes > 1);
    }
}
