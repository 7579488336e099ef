//! Standard output that is closed or full, paths that are not UTF-8, and logs instead of terminals.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::common::{PROGRAM, SHORT, quantize, workplace};
use serde_json::Value;

fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(directory).env_remove("WIKITEXT2_DIR");
    command
}

/// Standard error and exit code of a command whose reader closes the pipe after one byte.
fn cut_short(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = command(directory, arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let place = workplace();
    let endless = ["generate", "blob.rbk", "--tokens", "1000000", "--quiet"];
    quantize(place.path(), "uniform-int8", "blob.rbk");
    // A pipe buffers 64 KiB: only longer output is sure to hit the closed end.
    assert_eq!(cut_short(place.path(), &endless), (Some(141), String::new()));
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_behind_standard_output_is_an_error() {
    let place = workplace();
    quantize(place.path(), "uniform-int8", "blob.rbk");
    let dry = ["quantize", "model.safetensors", "--policy", "uniform-int4", "--dry-run", "--quiet"];
    let lines: [&[&str]; 8] = [
        &["--help"],
        &["quantize", "--help"],
        &["inspect", "model.safetensors"],
        &["inspect", "model.safetensors", "--json"],
        &["inspect", "blob.rbk"],
        &["generate", "blob.rbk", "--tokens", "4"],
        &["eval", "model.safetensors", "blob.rbk", "--tokens", "300", "--quiet"],
        &[&dry[..], &SHORT].concat(),
    ];
    for arguments in lines {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command(place.path(), arguments).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("cannot write to standard output"), "{arguments:?}: {stderr}");
    }
    // An unwritable standard error must not cause a panic.
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = command(place.path(), &["inspect", "nowhere"]).stderr(full).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

/// `caf\xe9` followed by an ending: a name in Latin-1.
fn latin(ending: &str) -> OsString {
    OsString::from_vec([b"caf\xe9", ending.as_bytes()].concat())
}

fn run(directory: &Path, arguments: &[&OsStr]) -> Output {
    let mut command = command(directory, &[]);
    let output = command.args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    output
}

fn with_paths<'a>(words: &[&'a str], path: &'a OsStr) -> Vec<&'a OsStr> {
    words.iter().map(|&word| if word == "PATH" { path } else { OsStr::new(word) }).collect()
}

#[test]
#[cfg(target_os = "linux")]
fn paths_need_not_be_utf8() {
    let place = workplace();
    let at = place.path();
    std::fs::create_dir(at.join("corpus")).unwrap();
    for split in ["train", "valid", "test"] {
        std::fs::write(at.join(format!("corpus/{split}.txt")), "a few words. ".repeat(40)).unwrap();
    }
    let json = |words: &[&str], path: &OsStr| -> Value {
        let output = run(at, &[&with_paths(words, path)[..], &["--json".as_ref()]].concat());
        serde_json::from_slice(&output.stdout).expect("one JSON object on standard output")
    };

    let blob = latin(".rbk");
    let make = ["quantize", "model.safetensors", "--policy", "uniform-int8", "--out", "PATH"];
    let made = json(&[&make[..], &SHORT].concat(), &blob);
    assert_eq!(made["out"], "caf\\xe9.rbk");
    assert!(at.join(&blob).exists());
    let scores = json(&["eval", "model.safetensors", "PATH", "--tokens", "300"], &blob);
    assert_eq!(scores["blobs"][0]["path"], "caf\\xe9.rbk");
    json(&["inspect", "PATH"], &blob);

    let table = latin(".json");
    let analyze = ["analyze", "model.safetensors", "--tokens", "300", "--measure-tokens", "0"];
    let found = json(&[&analyze[..], &["--out", "PATH"]].concat(), &table);
    assert_eq!(found["out"], "caf\\xe9.json");

    let run = latin("");
    let train = ["train", "--corpus", "corpus", "--out", "PATH", "--vocab", "257", "--steps", "2"];
    let small = ["--width", "8", "--layers", "1", "--hidden", "8", "--potentials", "2"];
    let fast = ["--batch", "2", "--window", "16"];
    let trained = json(&[&train[..], &small, &fast].concat(), &run);
    assert_eq!(trained["model"], "caf\\xe9/model.safetensors");
    let inspected = json(&["inspect", "PATH"], at.join(&run).join("model.safetensors").as_os_str());
    assert!(inspected["provenance"]["command"].as_str().unwrap().contains("--out caf\\xe9 "));
}

/// Without a terminal, messages between progress bars are plain lines, and `--quiet` silences them.
#[test]
fn validations_are_logged_where_there_is_no_terminal() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    for split in ["train", "valid"] {
        std::fs::write(at.join(format!("{split}.txt")), "a few words. ".repeat(40)).unwrap();
    }
    let train = |out: &str, more: &str| {
        let words = ["train", "--corpus", ".", "--out", out, "--vocab", "257", "--steps", "4"];
        let small = ["--width", "8", "--layers", "1", "--hidden", "8", "--potentials", "2"];
        let fast = ["--batch", "2", "--window", "16", "--validate-every", "2", more];
        let output = command(at, &[&words[..], &small, &fast].concat()).output().unwrap();
        let [stdout, stderr] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(output.status.success(), "{stderr}");
        (stdout, stderr)
    };
    let (stdout, stderr) = train("one", "--json");
    for step in ["step 2: validation", "step 4: validation"] {
        assert!(stderr.contains(step), "{stderr}");
    }
    serde_json::from_str::<Value>(&stdout).expect("nothing but JSON on standard output");
    assert_eq!(train("two", "--quiet").1, "");
}
