//! Initial weights.

use crate::checkpoint::{ModelConfig, TAPS};
use crate::error::Result;
use crate::reference::Model;
use crate::train::random::Random;

/// Range of the initial η of a block's potentials, log-uniform: from long memory to little more
/// than the current position.
const ETA: (f64, f64) = (0.05, 1.0);

/// Standard deviation of the embeddings: learns faster than 0.5 when small beside the blocks'
/// outputs.
const EMBEDDING: f64 = 0.1;
/// The same for a gated chain, whose η sets the longest memory.
const GATED_ETA: (f64, f64) = (0.004, 1.0);

/// Standard deviation of the gate's weights: small, so that routing starts out even.
const GATE: f64 = 0.02;

/// A model to start training from, deterministic for a seed.
///
/// Linear weights are normal with variance 1/inputs. Layers that write to the residual stream are
/// scaled down by sqrt(2 · layers), so that its variance does not grow with depth. The chain starts
/// at the published diagonal, −2.
pub fn initial_model(config: ModelConfig, seed: u64) -> Result<Model> {
    let mut random = Random::initial(seed);
    let mut model = Model::<f32>::zeros(config)?;
    let config = model.config().clone();
    let residual = (2.0 * config.layers as f64).sqrt().recip();
    let specs: Vec<_> = model.tensors().map(|(s, range)| (s.clone(), range)).collect();
    for (spec, range) in specs {
        let values = &mut model.parameters_mut()[range];
        let suffix = spec.name.rsplit('.').take(2).collect::<Vec<_>>();
        let inputs = spec.shape.last().map_or(1.0, |&n| n as f64);
        let deviation = inputs.sqrt().recip();
        match (suffix[0], suffix.get(1).copied()) {
            ("diagonal", _) => values.fill(-2.0),
            ("bk_scale", _) => values.fill(1.0),
            ("log_eta", _) => {
                let range = if config.block.is_published() { ETA } else { GATED_ETA };
                spread_eta(values, range, f64::from(config.eta_floor));
            }
            ("bias", _) => values.fill(0.0),
            ("weight", Some("layer_norm" | "layer_norm_final" | "ffn_norm")) => values.fill(1.0),
            ("weight", Some("conv")) => initial_taps(values, &mut random),
            ("weight", Some("token_embedding" | "position_embedding")) => {
                fill(values, &mut random, EMBEDDING);
            }
            // An expert's second layer and the chain's output write to the residual stream.
            ("weight", Some("3" | "output_proj")) => {
                fill(values, &mut random, deviation * residual);
            }
            ("weight", Some("gating_network")) => fill(values, &mut random, GATE),
            _ => fill(values, &mut random, deviation),
        }
    }
    Ok(model)
}

fn fill(values: &mut [f32], random: &mut Random, deviation: f64) {
    for value in values {
        *value = (random.normal() * deviation) as f32;
    }
}

/// The current position passes through, earlier ones are mixed in.
fn initial_taps(taps: &mut [f32], random: &mut Random) {
    let channels = taps.len() / TAPS;
    for (i, tap) in taps.iter_mut().enumerate() {
        let through = if i / channels == TAPS - 1 { 0.7 } else { 0.0 };
        *tap = (through + 0.6 * (random.unit() - 0.5)) as f32;
    }
}

fn spread_eta(log_eta: &mut [f32], range: (f64, f64), floor: f64) {
    let (low, high) = (range.0.max(floor).ln(), range.1.max(floor).ln());
    let steps = (log_eta.len() - 1).max(1) as f64;
    let single = log_eta.len() == 1;
    for (i, value) in log_eta.iter_mut().enumerate() {
        // With a single potential: the published η, 1.
        let part = if single { 1.0 } else { i as f64 / steps };
        *value = (low + (high - low) * part) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Block, Chain};

    fn config(potentials: usize) -> ModelConfig {
        ModelConfig {
            vocab: 64,
            width: 32,
            layers: 2,
            experts: 2,
            top_k: 1,
            hidden: 64,
            potentials,
            positions: None,
            chain: Chain::Half,
            eta_floor: 0.0625,
            off_diagonal: 1.0,
            block: Block::Resolvent,
        }
    }

    #[test]
    fn every_tensor_gets_its_scale() {
        let model = initial_model(config(8), 1).unwrap();
        let deviation = |name: &str| {
            let values = model.tensor(name).unwrap();
            (values.iter().map(|x| x * x).sum::<f32>() / values.len() as f32).sqrt()
        };
        let bk = "blocks.1.bk_layer";
        let near = |name: &str, expected: f32| {
            let found = deviation(name);
            assert!((found / expected - 1.0).abs() < 0.2, "{name}: {found}, not {expected}");
        };
        near("token_embedding.weight", 0.1);
        near("lm_head.weight", 32f32.sqrt().recip());
        near(&format!("{bk}.v_proj.weight"), 32f32.sqrt().recip());
        near(&format!("{bk}.output_proj.weight"), 16f32.sqrt().recip() / 2.0);
        near(&format!("{bk}.moe_ffn.experts.1.0.weight"), 32f32.sqrt().recip());
        near(&format!("{bk}.moe_ffn.experts.1.3.weight"), 64f32.sqrt().recip() / 2.0);
        near(&format!("{bk}.moe_ffn.gating_network.weight"), 0.02);
        near(&format!("{bk}.diagonal"), 2.0);
        near(&format!("{bk}.bk_scale"), 1.0);
        near("blocks.0.layer_norm.weight", 1.0);
        near("layer_norm_final.weight", 1.0);
        assert_eq!(deviation("lm_head.bias"), 0.0);
        assert_eq!(deviation("layer_norm_final.bias"), 0.0);
    }

    #[test]
    fn eta_spreads_from_the_floor_to_one_and_a_single_potential_is_the_published_one() {
        let eta = |potentials| {
            let model = initial_model(config(potentials), 1).unwrap();
            let log = model.tensor("blocks.0.bk_layer.log_eta").unwrap();
            log.iter().map(|x| x.exp()).collect::<Vec<f32>>()
        };
        let spread = eta(8);
        assert!((spread[0] - 0.0625).abs() < 1e-6 && (spread[7] - 1.0).abs() < 1e-6);
        assert!(spread.is_sorted());
        assert_eq!(eta(1), [1.0]);
    }
}
