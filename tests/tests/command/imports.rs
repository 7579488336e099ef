//! `import` of models in the ways that people store them.

use std::path::Path;

use crate::common::{contents, json, model, refused, resnet_bk};

fn fixture(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/import");
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_dry_run_lists_everything_and_writes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let theirs = fixture("prefixed.pt");
    let arguments = ["import", &theirs, "--top-k", "1", "--dry-run", "--out", "model.safetensors"];
    let output = resnet_bk(at, &arguments);
    let (text, notes) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    for part in [
        "module.net._orig_mod.lm_head.weight",
        "ignored: beside the model",
        "not in the tensors: chain half (assumed), eta_floor 0.00390625 (assumed)",
        "top_k 1 (the flags)",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(notes.contains("left out") && notes.contains("module.loss.weight"), "{notes}");
    let found = json(at, &[&arguments[..], &["--json"]].concat());
    assert!(found["model"].is_null(), "{found}");
    assert_eq!(found["survey"]["state"], "net");
    assert_eq!(found["survey"]["ignored"][0]["reason"], "beside the model");
    let mapped = found["survey"]["mapped"].as_array().unwrap();
    assert_eq!(mapped.len() as u64, found["tensors"].as_u64().unwrap());
    assert!(contents(at).is_empty(), "a dry run wrote something");
    let unnamed = resnet_bk(at, &["import", &theirs, "--top-k", "1"]);
    assert_eq!(unnamed.status.code(), Some(2), "without --dry-run there must be --out");
}

#[test]
fn a_bare_state_dict_of_gated_chains_becomes_a_checkpoint() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let theirs = fixture("plain.pt");
    let import = ["import", &theirs, "--out", "model.safetensors"];
    refused(at, &import, "to how many of its 2 experts a token is routed");
    std::fs::write(at.join("dims.json"), r#"{"top_k": 1, "eta_floor": 0.01}"#).unwrap();
    json(at, &[&import[..], &["--config", "dims.json", "--json"]].concat());
    let inspect = json(at, &["inspect", "model.safetensors", "--json"]);
    assert_eq!(inspect["dimensions"]["channels"], 4);
    assert_eq!(inspect["dimensions"]["chain"], "half");
    std::fs::write(at.join("odd.json"), r#"{"topk": 1}"#).unwrap();
    refused(at, &[&import[..], &["--config", "odd.json", "--force"]].concat(), "unknown field");
    // What it reads it does not replace.
    let over = ["import", &theirs, "--config", "dims.json", "--out", "dims.json"];
    refused(at, &over, "the command reads it");
}

#[test]
fn what_is_refused_is_listed_on_request() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let theirs = fixture("../pytorch/refused_other_model.pt");
    let output = resnet_bk(at, &["import", &theirs, "--dry-run"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("weight") && text.contains("the model is refused"), "{text}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("none of its 2 tensors"));
}

/// A model of this tool is written again, without flags.
#[test]
fn our_own_format_is_no_dead_end() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let ours = model();
    let ours = ours.to_str().unwrap();
    let found = json(at, &["import", ours, "--out", "again.safetensors", "--json"]);
    assert!(found["provenance"]["tokenizer_sha256"].is_string(), "{found}");
    assert!(found["survey"]["ignored"].as_array().unwrap().is_empty(), "{found}");
    let read = |path: &str| json(at, &["inspect", path, "--json"])["dimensions"].clone();
    assert_eq!(read("again.safetensors"), read(ours));
}

/// Arguments of an import with more flags.
fn of<'a>(theirs: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let start = ["import", theirs, "--top-k", "1", "--out", "model.safetensors", "--json"];
    [&start[..], more].concat()
}

#[test]
fn choices_are_named_in_the_refusal() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    for (name, flags, cause) in [
        ("wrapped.pt", &["--state", "ema"][..], "2 models: `model_state_dict`, `ema`"),
        ("tied.pt", &["--tied"], "--tied"),
    ] {
        let theirs = fixture(name);
        refused(at, &of(&theirs, &[]), cause);
        json(at, &of(&theirs, flags));
    }
    let found = json(at, &of(&fixture("shards"), &[]));
    assert_eq!(found["survey"]["files"].as_array().unwrap().len(), 2);
    assert_eq!(found["provenance"]["imported_from"], "shards");
}
