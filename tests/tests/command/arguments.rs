//! Arguments at the ends of their ranges, and files of the wrong kind.

use std::path::Path;

use crate::common::{SHORT, fails, json, quantize, resnet_bk, workplace};

/// Runs a command that may fail, but must explain why.
#[track_caller]
fn survives(directory: &Path, arguments: &[&str]) {
    let output = resnet_bk(directory, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0..=2)), "{arguments:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
}

#[test]
fn the_smallest_numbers_are_no_reason_to_panic() {
    let place = workplace();
    let at = place.path();
    quantize(at, "uniform-int8", "blob.rbk");
    survives(at, &["eval", "model.safetensors", "blob.rbk", "--tokens", "1", "--window", "1"]);
    survives(at, &["eval", "model.safetensors", "--tokens", "1", "--window", "300"]);
    for top_k in ["0", "1", "64"] {
        let generate = ["generate", "blob.rbk", "--temperature", "1e-45", "--top-k", top_k];
        survives(at, &[&generate[..], &["--tokens", "0"]].concat());
        survives(at, &[&generate[..], &["--tokens", "3"]].concat());
    }
    let least = ["--calibration-tokens", "1", "--measure-tokens", "1", "--window", "1"];
    let make = ["quantize", "model.safetensors", "--policy", "uniform-int8", "--out", "a.rbk"];
    survives(at, &[&make[..], &least].concat());
    let analyze = ["analyze", "model.safetensors", "--out", "a.json", "--window", "1"];
    survives(at, &[&analyze[..], &["--tokens", "1", "--measure-tokens", "0"]].concat());
    let tune = ["finetune", "model.safetensors", "--blob", "blob.rbk", "--out", "b.rbk"];
    let least =
        ["--train-tokens", "1", "--batch", "1", "--window", "1", "--validation-tokens", "1"];
    survives(at, &[&tune[..], &least].concat());

    for split in ["train", "valid"] {
        std::fs::write(at.join(format!("{split}.txt")), "a few words. ".repeat(40)).unwrap();
    }
    let train = ["train", "--corpus", ".", "--out", "run", "--vocab", "257"];
    let least = ["--width", "--layers", "--experts", "--top-k", "--hidden", "--potentials"];
    let more = ["--steps", "--batch", "--window", "--shards", "--threads", "--validate-every"];
    let ones = least.iter().chain(&more).flat_map(|flag| [*flag, "1"]);
    survives(at, &train.into_iter().chain(ones).collect::<Vec<_>>());
    survives(at, &[&train[..], &["--width", "0"]].concat());
}

#[test]
fn the_largest_numbers_are_no_reason_to_panic() {
    let place = workplace();
    let at = place.path();
    let make = ["quantize", "model.safetensors", "--dry-run", "--quiet"];
    let most = usize::MAX.to_string();
    let target = [&make[..], &["--target-bytes", &most], &SHORT].concat();
    assert!(resnet_bk(at, &target).status.success(), "there is a largest blob");
    let huge = "18446744073709551615";
    for flag in ["--window", "--tokens"] {
        let output = resnet_bk(at, &["eval", "model.safetensors", flag, huge]);
        assert_eq!(output.status.code(), Some(2), "{flag}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("is not in 1..="), "{flag}");
    }
}

/// The window defaults to the length of the model's position table.
#[test]
fn windows_fit_the_position_table() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let theirs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pytorch/k1_top2.pt");
    let theirs = theirs.to_str().unwrap();
    json(at, &["import", theirs, "--top-k", "2", "--out", "model.safetensors", "--json"]);
    let blob = quantize(at, "uniform-int8", "blob.rbk");
    assert!(blob["blob_bytes"].as_u64().unwrap() > 0);
    let eval = ["eval", "model.safetensors", "blob.rbk", "--tokens", "120", "--json"];
    assert_eq!(json(at, &eval)["window"], 12);
    let long = [&eval[..], &["--window", "13"]].concat();
    fails(at, &long, 2, "a window of 13 tokens is longer than the model's position table of 12");
    fails(at, &["generate", "blob.rbk"], 1, "cannot stream");
}

#[test]
fn files_of_another_kind_are_called_what_they_are() {
    let place = workplace();
    let at = place.path();
    quantize(at, "uniform-int8", "blob.rbk");
    let blob = "blob.rbk is a blob, but a checkpoint";
    fails(at, &["quantize", "blob.rbk", "--policy", "static", "--out", "x"], 1, blob);
    fails(at, &["analyze", "blob.rbk", "--out", "x"], 1, blob);
    fails(at, &["finetune", "blob.rbk", "--policy", "static", "--out", "x"], 1, blob);
    let checkpoint = "model.safetensors is a checkpoint, but a blob";
    let tune = ["finetune", "model.safetensors", "--blob", "model.safetensors", "--out", "x"];
    fails(at, &tune, 1, checkpoint);
    let theirs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pytorch/k1_top2.pt");
    fails(at, &["inspect", theirs.to_str().unwrap()], 1, "is a PyTorch checkpoint");
    assert!(!at.join("x").exists());
}
