//! Outputs never overwrite a command's inputs, nor files that it could not have written itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{
    ANALYZE, NOTES, SHORT, contents, fails, json, model, quantize, refused, resnet_bk, to,
    workplace,
};

#[test]
fn quantize_replaces_blobs_only() {
    let place = workplace();
    let at = place.path();
    fs::write(at.join("notes.txt"), NOTES.repeat(200)).unwrap();
    fs::write(at.join("mine.toml"), "name = \"mine\"\nbase = \"uniform-int8\"\n").unwrap();
    let text = ["--text", "notes.txt"];
    for (out, more, cause) in [
        ("model.safetensors", &[][..], "the command reads it"),
        ("../x/model.safetensors", &[], "the command reads it"),
        ("tokenizer.json", &[], "the command reads it"),
        ("tokenizer.json", &["--no-tokenizer"], "the command reads it"),
        ("notes.txt", &text, "the command reads it"),
        ("notes.txt", &[], "not a blob but something else"),
    ] {
        let out = out.replace("../x/", &format!("../{}/", at.file_name().unwrap().display()));
        refused(at, &to(&out, more), cause);
    }
    let policy = ["quantize", "model.safetensors", "--policy", "mine.toml", "--out", "mine.toml"];
    refused(at, &policy, "the command reads it");
    fs::hard_link(at.join("model.safetensors"), at.join("hard.rbk")).unwrap();
    refused(at, &to("hard.rbk", &[]), "the command reads it");
    fs::remove_file(at.join("hard.rbk")).unwrap();

    // An older blob and an empty file may be replaced; anything else only with --force.
    fs::write(at.join("a.rbk"), "").unwrap();
    let made = quantize(at, "uniform-int8", "a.rbk")["blob_bytes"].as_u64();
    assert!(quantize(at, "uniform-int4", "a.rbk")["blob_bytes"].as_u64() < made);
    let forced = resnet_bk(at, &to("notes.txt", &["--force"]));
    assert!(forced.status.success(), "{}", String::from_utf8_lossy(&forced.stderr));
    assert_eq!(fs::read(at.join("notes.txt")).unwrap(), fs::read(at.join("a.rbk")).unwrap());
}

#[test]
fn finetune_keeps_what_it_reads_and_what_lies_beside() {
    let place = workplace();
    let at = place.path();
    quantize(at, "uniform-int4", "a.rbk");
    let tune = |out| ["finetune", "model.safetensors", "--blob", "a.rbk", "--quiet", "--out", out];
    refused(at, &tune("model.safetensors"), "the command reads it");
    refused(at, &tune("a.rbk"), "the command reads it");
    for beside in ["new.rbk.jsonl", "new.rbk.state"] {
        fs::write(at.join(beside), NOTES).unwrap();
        refused(at, &tune("new.rbk"), beside);
        fs::remove_file(at.join(beside)).unwrap();
    }
    fails(at, &tune("/dev/null"), 2, "must be a regular file");
}

#[test]
fn a_bad_place_is_found_before_the_work() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let train = ["train", "--corpus", ".", "--vocab", "260", "--out", "run"];
    fs::write(at.join("run"), "a file").unwrap();
    for split in ["train.txt", "valid.txt"] {
        fs::write(at.join(split), NOTES).unwrap();
    }
    refused(at, &train, "cannot create run");
    // The model is missing, too, but that is checked later.
    for out in ["nowhere/file", "run/file", "."] {
        let cause = format!("cannot write {out}");
        refused(at, &["quantize", "no", "--policy", "static", "--out", out], &cause);
        refused(at, &["finetune", "no", "--policy", "static", "--out", out], &cause);
        refused(at, &["analyze", "no", "--out", out], &cause);
        refused(at, &["import", "no", "--top-k", "1", "--out", out], &cause);
    }
    let report = ["report", "no", "--out", "nowhere/page.html"];
    refused(at, &report, "cannot write nowhere/page.html");
}

