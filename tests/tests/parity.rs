//! Imported checkpoints give the same logits as PyTorch; see `tests/fixtures/make_pytorch.py`.

use resnet_bk_tools::import::{Dimensions, Options, import};
use resnet_bk_tools::reference::Model;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pytorch").join(name)
}

fn numbers<T>(file: &SafeTensors, name: &str, from: impl Fn([u8; 4]) -> T) -> Vec<T> {
    let view = file.tensor(name).unwrap();
    view.data().as_chunks::<4>().0.iter().map(|&chunk| from(chunk)).collect()
}

/// The largest difference between our logits and PyTorch's.
fn largest_error(checkpoint: &str, expected: &str, top_k: usize) -> f32 {
    let dimensions = Dimensions { top_k: Some(top_k), ..Dimensions::default() };
    let checkpoint = import(&fixture(checkpoint), &Options::with(dimensions)).unwrap().checkpoint;
    let expected = std::fs::read(fixture(expected)).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let window = expected.tensor("tokens").unwrap().shape()[1];
    let tokens = numbers(&expected, "tokens", u32::from_le_bytes);
    let wanted = numbers(&expected, "logits", f32::from_le_bytes);
    assert_eq!(tokens.len(), 3 * window);
    let logits = Model::from_checkpoint(&checkpoint).forward(&tokens, window);
    assert_eq!(logits.len(), wanted.len());
    // Nearly constant logits would prove nothing.
    let spread = wanted.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(spread > 1.0, "{spread}");
    logits.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn logits_are_those_of_pytorch() {
    for (checkpoint, expected, top_k) in [
        ("k1_top1.pt", "k1_top1.expected.safetensors", 1),
        ("k1_top1.safetensors", "k1_top1.expected.safetensors", 1),
        ("k1_top2.pt", "k1_top2.expected.safetensors", 2),
        ("k1_dense.pt", "k1_dense.expected.safetensors", 3),
        ("k1_dense_nested.pt", "k1_dense.expected.safetensors", 3),
    ] {
        let error = largest_error(checkpoint, expected, top_k);
        println!("{checkpoint}: {error:e}");
        assert!(error < 1e-4, "{checkpoint}: logits differ by up to {error:e}");
    }
}

#[test]
fn another_top_k_is_another_model() {
    for top_k in [2, 3] {
        let error = largest_error("k1_top1.pt", "k1_top1.expected.safetensors", top_k);
        assert!(error > 1e-2, "top {top_k}: {error:e}");
    }
}
