//! Which files `train` writes, and which it leaves unchanged.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::{NOTES, PROGRAM, contents, corpus, fails, refused, resnet_bk, training, wait};

#[test]
fn training_leaves_finished_models_alone() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    corpus(at);
    let runs = |arguments: &[&str]| {
        let output = resnet_bk(at, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    runs(&training("run", "4", &[]));
    let files = contents(&at.join("run"));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["model.safetensors", "tokenizer.json", "train.jsonl"]);
    fails(at, &training("run", "6", &[]), 1, "run/model.safetensors would be replaced");
    fails(at, &training("run", "4", &[]), 1, "it is a finished model");
    assert!(contents(&at.join("run")) == files);
    // The outputs of an earlier run as inputs.
    let tokenizer = ["--tokenizer", "run/tokenizer.json"];
    fails(at, &training("run", "4", &tokenizer), 1, "run/model.safetensors would be replaced");
    let init = ["--init", "run/model.safetensors"];
    fails(at, &training("run", "4", &init), 1, "the command reads it");
    assert!(contents(&at.join("run")) == files);
    runs(&training("run", "6", &["--force"]));
    assert!(contents(&at.join("run"))["model.safetensors"] != files["model.safetensors"]);

    // The log may replace only logs, and not share a path with another output.
    fs::write(at.join("notes.txt"), NOTES).unwrap();
    let log = |file| training("new", "4", &["--log", file]);
    refused(at, &log("notes.txt"), "not a training log but something else");
    refused(at, &log("corpus/train.txt"), "the command reads it");
    fails(at, &log("new/model.safetensors"), 2, "two outputs of this command");
    refused(at, &log("nowhere/log"), "cannot write nowhere/log");
    assert!(contents(&at.join("new")).is_empty());
    runs(&log("run/train.jsonl"));
}

#[test]
fn one_training_at_a_time() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    corpus(at);
    let long = training("run", "100000000", &[]);
    let mut first =
        Command::new(PROGRAM).args(&long).current_dir(at).stdout(Stdio::null()).spawn().unwrap();
    wait("the first saves its state", || at.join("run/state").exists());
    // As if the first process were still writing its state.
    let temporary = at.join("run/state.1234567.tmp");
    fs::write(&temporary, "half").unwrap();
    fails(at, &long, 1, &format!("another run (process {}) holds", first.id()));
    fails(at, &training("run", "4", &["--force"]), 1, "another run");
    assert!(!at.join("run/tokenizer.json").exists(), "a tokenizer without its model");
    assert!(temporary.exists(), "the second removed what the first was writing");
    assert!(first.try_wait().unwrap().is_none(), "the first died");
    first.kill().unwrap();
    first.wait().unwrap();
    // A killed process's lock does not block, but its state belongs to other settings.
    fails(at, &training("run", "4", &[]), 1, "belongs to another training run");
    let anew = resnet_bk(at, &training("run", "4", &["--force"]));
    assert!(anew.status.success(), "{}", String::from_utf8_lossy(&anew.stderr));
    assert!(!temporary.exists());
    let files = contents(&at.join("run"));
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["model.safetensors", "tokenizer.json", "train.jsonl"]);
}
