//! Running the command as a user would.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use resnet_bk_tools::tokenizer::Tokenizer;
use serde_json::Value;

/// The command.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_resnet-bk-under-test");

/// The tiny model.
pub(crate) fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny/model.safetensors")
}

/// Runs the command in `directory`, without any corpus in the environment.
pub(crate) fn resnet_bk(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(PROGRAM)
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

/// Runs a command that must fail with exit code `code`, state `cause` and offer help.
#[track_caller]
pub(crate) fn fails(directory: &Path, arguments: &[&str], code: i32, cause: &str) {
    let output = resnet_bk(directory, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
    assert!(stderr.contains(cause), "{arguments:?} says: {stderr}");
    assert!(stderr.contains("help: "), "{arguments:?} offers no help: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// A directory with a link to the tiny model, in place of a user's model.
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

/// Every file of a directory with its content.
pub(crate) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.metadata().unwrap().is_file());
    files
        .map(|entry| {
            (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// Runs a command that must be refused before it writes anything: no file changes or appears.
#[track_caller]
pub(crate) fn refused(at: &Path, arguments: &[&str], cause: &str) {
    let before = contents(at);
    fails(at, arguments, 1, cause);
    assert!(contents(at) == before, "{arguments:?} changed files");
}

/// Arguments of a short `quantize` run to `out`.
pub(crate) fn to<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let arguments = ["quantize", "model.safetensors", "--policy", "uniform-int4", "--quiet"];
    [&arguments[..], &SHORT, &["--out", out], more].concat()
}

pub(crate) const NOTES: &str = "notes of a user, which are long enough to calibrate on\n";

pub(crate) const ANALYZE: [&str; 6] =
    ["analyze", "model.safetensors", "--quiet", "--json", "--tokens", "1024"];

/// Writes a corpus from which 260 tokens can be learnt.
pub(crate) fn corpus(at: &Path) {
    fs::create_dir(at.join("corpus")).unwrap();
    let words = ["the castle", " was built", " in the north", " of the old land", ".\n"];
    let text: String = (0..600).map(|i| words[i * i % 7 % words.len()]).collect();
    for split in ["train.txt", "valid.txt"] {
        fs::write(at.join("corpus").join(split), &text).unwrap();
    }
}

pub(crate) fn training<'a>(out: &'a str, steps: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let arguments = ["train", "--corpus", "corpus", "--quiet", "--out", out, "--steps", steps];
    let model = ["--vocab", "260", "--width", "8", "--layers", "1", "--hidden", "8"];
    let rest = ["--experts", "2", "--top-k", "1", "--potentials", "2", "--threads", "1"];
    let short = ["--batch", "2", "--window", "16", "--shards", "1", "--save-every", "2"];
    [&arguments[..], &model, &rest, &short, more].concat()
}

/// Waits for an effect of a background process.
#[track_caller]
pub(crate) fn wait(what: &str, done: impl Fn() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(120), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a wrong command line, which clap must refuse with exit code 2.
#[track_caller]
pub(crate) fn fails_usage(directory: &Path, arguments: &[&str]) {
    let output = resnet_bk(directory, arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be used with"));
}

/// A text unlike the tiny model's training text.
pub(crate) fn numbers() -> String {
    let words: Vec<String> = (0..2000).map(|i| (i * i).to_string()).collect();
    words.join(" ")
}

/// A tokenizer of `vocab` tokens other than the tiny model's.
pub(crate) fn foreign_tokenizer(vocab: usize) -> Tokenizer {
    Tokenizer::train(&[&numbers()], vocab).unwrap()
}
