//! Tests of the whole quantizer, and random models that other tests share.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use resnet_bk_core::{Model, Window};

use super::calibration::Calibration;
use super::*;
use crate::checkpoint::Checkpoint;
use crate::checkpoint::{Block, Chain, ModelConfig, Tensor};
use crate::reference;
use crate::tensors::Assignment;
use resnet_bk_schema::Storage;

/// A model of 40 tokens, width 16, 2 blocks, 3 experts and 5 potentials.
pub(crate) fn random_checkpoint(seed: u64, top_k: usize) -> Checkpoint {
    random_checkpoint_of(
        ModelConfig {
            vocab: 40,
            width: 16,
            layers: 2,
            experts: 3,
            top_k,
            hidden: 24,
            potentials: 5,
            positions: None,
            chain: Chain::Half,
            eta_floor: 0.03125,
            off_diagonal: 1.0,
            block: Block::Resolvent,
        },
        seed,
    )
}

/// The same as a gated chain of 20 channels, with `(hidden, experts, top_k)`.
pub(crate) fn random_gated(
    seed: u64,
    (hidden, experts, top_k): (usize, usize, usize),
) -> Checkpoint {
    let block = Block::Gated { channels: 20 };
    let config = random_checkpoint(seed, 1).config;
    random_checkpoint_of(ModelConfig { hidden, experts, top_k, block, ..config }, seed)
}

/// A model of these dimensions with random weights of realistic magnitude.
pub(crate) fn random_checkpoint_of(config: ModelConfig, seed: u64) -> Checkpoint {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut tensors = BTreeMap::new();
    for spec in config.tensors() {
        let count = spec.shape.iter().product::<usize>();
        let (centre, spread) = match spec.name.rsplit('.').nth(1) {
            _ if spec.name.ends_with("bk_scale") => (0.8, 0.1),
            _ if spec.name.ends_with("diagonal") => (-1.5, 0.5),
            _ if spec.name.ends_with("log_eta") => (-1.0, 1.0),
            Some(norm) if norm.contains("norm") && spec.name.ends_with("weight") => (1.0, 0.3),
            Some("token_embedding" | "position_embedding") => (0.0, 1.0),
            Some("conv") => (0.0, 0.75),
            _ => (0.0, 1.5 / (*spec.shape.last().unwrap_or(&1) as f32).sqrt()),
        };
        let data = (0..count).map(|_| centre + spread * random.random_range(-1f32..1.0)).collect();
        tensors.insert(spec.name, Tensor { shape: spec.shape, data });
    }
    Checkpoint::new(config, tensors, BTreeMap::new()).unwrap()
}

fn origin() -> Origin<'static> {
    Origin { calibration: "none", calibration_tokens: 0, seed: 0, measured: None }
}

/// Logits of a blob over a window.
fn score(blob: &[u8], window: &[u32]) -> Vec<f32> {
    let model = Model::from_bytes(blob).unwrap();
    let mut logits = Vec::new();
    let mut scorer = Window::allocate(model.clone(), window.len(), 4).unwrap();
    scorer.score(window, |_, l| logits.extend(l.iter().map(|l| l.to_f32()))).unwrap();
    logits
}

#[test]
fn the_integer_path_follows_the_reference() {
    for (chain, positions) in [(Chain::Half, None), (Chain::Full, Some(12))] {
        for top_k in 1..=3 {
            let mut config = random_checkpoint(0, top_k).config;
            (config.chain, config.positions) = (chain, positions);
            follows_the_reference(&random_checkpoint_of(config, 7));
        }
    }
}

#[test]
fn the_integer_path_follows_the_reference_of_a_gated_chain() {
    for sizes in [(0, 1, 1), (24, 1, 1), (24, 3, 2)] {
        follows_the_reference(&random_gated(7, sizes));
    }
}

fn follows_the_reference(checkpoint: &Checkpoint) {
    let source = Source::new(checkpoint, [0; 32], 0, None).unwrap();
    let calibration = Calibration::default();
    let window: Vec<u32> = (0..12).map(|i| i * 7 % 40).collect();
    let exact = reference::Model::from_checkpoint(checkpoint).forward(&window, 12);
    let spread = exact.iter().map(|l| f64::from(l * l)).sum::<f64>() / exact.len() as f64;
    for (storage, limit) in [(Storage::FP16, 0.05), (Storage::INT8, 0.06), (Storage::INT4, 0.4)] {
        let assignment = Assignment::uniform("test", &source.dims, storage);
        let blob = source.quantize(&assignment, &calibration, &origin()).unwrap();
        assert_eq!(blob.len(), source.predict(&assignment, &origin()).unwrap());
        let logits = score(&blob, &window);
        // The median position: where two gate logits nearly tie, rounding may choose the other
        // expert, and the error is larger than that of rounding.
        let mut errors: Vec<f64> = logits
            .chunks_exact(40)
            .zip(exact.chunks_exact(40))
            .map(|(a, b)| {
                let squares = a.iter().zip(b).map(|(a, b)| f64::from((a - b) * (a - b)));
                squares.sum::<f64>() / 40.0
            })
            .collect();
        errors.sort_by(f64::total_cmp);
        let relative = (errors[errors.len() / 2] / spread).sqrt();
        assert!(relative < limit, "{storage:?} {:?}: {relative}", checkpoint.config);
    }
}

#[test]
fn calibration_does_not_depend_on_the_number_of_threads() {
    for checkpoint in [random_checkpoint(3, 2), random_gated(3, (24, 3, 2))] {
        let model = reference::Model::from_checkpoint(&checkpoint);
        let tokens: Vec<u32> = (0..12 * 60).map(|i| i * i % 40).collect();
        let collect = |threads| {
            let calibrate = || Calibration::collect(&model, &tokens, 12, 1, |_| {}).unwrap();
            crate::threads::with(threads, calibrate)
        };
        let one = collect(1);
        assert!([2, 5].into_iter().all(|threads| collect(threads) == one));
    }
}
