//! Running the command as a user does.
#![allow(dead_code, reason = "no test file needs all of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

pub(crate) fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny/model.safetensors")
}

/// Runs the command in `directory`, without any corpus in the environment.
pub(crate) fn resnet_bk(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_resnet-bk"))
        .args(arguments)
        .current_dir(directory)
        .env_remove("WIKITEXT2_DIR")
        .output()
        .expect("the command starts")
}

#[track_caller]
pub(crate) fn json(directory: &Path, arguments: &[&str]) -> Value {
    let output = resnet_bk(directory, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    serde_json::from_slice(&output.stdout).expect("one JSON object on standard output")
}

/// Runs a command that must fail with exit code `code`, name `cause` and offer help.
#[track_caller]
pub(crate) fn fails(directory: &Path, arguments: &[&str], code: i32, cause: &str) {
    let output = resnet_bk(directory, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(cause), "{arguments:?} says: {stderr}");
    assert!(stderr.contains("help: "), "{arguments:?} offers no help: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// A directory with a link to the tiny model, as users would have their own.
pub(crate) fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(model().with_file_name(file), directory.path().join(file)).unwrap();
    }
    directory
}

pub(crate) const SHORT: [&str; 4] = ["--calibration-tokens", "1024", "--measure-tokens", "512"];

pub(crate) fn quantize(directory: &Path, policy: &str, out: &str) -> Value {
    let arguments =
        ["quantize", "model.safetensors", "--policy", policy, "--out", out, "--json", "--quiet"];
    json(directory, &[&arguments[..], &SHORT].concat())
}
