//! Importance files: merged, and measured in parts.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{PROGRAM, SHORT, fails, json, refused, resnet_bk, wait, workplace};

fn analyze(at: &Path, out: &str, more: &[&str]) -> Value {
    let arguments = ["analyze", "model.safetensors", "--out", out, "--quiet", "--json"];
    json(at, &[&arguments[..], &["--tokens", "1024"], more].concat())
}

#[test]
fn importance_files_are_merged_and_know_their_settings() {
    let place = workplace();
    let at = place.path();
    let analyze = |out: &str, more: &[&str]| analyze(at, out, more);
    analyze("one.json", &["--measure-tokens", "256"]);
    let merge = ["--merge", "one.json", "--merge", "one.json"];
    let merged = analyze("both.json", &merge);
    let read = |name: &str| std::fs::read(at.join(name)).unwrap();
    assert_eq!(read("one.json"), read("both.json"), "the same text twice counts once");
    assert_eq!(merged["importance"]["measured"].as_object().unwrap().len(), 22);

    analyze("other.json", &["--measure-tokens", "256", "--without", "gptq"]);
    let arguments = ["analyze", "model.safetensors", "--out", "no.json"];
    let unlike = ["--merge", "one.json", "--merge", "other.json"];
    fails(at, &[&arguments[..], &unlike].concat(), 1, "different calibration or steps");
    assert!(!at.join("no.json").exists());
    let quantize = ["quantize", "model.safetensors", "--target-ratio", "5", "--out", "no.rbk"];
    let unlike = [&quantize[..], &["--importance", "other.json"], &SHORT].concat();
    fails(at, &unlike, 1, "other steps or another calibration");
    assert!(!at.join("no.rbk").exists());
}

#[test]
fn a_table_is_measured_in_parts() {
    let place = workplace();
    let at = place.path();
    let analyze = |out: &str, more: &[&str]| analyze(at, out, more);
    let sizes = ["--measure-tokens", "256"];
    analyze("whole.json", &sizes);
    let none = analyze("part0.json", &[&sizes[..], &["--part", "0/2"]].concat());
    assert!(none["importance"]["measured"].as_object().unwrap().is_empty());
    assert!(none["importance"]["division"].is_object());
    for (part, out) in [("1/2", "part1.json"), ("2/2", "part2.json")] {
        std::fs::copy(at.join("part0.json"), at.join(out)).unwrap();
        analyze(out, &[&sizes[..], &["--part", part]].concat());
    }
    analyze("joined.json", &["--merge", "part1.json", "--merge", "part2.json"]);
    let read = |name: &str| std::fs::read(at.join(name)).unwrap();
    assert!(read("joined.json") == read("whole.json"), "parts are not the whole");
    assert!(read("part1.json") != read("part2.json"));
    let analyze = ["analyze", "model.safetensors", "--out", "no.json", "--part", "3/2"];
    let refused = resnet_bk(at, &analyze);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("third of eight"));
}

#[test]
fn a_table_is_estimated_from_a_sample() {
    let place = workplace();
    let at = place.path();
    let analysis = analyze(at, "some.json", &["--measure-tokens", "512", "--table", "estimated"]);
    let measured = analysis["importance"]["measured"].as_object().unwrap();
    let entries = |costs: &Value| costs.as_object().unwrap().len();
    let all: usize = measured.values().map(entries).sum();
    assert_eq!(measured.len(), 22);
    assert!((22..100).contains(&all), "{all} entries are measured");
    let quantize = ["quantize", "model.safetensors", "--target-ratio", "6", "--json", "--quiet"];
    let made =
        |out: &str, how: &[&str]| json(at, &[&quantize[..], &["--out", out], &SHORT, how].concat());
    let estimated = made("estimated.rbk", &["--table", "estimated", "--importance", "some.json"]);
    let measured = made("measured.rbk", &[]);
    assert!(estimated["ratio"].as_f64().unwrap() >= 6.0, "{estimated}");
    let eval = ["eval", "model.safetensors", "estimated.rbk", "measured.rbk", "--tokens", "4096"];
    let scores = json(at, &[&eval[..], &["--json", "--quiet"]].concat());
    let kl = |i: usize| scores["blobs"][i]["fidelity"]["kl"].as_f64().unwrap();
    // On so few tokens both are far from the best.
    assert!(kl(0) < 1.5 * kl(1), "{} instead of {}: {measured}", kl(0), kl(1));
}

#[test]
fn an_interrupted_target_resumes() {
    let place = workplace();
    let at = place.path();
    let quantize = ["quantize", "model.safetensors", "--target-ratio", "6", "--json", "--quiet"];
    let to = |out: &'static str| [&quantize[..], &["--out", out], &SHORT].concat();
    json(at, &to("whole.rbk"));
    let kept = at.join("part.rbk.importance");
    let mut running = Command::new(PROGRAM)
        .args(to("part.rbk"))
        .current_dir(at)
        .env_remove("WIKITEXT2_DIR")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait("no measurements are kept", || kept.exists());
    running.kill().unwrap();
    running.wait().unwrap();
    assert!(kept.exists() && !at.join("part.rbk").exists(), "it was too late for an interruption");
    let other = [&to("part.rbk")[..], &["--seed", "2"]].concat();
    refused(at, &other, "the seed was 1, is now 2");
    json(at, &to("part.rbk"));
    assert!(!kept.exists(), "measurements are kept after the run");
    let read = |name: &str| std::fs::read(at.join(name)).unwrap();
    assert!(read("part.rbk") == read("whole.rbk"), "the interruption changed the result");
}
