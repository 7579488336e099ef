//! Text is compressed, comes back, and what is damaged or does not fit is refused.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{PROGRAM, fails, json, refused, resnet_bk};

const TEXT: &str = "The castle was built in 1204.\nIt has two towers.\n\nThe end";

/// A directory with a small blob and a text.
fn workplace() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let blob = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/64k/model.rbk");
    fs::copy(blob, directory.path().join("model.rbk")).unwrap();
    fs::write(directory.path().join("text.txt"), TEXT).unwrap();
    directory
}

#[test]
fn a_text_is_compressed_and_comes_back() {
    let place = workplace();
    let at = place.path();
    fs::write(at.join("examples.txt"), "The tower was built in 1203.\n").unwrap();
    for more in [&[][..], &["--lines"], &["--lines", "--carry"], &["--prime", "examples.txt"]] {
        let compress =
            ["compress", "model.rbk", "text.txt", "--out", "text.rbt", "--verify", "--json"];
        let report = json(at, &[&compress[..], more].concat());
        assert_eq!(report["text_bytes"], TEXT.len());
        assert_eq!(report["bytes"], fs::metadata(at.join("text.rbt")).unwrap().len());
        assert!(report["code_bits_per_byte"].as_f64().unwrap() < 5.0, "{report}");
        let prime = if more.first() == Some(&"--prime") { more } else { &[] };
        let decompress = ["decompress", "model.rbk", "text.rbt", "--out", "again.txt", "--json"];
        json(at, &[&decompress[..], prime, &["--force"]].concat());
        assert_eq!(fs::read_to_string(at.join("again.txt")).unwrap(), TEXT);
    }
    // Primed, but not said so.
    let out = ["decompress", "model.rbk", "text.rbt", "--out", "other.txt"];
    refused(at, &out, "pass it with --prime");
}

#[test]
fn pipes_carry_both() {
    let place = workplace();
    let run = |command: &str, input: &[u8]| {
        fs::write(place.path().join("input"), input).unwrap();
        let input = fs::File::open(place.path().join("input")).unwrap();
        let mut child = Command::new(PROGRAM);
        child.args([command, "model.rbk"]).current_dir(&place).stdin(Stdio::from(input));
        let output = child.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    assert_eq!(run("decompress", &run("compress", TEXT.as_bytes())), TEXT.as_bytes());
    assert_eq!(run("decompress", &run("compress", b"")), b"");
}

/// Bare messages come back, and a damaged one is named.
#[test]
fn messages_are_lines_of_digits() {
    let place = workplace();
    let at = place.path();
    let both = ["--hex", "--check", "16", "--identity", "--json"];
    let compress = ["compress", "model.rbk", "text.txt", "--out", "text.hex", "--verify"];
    let report = json(at, &[&compress[..], &both].concat());
    assert_eq!((&report["messages"], &report["verified"]), (&4.into(), &true.into()));
    let digits = fs::read_to_string(at.join("text.hex")).unwrap();
    assert_eq!(digits.lines().map(|line| line.len() as u64 / 2).sum::<u64>(), report["bytes"]);
    let decompress = ["decompress", "model.rbk", "text.hex", "--out", "again.txt"];
    json(at, &[&decompress[..], &both].concat());
    assert_eq!(fs::read_to_string(at.join("again.txt")).unwrap(), format!("{TEXT}\n"));

    let mut lines: Vec<&str> = digits.lines().collect();
    let damaged = lines[1].replace(char::is_numeric, "a");
    lines[1] = &damaged;
    fs::write(at.join("text.hex"), lines.join("\n")).unwrap();
    let decompress = ["decompress", "model.rbk", "text.hex", "--out", "part.txt", "--salvage"];
    fails(at, &[&decompress[..], &both].concat(), 1, "message 2 is lost");
    let rest: Vec<&str> = TEXT.lines().enumerate().filter(|(i, _)| *i != 1).map(|l| l.1).collect();
    assert_eq!(fs::read_to_string(at.join("part.txt")).unwrap(), rest.join("\n") + "\n");

    fs::write(at.join("text.hex"), "0a1b\nxyz\n").unwrap();
    let decompress = ["decompress", "model.rbk", "text.hex", "--out", "none.txt"];
    fails(at, &[&decompress[..], &both].concat(), 1, "line 2 is not hexadecimal");
    for more in [&["--check", "8"][..], &["--carry"], &["--hex", "--lines"]] {
        let output = resnet_bk(at, &[&["compress", "model.rbk", "text.txt"][..], more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}");
    }
}

#[test]
fn words_are_suggested() {
    let place = workplace();
    let at = place.path();
    let words = |text: &str, more: &[&str]| {
        let report = json(at, &[&["suggest", "model.rbk", text, "--json"][..], more].concat());
        let found = report["suggestions"].as_array().unwrap().clone();
        let text = |word: &serde_json::Value| word["text"].as_str().unwrap().to_owned();
        let each = found.iter().map(|word| (text(word), word["probability"].as_f64().unwrap()));
        each.collect::<Vec<_>>()
    };
    let found = words("The castle was built in th", &[]);
    assert_eq!(found[0].0, " the", "{found:?}");
    assert!(found[0].1 > 0.3 && found.len() == 5, "{found:?}");
    let found = words("The castle was ", &["--count", "16", "--tokens"]);
    assert!(found.len() == 16 && found.is_sorted_by(|a, b| a.1 >= b.1), "{found:?}");
}

#[test]
fn damage_is_named_and_salvaged_around() {
    let place = workplace();
    let at = place.path();
    json(at, &["compress", "model.rbk", "text.txt", "--chunk", "20", "--out", "t.rbt", "--json"]);
    let mut bytes = fs::read(at.join("t.rbt")).unwrap();
    // Within the body of the first chunk.
    bytes[54] ^= 4;
    fs::write(at.join("t.rbt"), &bytes).unwrap();
    refused(at, &["decompress", "model.rbk", "t.rbt", "--out", "new.txt"], "chunk 0 is lost");
    let salvage = ["decompress", "model.rbk", "t.rbt", "--salvage", "--out", "new.txt"];
    fails(at, &salvage, 1, "chunk 0 is lost");
    assert_eq!(fs::read_to_string(at.join("new.txt")).unwrap(), TEXT[20..]);
    fs::write(at.join("t.rbt"), &bytes[..bytes.len() - 30]).unwrap();
    let cut = resnet_bk(at, &["decompress", "model.rbk", "t.rbt"]);
    assert!(String::from_utf8_lossy(&cut.stderr).contains("cut short"));
    assert!(cut.stdout.is_empty());
}

#[test]
fn what_is_there_stays() {
    let place = workplace();
    let at = place.path();
    let compress = ["compress", "model.rbk", "text.txt", "--out", "text.txt"];
    refused(at, &compress, "the command reads it");
    json(at, &["compress", "model.rbk", "text.txt", "--out", "t.rbt", "--json"]);
    let decompress = ["decompress", "model.rbk", "t.rbt", "--out", "text.txt"];
    refused(at, &decompress, "a file that is there already");
    refused(at, &["decompress", "model.rbk", "text.txt", "--out", "new.txt"], "first bytes");
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/16k/model.rbk");
    fs::copy(tiny, at.join("tiny.rbk")).unwrap();
    refused(at, &["decompress", "tiny.rbk", "t.rbt", "--out", "new.txt"], "checksum");
}
