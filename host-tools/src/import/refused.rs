//! Refusals of what people have, each with what helps.

use super::*;
use crate::checkpoint::{self, Chain};
use std::fs;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/import").join(name)
}

fn dimensions(json: &str) -> Dimensions {
    serde_json::from_str(json).unwrap()
}

fn given(json: &str) -> Options {
    Options::with(dimensions(json))
}

/// The error message and its remedy.
#[track_caller]
fn said(result: Result<Imported>) -> String {
    let error = result.expect_err("it was imported");
    format!("{error}\nhelp: {}", error.help())
}

#[track_caller]
fn says(result: Result<Imported>, parts: &[&str]) {
    let said = said(result);
    for part in parts {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn files_of_other_formats_are_called_what_they_are() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let mut old = tar.clone();
    old[..8].copy_from_slice(b"sys_info");
    let blob = [&resnet_bk_core::blob::MAGIC[..], b"..."].concat();
    for (bytes, what, remedy) in [
        (&tar[..], "a tar archive", "`tar -xvf some/x.pt`"),
        (&old, "PyTorch before 0.2", "torch.load(\"some/x.pt\""),
        (b"\x1f\x8b\x08", "gzip", "`gunzip some/x.pt`"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS", "git lfs pull"),
        (b"GGUF....", "GGUF", "torch.save("),
        (&blob, "a blob", "`resnet-bk inspect some/x.pt`"),
        (b"\x80\x04.", "bare pickle", "torch.save("),
        (b"", "is empty", "`ls -l some/x.pt`"),
    ] {
        let result = from_bytes(bytes, Path::new("some/x.pt"), &Options::default());
        says(result, &["cannot import some/x.pt", what, remedy]);
    }
}

#[test]
fn what_no_tensor_tells_is_asked_for_or_assumed() {
    says(
        import(&fixture("plain.pt"), &Options::default()),
        &["plain.pt", "2 experts", "top_k", "--top-k N"],
    );
    let Imported { checkpoint, survey } =
        import(&fixture("plain.pt"), &given(r#"{"top_k": 1}"#)).unwrap();
    let config = &checkpoint.config;
    assert_eq!((config.chain, config.eta_floor), (Chain::Half, 1.0 / 256.0));
    assert_eq!((config.off_diagonal, config.positions), (1.0, None));
    assert_eq!(survey.origins["top_k"], "the flags");
    assert_eq!(survey.origins["eta_floor"], "assumed");

    // Flags come before a file, and may repeat what the tensors say.
    let mut options = given(r#"{"top_k": 2, "width": 6}"#);
    let file = r#"{"top_k": 1, "eta_floor": 0.5, "block": {"gated": {"channels": 4}}}"#;
    options.given.push(("dims.json".into(), dimensions(file)));
    let Imported { checkpoint, survey } = import(&fixture("plain.pt"), &options).unwrap();
    assert_eq!((checkpoint.config.top_k, checkpoint.config.eta_floor), (2, 0.5));
    assert_eq!(survey.origins["eta_floor"], "dims.json");
}

/// Every kind of model from tensors without metadata, and with nothing given but what differs from
/// what is assumed.
#[test]
fn every_kind_is_imported_from_bare_tensors() {
    let folder = fixture("../../../pytorch/tests/fixtures");
    for kind in ["full", "half", "dense", "gated", "gated-ffn", "gated-experts"] {
        let ours = Checkpoint::read(&folder.join(kind).join("model.safetensors")).unwrap();
        let (tensors, metadata) = (ours.tensors.clone(), BTreeMap::new());
        let bare = checkpoint::safetensors::Container { tensors, metadata };
        let bare = checkpoint::safetensors::to_bytes(&bare);
        let config = &ours.config;
        let given = Dimensions {
            top_k: (config.experts > 1).then_some(config.top_k),
            chain: (kind == "full").then_some(Chain::Full),
            off_diagonal: (kind == "full").then_some(config.off_diagonal),
            ..Dimensions::default()
        };
        let found = from_bytes(&bare, Path::new(kind), &Options::with(given)).unwrap().checkpoint;
        assert_eq!((&found.config, &found.tensors), (config, &ours.tensors), "{kind}");
    }
}

#[test]
fn what_contradicts_the_file_is_refused() {
    for (json, problem) in [
        (r#"{"top_k": 1, "width": 7}"#, "width is 7 by the flags, but 6 in the file"),
        (r#"{"top_k": 1, "positions": 9}"#, "positions is 9 by the flags, but null in the file"),
        (r#"{"top_k": 3}"#, "top_k is 3; it must be between 1 and"),
        (r#"{"top_k": 1, "chain": "full"}"#, "a gated chain is causal"),
        (r#"{"top_k": 1, "eta_floor": 0}"#, "eta_floor is 0; it must be positive"),
    ] {
        says(import(&fixture("plain.pt"), &given(json)), &["plain.pt", problem, "`"]);
    }
    let published = fixture("../pytorch/k1_top1.pt");
    for (json, problem) in [
        (r#"{"top_k": 1, "eta_floor": 2.0}"#, "eta_floor is to be 2, but its smallest η is 1"),
        (r#"{"top_k": 1, "off_diagonal": 0.5}"#, "off_diagonal is to be 0.5, but is 1"),
    ] {
        says(import(&published, &given(json)), &["k1_top1.pt", problem]);
    }
    let lower = import(&published, &given(r#"{"top_k": 1, "eta_floor": 0.5}"#)).unwrap();
    assert_eq!(lower.checkpoint.config.eta_floor, 0.5);
}

#[test]
fn a_missing_head_asks_for_tying() {
    let routed = given(r#"{"top_k": 1}"#);
    let tied = Options { tied: true, ..routed.clone() };
    for name in ["tied.pt", "tied.safetensors"] {
        says(import(&fixture(name), &routed), &[name, "weight` [11, 6] is missing", "--tied"]);
        let Imported { checkpoint, survey } = import(&fixture(name), &tied).unwrap();
        let [head, embedding] =
            ["lm_head.weight", "token_embedding.weight"].map(|name| &checkpoint.tensors[name]);
        assert_eq!(head, embedding);
        assert!(!survey.added.is_empty());
    }
    says(import(&fixture("plain.pt"), &tied), &["differ", "leave --tied out"]);
}

#[test]
fn models_to_choose_from_are_named() {
    let routed = given(r#"{"top_k": 1}"#);
    let wrapped = fixture("wrapped.pt");
    says(import(&wrapped, &routed), &["2 models: `model_state_dict`, `ema`", "--state"]);
    // The gradients are no complete model.
    let survey = import(&fixture("single.pt"), &routed).unwrap().survey;
    assert_eq!((survey.state.as_str(), survey.states.len()), ("run.weights", 2));
    let reasons = |reason| survey.ignored.iter().filter(move |i| i.reason == reason).count();
    assert!(reasons(Reason::Other) > 10);
    let beside: Vec<&Ignored> =
        survey.ignored.iter().filter(|i| i.reason == Reason::Beside).collect();
    let names: Vec<&str> = beside.iter().map(|ignored| ignored.name.as_str()).collect();
    assert_eq!(names, ["optimizer.state.0.exp_avg", "optimizer.state.0.step"]);
}

#[test]
fn a_survey_lists_every_tensor_once() {
    let routed = given(r#"{"top_k": 1}"#);
    let Imported { checkpoint, survey } = import(&fixture("prefixed.pt"), &routed).unwrap();
    assert_eq!(survey.mapped.len(), checkpoint.tensors.len());
    assert_eq!(survey.state, "net");
    let head = survey.mapped.iter().find(|mapped| mapped.becomes == "lm_head.weight").unwrap();
    assert_eq!(head.name, "module.net._orig_mod.lm_head.weight");
    assert_eq!((head.shape.as_slice(), head.dtype), (&[11, 6][..], "F32"));
    let [ignored] = &survey.ignored[..] else { panic!("{:?}", survey.ignored) };
    assert_eq!(ignored.name, "module.loss.weight");
    assert_eq!(checkpoint.provenance[LEFT_OUT_KEY], "module.loss.weight");
    let files = import(&fixture("shards"), &routed).unwrap().survey.files;
    assert_eq!(files, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
}

/// A folder with the shards of the fixture.
fn shards() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture("shards")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
    }
    folder
}

#[test]
fn incomplete_folders_and_indexes_are_refused() {
    let routed = given(r#"{"top_k": 1}"#);
    let folder = shards();
    let at = |name: &str| folder.path().join(name);
    let index = at("model.safetensors.index.json");
    let second = "model-00002-of-00002.safetensors";
    // A part of it is refused with the index.
    says(
        import(&at(second), &routed),
        &[second, "is missing", "one of several files", "model.safetensors.index.json"],
    );
    let text = fs::read_to_string(&index).unwrap();
    for (from, to, problem) in [
        (second, "../other.safetensors", "`../other.safetensors` is not the name of a file"),
        (second, "lost.safetensors", "`lost.safetensors` is missing"),
        ("lm_head.bias", "lm_head.other", "`lm_head.other` is not in `model-0000"),
        ("weight_map", "map", "it is not an index"),
    ] {
        fs::write(&index, text.replace(from, to)).unwrap();
        says(import(folder.path(), &routed), &["index.json", problem, "`"]);
    }
    fs::remove_file(&index).unwrap();
    says(import(folder.path(), &routed), &["has 2 checkpoints", second, "choose one"]);
    fs::remove_file(at(second)).unwrap();
    says(import(folder.path(), &routed), &["is missing"]);
    fs::remove_file(at("model-00001-of-00002.safetensors")).unwrap();
    says(import(folder.path(), &routed), &["has no file that ends in", "resnet-bk import"]);
    fs::copy(fixture("plain.pt"), at("last.pt")).unwrap();
    assert!(import(folder.path(), &routed).is_ok());
}