#[test]
fn a_table_is_gone_on_with_or_kept() {
    let place = workplace();
    let at = place.path();
    fs::write(at.join("notes.txt"), NOTES.repeat(200)).unwrap();
    let run = |more: &[&'static str]| [&ANALYZE[..], &["--out", "table.json"], more].concat();
    let table = || fs::read(at.join("table.json")).unwrap();
    json(at, &run(&["--measure-tokens", "256"]));
    let first = table();
    // A second run, and one that measures nothing, keep the existing entries.
    json(at, &run(&["--measure-tokens", "256"]));
    assert!(table() == first);
    json(at, &run(&["--measure-tokens", "0"]));
    assert!(table() == first, "the measured half got lost");

    for (more, cause) in [
        (&["--measure-tokens", "512"][..], "the text to measure on was 256 tokens"),
        (&["--measure-tokens", "0", "--seed", "2"], "the seed was 1, is now 2"),
        (&["--measure-tokens", "0", "--window", "64"], "the window was 128, is now 64"),
        (&["--measure-tokens", "0", "--without", "gptq"], "all but gptq"),
        (&["--measure-tokens", "0", "--text", "notes.txt"], "the calibration text was"),
    ] {
        refused(at, &run(more), cause);
    }
    let here = |out| [&ANALYZE[..], &["--measure-tokens", "0", "--out", out]].concat();
    refused(at, &here("model.safetensors"), "the command reads it");
    refused(at, &here("notes.txt"), "not an importance file but something else");
    refused(at, &[&run(&[])[..], &["--merge", "table.json"]].concat(), "the command reads it");

    // From a partial table, the remaining entries are measured with the same result.
    let mut part: serde_json::Value = serde_json::from_slice(&first).unwrap();
    let measured = part["measured"].as_object_mut().unwrap();
    let names: Vec<String> = measured.keys().skip(6).cloned().collect();
    names.iter().for_each(|name| drop(measured.remove(name)));
    fs::write(at.join("table.json"), part.to_string()).unwrap();
    refused(at, &run(&["--measure-tokens", "512"]), "the text to measure on");
    json(at, &run(&["--measure-tokens", "256"]));
    assert!(table() == first);

    // A damaged table, or one of an old format or another checkpoint, is kept without --force.
    let mut other: serde_json::Value = serde_json::from_slice(&first).unwrap();
    other["settings"]["model_sha256"] = "0".repeat(64).into();
    for (content, cause) in [
        (first[..first.len() / 2].to_vec(), "not an importance file but something else"),
        (
            String::from_utf8(first.clone())
                .unwrap()
                .replace("\"format\": 5", "\"format\": 4")
                .into(),
            "it has format 4, which does not record",
        ),
        (other.to_string().into(), "it was computed for another checkpoint"),
    ] {
        fs::write(at.join("table.json"), content).unwrap();
        refused(at, &run(&["--measure-tokens", "0"]), cause);
    }
    json(at, &run(&["--measure-tokens", "256", "--force"]));
    assert!(table() == first);
    // Even with --force, a matching table is extended.
    json(at, &run(&["--measure-tokens", "0", "--force"]));
    assert!(table() == first);
    let other = json(at, &run(&["--measure-tokens", "0", "--force", "--seed", "2"]));
    assert_eq!(other["importance"]["settings"]["seed"], 2);
    assert!(other["importance"]["measured"].as_object().unwrap().is_empty());
}

/// Texts are identified by content, not by name and number of tokens.
#[test]
fn importance_goes_with_the_content_of_its_text() {
    let place = workplace();
    let at = place.path();
    for (directory, words) in [("one", "the castle was built "), ("two", "a river ran through ")] {
        fs::create_dir_all(at.join(directory).join("corpus")).unwrap();
        for split in ["train.txt", "valid.txt"] {
            fs::write(at.join(directory).join("corpus").join(split), words.repeat(300)).unwrap();
        }
    }
    fs::rename(at.join("one"), at.join("renamed")).unwrap();
    let analyze = |corpus: &str| {
        let more = ["--measure-tokens", "0", "--out", "table.json", "--corpus", corpus];
        resnet_bk(at, &[&ANALYZE[..], &more].concat())
    };
    assert!(analyze("renamed/corpus").status.success());
    let refused = analyze("two/corpus");
    let stderr = String::from_utf8_lossy(&refused.stderr);
    assert!(stderr.contains("the calibration text was 1024 tokens of corpus train"), "{stderr}");
    fs::rename(at.join("renamed/corpus"), at.join("same text")).unwrap();
    assert!(analyze("same text").status.success());
}

#[test]
fn an_importance_file_that_is_not_there_is_an_error() {
    let place = workplace();
    let at = place.path();
    for target in [&["--target-ratio", "5"][..], &["--policy", "dynamic"], &["--max-kl", "1"]] {
        let quantize = ["quantize", "model.safetensors", "--importance", "tabel.json"];
        let arguments = [&quantize[..], target, &["--out", "a.rbk"], &SHORT].concat();
        refused(at, &arguments, "there is no importance file tabel.json");
    }
    // A table computed with other settings is refused for a target.
    let more = ["--measure-tokens", "0", "--out", "table.json"];
    json(at, &[&ANALYZE[..], &more].concat());
    let target = ["--target-ratio", "5", "--importance", "table.json", "--out", "a.rbk", "--quiet"];
    let quantize = [&["quantize", "model.safetensors"], &target[..], &SHORT].concat();
    refused(at, &[&quantize[..], &["--seed", "2"]].concat(), "the seed was 1, is now 2");
}

#[test]
fn import_and_report_replace_their_own_only() {
    let place = workplace();
    let at = place.path();
    let theirs = model().with_file_name("../../tests/fixtures/pytorch/k1_top2.pt");
    fs::copy(theirs, at.join("theirs.pt")).unwrap();
    let import = |out| ["import", "theirs.pt", "--top-k", "2", "--json", "--out", out];
    refused(at, &import("theirs.pt"), "the command reads it");
    refused(at, &import("tokenizer.json"), "not an imported checkpoint but a tokenizer");
    refused(
        at,
        &import("model.safetensors"),
        "not an imported checkpoint but a trained checkpoint",
    );
    json(at, &import("ours.safetensors"));
    json(at, &import("ours.safetensors"));

    let row = r#"{"name": "a", "kind": "uniform", "blob_bytes": 30000, "ratio": 5.0,
        "ppl": 21.0, "ppl_rise_percent": 5.0, "kl": 0.02, "top1": 0.9}"#;
    let frontier = format!(
        r#"{{"model": "m", "corpus": "c", "fp32_bytes": 150000, "ppl_fp32": 20.0, "rows": [{row}]}}"#
    );
    fs::write(at.join("frontier.json"), frontier).unwrap();
    fs::write(at.join("page.html"), "<!doctype html>\n<title>mine</title>").unwrap();
    let report = |out| ["report", "frontier.json", "--json", "--out", out];
    refused(at, &report("frontier.json"), "the command reads it");
    refused(at, &report("page.html"), "not a report but something else");
    fs::write(at.join("new"), "a file").unwrap();
    refused(at, &report("new.html"), "cannot create new");
    fs::create_dir(at.join("other")).unwrap();
    fs::write(at.join("other/kl.png"), NOTES).unwrap();
    fails(at, &report("other.html"), 1, "not a PNG image but something else");
    assert_eq!(contents(&at.join("other")).len(), 1, "a plot was written before the check");
    json(at, &report("good.html"));
    json(at, &report("good.html"));
}

