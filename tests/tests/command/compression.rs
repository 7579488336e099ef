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
