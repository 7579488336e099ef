//! Shared by the whole-path tests: blobs of real models under every kind of policy.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use resnet_bk_core::blob::TensorId;
use resnet_bk_schema::Storage;
use resnet_bk_tools::checkpoint::{Block, Chain, Checkpoint, ModelConfig};
use resnet_bk_tools::eval::sample::sample;
use resnet_bk_tools::import;
use resnet_bk_tools::policy::Policy;
use resnet_bk_tools::quantize::calibration::Calibration;
use resnet_bk_tools::quantize::division::Division;
use resnet_bk_tools::quantize::{Origin, Source};
use resnet_bk_tools::reference::Model;
use resnet_bk_tools::tensors::{Assignment, layer_name};
use resnet_bk_tools::tokenizer::Tokenizer;
use resnet_bk_tools::train::initial_model;

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The tiny half-chain model with its tokenizer.
pub fn tiny() -> Result<Source> {
    let checkpoint = Checkpoint::read(&repository("models/tiny/model.safetensors"))?;
    let tokenizer = Tokenizer::load(&repository("models/tiny/tokenizer.json"))?;
    Ok(Source::new(&checkpoint, [0; 32], 0, Some(tokenizer.section()?))?)
}

/// A full-chain model written by PyTorch, without a tokenizer.
pub fn full_chain() -> Result<Source> {
    let path = repository("tests/fixtures/pytorch/k1_top2.pt");
    let dimensions = import::Dimensions { top_k: Some(2), ..Default::default() };
    let imported = import::import(&path, &import::Options::with(dimensions))?;
    Ok(Source::new(&imported.checkpoint, [0; 32], 0, None)?)
}

/// A model of gated chains with experts, at random, with the tokenizer of the tiny model.
pub fn gated() -> Result<Source> {
    let tokenizer = Tokenizer::load(&repository("models/tiny/tokenizer.json"))?;
    let config = ModelConfig {
        vocab: tokenizer.vocab(),
        width: 32,
        layers: 2,
        experts: 2,
        top_k: 1,
        hidden: 64,
        potentials: 4,
        positions: None,
        chain: Chain::Half,
        eta_floor: 1.0 / 256.0,
        off_diagonal: 1.0,
        block: Block::Gated { channels: 64 },
    };
    let checkpoint = initial_model(config, 1)?.to_checkpoint(BTreeMap::new())?;
    Ok(Source::new(&checkpoint, [0; 32], 0, Some(tokenizer.section()?))?)
}

/// The model with three token classes and one expert of half the size.
fn divided(source: &Source, mut calibration: Calibration) -> Result<(Source, Calibration)> {
    let classes = (0..source.dims.vocab).map(|token| ['0', '1', '2'][token as usize % 3]).collect();
    let smaller = layer_name(TensorId::ExpertDown(0, 1));
    let kept = [(smaller, source.dims.hidden as usize / 2)].into();
    let mut divided = source.clone();
    divided.divide(&Division { classes, kept }, &mut calibration)?;
    Ok((divided, calibration))
}

/// The model's blobs by name: FP16, INT8, INT4, the static policy, one with every storage and one
/// with token classes.
pub fn blobs(source: &Source) -> Result<Vec<(String, Vec<u8>)>> {
    let model = Model::from_checkpoint(&source.folded);
    let window = model.config().positions.unwrap_or(64).min(64);
    let tokens = sample(&model, 16 * window, 1, |_| {})?;
    let calibration = Calibration::collect(&model, &tokens, window, 1, |_| {})?;
    let origin = Origin {
        calibration: "sampled",
        calibration_tokens: tokens.len() as u32,
        seed: 1,
        measured: None,
    };
    // Cycles through every storage that budgets choose from.
    let mixed = Assignment {
        name: "mixed".into(),
        storage: source
            .dims
            .tensors()
            .zip(Storage::CANDIDATES.into_iter().cycle())
            .map(|(id, storage)| {
                let cols = source.dims.shape(id).1 as usize;
                if storage.group <= cols.max(32) { storage } else { Storage::INT4 }
            })
            .collect(),
        potentials_int8: false,
    };
    let assignments = [
        mixed,
        Assignment::uniform("uniform-fp16", &source.dims, Storage::FP16),
        Assignment::uniform("uniform-int8", &source.dims, Storage::INT8),
        Assignment::uniform("uniform-int4", &source.dims, Storage::INT4),
        Policy::parse("static")?.assign(&source.dims, None)?,
    ];
    let mut blobs = assignments
        .into_iter()
        .map(|assignment| {
            let blob = source.quantize(&assignment, &calibration, &origin)?;
            Ok((assignment.name, blob))
        })
        .collect::<Result<Vec<_>>>()?;
    let (divided, calibration) = divided(source, calibration)?;
    let assignment = Assignment::uniform("divided", &divided.dims, Storage::INT4);
    blobs.push((assignment.name.clone(), divided.quantize(&assignment, &calibration, &origin)?));
    Ok(blobs)
}
