//! Imported checkpoints give the same logits as PyTorch; see `tests/fixtures/make_pytorch.py` and
//! `tests/fixtures/make_import.py`.

use resnet_bk_tools::import::{Dimensions, Options, import};
use resnet_bk_tools::reference::Model;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn numbers<T>(file: &SafeTensors, name: &str, from: impl Fn([u8; 4]) -> T) -> Vec<T> {
    let view = file.tensor(name).unwrap();
    view.data().as_chunks::<4>().0.iter().map(|&chunk| from(chunk)).collect()
}

fn routed(top_k: usize) -> Options {
    Options::with(Dimensions { top_k: Some(top_k), ..Dimensions::default() })
}

/// The largest difference between our logits and PyTorch's of a published model.
fn largest_error(checkpoint: &str, expected: &str, top_k: usize) -> f32 {
    let of = |name: &str| format!("pytorch/{name}");
    difference(&of(checkpoint), &of(expected), &routed(top_k))
}

/// The largest difference between our logits and PyTorch's.
fn difference(checkpoint: &str, expected: &str, options: &Options) -> f32 {
    let checkpoint = import(&fixture(checkpoint), options).unwrap().checkpoint;
    let expected = std::fs::read(fixture(expected)).unwrap();
    let expected = SafeTensors::deserialize(&expected).unwrap();
    let window = expected.tensor("tokens").unwrap().shape()[1];
    let tokens = numbers(&expected, "tokens", u32::from_le_bytes);
    let wanted = numbers(&expected, "logits", f32::from_le_bytes);
    assert!(tokens.len() >= 2 * window);
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

/// One tiny model in the ways that people store models.
#[test]
fn every_way_to_store_a_model_gives_the_logits_of_pytorch() {
    let tied = Options { tied: true, ..routed(1) };
    let state = |name: &str| Options { state: Some(name.into()), ..routed(1) };
    let half = Options::with(Dimensions {
        top_k: Some(2),
        eta_floor: Some(0.25),
        off_diagonal: Some(0.5),
        ..Dimensions::default()
    });
    for (checkpoint, expected, options) in [
        ("plain.pt", "plain", routed(1)),
        ("prefixed.pt", "plain", routed(1)),
        ("mixed.safetensors", "plain", routed(1)),
        ("wrapped.pt", "plain", state("model_state_dict")),
        ("single.pt", "plain", routed(1)),
        ("shards/model.safetensors.index.json", "plain", routed(1)),
        ("shards", "plain", routed(1)),
        ("binary/pytorch_model.bin.index.json", "plain", routed(1)),
        ("binary", "plain", routed(1)),
        ("f16.safetensors", "f16", routed(1)),
        ("bf16.safetensors", "bf16", routed(1)),
        ("bf16.pt", "bf16", routed(1)),
        ("f64.pt", "plain", routed(1)),
        ("strided.pt", "plain", routed(1)),
        ("legacy.pt", "plain", routed(1)),
        ("module.pt", "plain", routed(1)),
        ("tied.pt", "tied", tied.clone()),
        ("tied.safetensors", "tied", tied),
        ("half.pt", "half", half),
    ] {
        let expected = format!("import/{expected}.logits.safetensors");
        let error = difference(&format!("import/{checkpoint}"), &expected, &options);
        println!("{checkpoint}: {error:e}");
        assert!(error < 1e-5, "{checkpoint}: logits differ by up to {error:e}");
    }
    let other = difference("import/wrapped.pt", "import/plain.logits.safetensors", &state("ema"));
    assert!(other > 0.1, "the averaged weights are others: {other}");
}