#[cfg(unix)]
mod unix {
    use super::*;
    use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};

    #[track_caller]
    fn runs(at: &Path, arguments: &[&str]) -> Vec<u8> {
        let output = resnet_bk(at, arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    #[test]
    fn modes_and_links_stay() {
        let place = workplace();
        let at = place.path();
        quantize(at, "uniform-int4", "expected.rbk");
        let expected = fs::read(at.join("expected.rbk")).unwrap();
        fs::write(at.join("a.rbk"), "").unwrap();
        fs::set_permissions(at.join("a.rbk"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink("a.rbk", at.join("link.rbk")).unwrap();
        runs(at, &to("link.rbk", &[]));
        assert!(fs::symlink_metadata(at.join("link.rbk")).unwrap().is_symlink());
        assert!(fs::read(at.join("a.rbk")).unwrap() == expected);
        let mode = fs::metadata(at.join("a.rbk")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        symlink("model.safetensors", at.join("other.rbk")).unwrap();
        refused(at, &to("other.rbk", &[]), "the command reads it");
    }

    #[test]
    fn pipes_and_devices_are_written_to() {
        let place = workplace();
        let at = place.path();
        quantize(at, "uniform-int4", "expected.rbk");
        let expected = fs::read(at.join("expected.rbk")).unwrap();
        assert!(runs(at, &to("/dev/stdout", &[])) == expected, "nothing but the blob");

        assert!(Command::new("mkfifo").arg(at.join("pipe")).status().unwrap().success());
        let pipe = at.join("pipe");
        let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
        runs(at, &to("pipe", &[]));
        assert!(reader.join().unwrap() == expected);
        assert!(fs::symlink_metadata(at.join("pipe")).unwrap().file_type().is_fifo());
        // A file is rewritten whenever the table grows, but a pipe gets it only once.
        let pipe = at.join("pipe");
        let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
        let more = ["--measure-tokens", "256", "--out"];
        runs(at, &[&ANALYZE[..], &more, &["pipe"]].concat());
        runs(at, &[&ANALYZE[..], &more, &["table.json"]].concat());
        assert!(reader.join().unwrap() == fs::read(at.join("table.json")).unwrap());

        let made = Command::new("mknod").arg(at.join("null")).args(["c", "1", "3"]).output();
        if !made.is_ok_and(|made| made.status.success()) {
            eprintln!("only root can make a device: none was written to");
            return;
        }
        resnet_bk(at, &to("null", &[]));
        assert!(fs::symlink_metadata(at.join("null")).unwrap().file_type().is_char_device());
    }
}
