//! Importance files: merged, and measured in parts.

use crate::common::{SHORT, fails, json, resnet_bk, workplace};

#[test]
fn importance_files_are_merged_and_know_their_settings() {
    let place = workplace();
    let at = place.path();
    let analyze = |out: &str, more: &[&str]| {
        let arguments = ["analyze", "model.safetensors", "--out", out, "--quiet", "--json"];
        json(at, &[&arguments[..], &["--tokens", "1024"], more].concat())
    };
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
    let analyze = |out: &str, more: &[&str]| {
        let arguments = ["analyze", "model.safetensors", "--out", out, "--quiet", "--json"];
        json(at, &[&arguments[..], &["--tokens", "1024"], more].concat())
    };
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
