//! Forward passes against the logits of PyTorch, in `benchmarks/fixtures/blocks`.

use std::path::Path;

use resnet_bk_tools::checkpoint::safetensors::{self, Container};

use super::super::trained::Trained;
use super::build;

/// A model of a fixture, its tokens, their window and logits.
pub(in crate::blocks) fn fixture(name: &str) -> (Container, Vec<u32>, usize, Vec<f32>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/blocks");
    let path = folder.join(name).with_extension("safetensors");
    let mut container = safetensors::from_bytes(&std::fs::read(&path).unwrap(), &path).unwrap();
    let tokens = container.tensors.remove("fixture.tokens").unwrap();
    let logits = container.tensors.remove("fixture.logits").unwrap();
    let values = tokens.data.iter().map(|&token| token as u32).collect();
    (container, values, tokens.shape[1], logits.data)
}

pub(in crate::blocks) const FIXTURES: [&str; 5] = ["mamba", "mamba1", "gru", "attention", "gated"];

#[test]
fn logits_are_those_of_pytorch() {
    for name in FIXTURES {
        let (container, tokens, window, expected) = fixture(name);
        let trained = Trained::of(container).unwrap();
        let network = build(&trained.dims, &trained.tensors).unwrap();
        let logits = network.logits(&tokens, window).unwrap();
        assert_eq!(logits.len(), expected.len(), "{name}");
        let size = expected.iter().fold(0.0f32, |peak, x| peak.max(x.abs()));
        assert!(size > 1.0, "{name}: logits that say something");
        for (logit, expected) in logits.iter().zip(&expected) {
            assert!((logit - expected).abs() < 1e-5 * size, "{name}: {logit} {expected}");
        }
        // One window alone is the same: states are reset.
        let alone = network.logits(&tokens[window..], window).unwrap();
        let together = &logits[logits.len() - alone.len()..];
        assert!(alone.iter().zip(together).all(|(a, b)| (a - b).abs() < 1e-5 * size), "{name}");
    }
}

#[test]
fn missing_and_misshapen_tensors_are_errors() {
    for name in FIXTURES {
        let (container, ..) = fixture(name);
        for tensor in container.tensors.keys() {
            let mut broken = container.clone();
            broken.tensors.remove(tensor);
            let trained = Trained::of(broken);
            // Only biases of layers are optional.
            if trained.is_ok_and(|trained| build(&trained.dims, &trained.tensors).is_ok()) {
                assert!(tensor.ends_with(".bias") && name != "gated", "{name} without {tensor}");
            }
            let mut broken = container.clone();
            let found = broken.tensors.get_mut(tensor).unwrap();
            found.data.pop();
            found.shape = vec![found.data.len()];
            let trained = Trained::of(broken);
            let built = trained.and_then(|trained| build(&trained.dims, &trained.tensors));
            assert!(built.is_err(), "{name} with a short {tensor}");
        }
    }
}
