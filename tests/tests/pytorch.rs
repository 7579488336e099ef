//! The FP32 reference against `pytorch/`: logits of the fixtures of its own tests, for every
//! kind of block.

use std::path::{Path, PathBuf};

use resnet_bk_tools::checkpoint::Checkpoint;
use resnet_bk_tools::checkpoint::safetensors;
use resnet_bk_tools::reference::Model;

/// Between float orders of two libraries; logits are of magnitude 1 to 10.
const TOLERANCE: f32 = 1e-4;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Compares a checkpoint's logits with those in a folder of the fixtures; returns the largest.
fn compare(model: &Path, folder: &Path) -> f32 {
    let model = Model::from_checkpoint(&Checkpoint::read(model).unwrap());
    let path = folder.join("logits.safetensors");
    let fixture = safetensors::from_bytes(&std::fs::read(&path).unwrap(), &path).unwrap();
    let (tokens, exact) = (&fixture.tensors["tokens"], &fixture.tensors["logits"]);
    let window = tokens.shape[1];
    let tokens: Vec<u32> = tokens.data.iter().map(|&token| token as u32).collect();
    let found = model.forward(&tokens, window);
    assert_eq!(found.len(), exact.data.len(), "{}", path.display());
    for (found, exact) in found.iter().zip(&exact.data) {
        assert!((found - exact).abs() < TOLERANCE, "{}: {found} {exact}", path.display());
    }
    exact.data.iter().fold(0.0, |largest, logit| largest.max(logit.abs()))
}

#[test]
fn logits_are_those_of_pytorch() {
    let fixtures = repository().join("pytorch/tests/fixtures");
    let mut kinds = 0;
    for entry in std::fs::read_dir(&fixtures).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap();
        // Made there, or by `resnet-bk train`.
        let own = folder.join("model.safetensors");
        let trained = repository().join("models").join(name).join("model.safetensors");
        let largest = compare(if own.exists() { &own } else { &trained }, &folder);
        assert!(largest > 1.0, "{name:?} says nothing");
        kinds += 1;
    }
    assert_eq!(kinds, 8, "every kind of block has a fixture");
}
