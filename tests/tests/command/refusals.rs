//! Files that are damaged or belong to another model are refused by name.

use resnet_bk_tools::checkpoint::Checkpoint;
use resnet_bk_tools::tokenizer::Tokenizer;

use crate::common::{
    SHORT, fails, foreign_tokenizer, json, numbers, quantize, resnet_bk, workplace,
};

#[test]
fn damaged_blobs_are_refused_by_name() {
    let place = workplace();
    let at = place.path();
    quantize(at, "uniform-int8", "good.rbk");
    let good = std::fs::read(at.join("good.rbk")).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let mut version = good.clone();
    version[8] = 99;
    for (bytes, cause) in [
        (&good[..good.len() - 1], "cut short"),
        (&good[..12], "cut short"),
        (&flipped[..], "checksum"),
        (&version[..], "format 99"),
    ] {
        std::fs::write(at.join("bad.rbk"), bytes).unwrap();
        for command in ["inspect", "generate", "eval"] {
            fails(at, &[command, "bad.rbk"], 1, cause);
        }
    }
    std::fs::write(at.join("foreign"), b"GGUF and so on").unwrap();
    fails(at, &["inspect", "foreign"], 1, "not a valid");
    fails(at, &["inspect", "absent"], 1, "cannot read");
}

#[test]
fn bad_corpora_are_refused_by_name() {
    let place = workplace();
    let at = place.path();
    std::fs::write(at.join("empty.txt"), "").unwrap();
    std::fs::write(at.join("binary.txt"), b"some text\xff\xfe").unwrap();
    std::fs::write(at.join("short.txt"), "few words").unwrap();
    let eval = |file: &str, cause: &str| {
        fails(at, &["eval", "model.safetensors", "--text", file], 1, cause)
    };
    eval("empty.txt", "is empty");
    eval("binary.txt", "invalid byte at offset 9");
    eval("short.txt", "one window needs 129");
    fails(at, &["eval", "model.safetensors", "--corpus", "nowhere"], 1, "cannot read");
    fails(at, &["train", "--out", "run"], 1, "no corpus");
}

#[test]
fn files_for_another_model_are_refused() {
    let place = workplace();
    let at = place.path();
    let analyze = ["analyze", "model.safetensors", "--out", "importance.json", "--quiet"];
    let output =
        resnet_bk(at, &[&analyze[..], &["--tokens", "512", "--measure-tokens", "0"]].concat());
    assert!(output.status.success());
    quantize(at, "uniform-int8", "blob.rbk");
    // The same weights with another origin make another file, hence another model.
    let bytes = std::fs::read(at.join("model.safetensors")).unwrap();
    let key = b"\"seed\":\"";
    let at_seed =
        bytes.windows(key.len()).position(|w| w == key).expect("a recorded seed") + key.len();
    let mut other = bytes.clone();
    other[at_seed] = b'9';
    std::fs::write(at.join("model.safetensors"), other).unwrap();
    let arguments = ["quantize", "model.safetensors", "--policy", "dynamic", "--out", "x.rbk"];
    let dynamic = [&arguments[..], &["--importance", "importance.json"]].concat();
    fails(at, &dynamic, 1, "computed for another checkpoint");
    fails(at, &["eval", "model.safetensors", "blob.rbk"], 2, "made from another checkpoint");
}

#[test]
fn a_model_takes_its_own_tokenizer_only() {
    let place = workplace();
    let at = place.path();
    quantize(at, "uniform-int8", "own.rbk");
    std::fs::write(at.join("text.txt"), "The river runs to the sea .\n".repeat(40)).unwrap();
    let other = foreign_tokenizer(272);
    other.save(&at.join("other.json")).unwrap();
    let own = Tokenizer::load(&at.join("tokenizer.json")).unwrap();

    let (found, recorded) = (other.sha256(), own.sha256());
    let cause = format!("its SHA-256 is {found}, but that of the model's tokenizer is {recorded}");
    let named = ["--tokenizer", "other.json"];
    let blob = ["quantize", "model.safetensors", "--policy", "uniform-int8", "--out", "x.rbk"];
    let text = ["--text", "text.txt"];
    for arguments in [
        &["eval", "model.safetensors", "own.rbk", "--text", "text.txt"][..],
        &["eval", "own.rbk", "--text", "text.txt"],
        &["analyze", "model.safetensors", "--out", "x.json"],
        &["generate", "model.safetensors"],
        &["generate", "own.rbk"],
        &blob,
    ] {
        let arguments = [arguments, &named].concat();
        fails(at, &arguments, 1, &cause);
    }
    assert!(!at.join("x.rbk").exists() && !at.join("x.json").exists());

    // Without an embedded tokenizer, only the vocabulary size can be checked.
    let bare = ["--policy", "uniform-int8", "--no-tokenizer", "--out", "bare.rbk", "--quiet"];
    resnet_bk(at, &[&["quantize", "model.safetensors"][..], &bare, &SHORT].concat());
    foreign_tokenizer(300).save(&at.join("larger.json")).unwrap();
    let larger = ["--tokenizer", "larger.json"];
    for arguments in [&["eval", "bare.rbk"][..], &["generate", "bare.rbk"]] {
        let text = if arguments[0] == "eval" { &text[..] } else { &[] };
        let arguments = [arguments, &larger, text].concat();
        fails(at, &arguments, 1, "larger.json has 300 tokens, but bare.rbk has 272");
    }

    // The blob contains its own tokenizer, that of the checkpoint.
    let alone = json(at, &["eval", "own.rbk", "--text", "text.txt", "--json", "--quiet"]);
    let eval = ["eval", "bare.rbk", "--tokenizer", "tokenizer.json", "--json", "--quiet"];
    let named = json(at, &[&eval[..], &text].concat());
    for field in ["perplexity", "bits_per_byte"] {
        assert!(alone["blobs"][0][field].as_f64().is_some(), "{alone}");
        assert_eq!(alone["blobs"][0][field], named["blobs"][0][field]);
    }

    // A tokenizer beside the checkpoint is checked like one on the command line.
    other.save(&at.join("tokenizer.json")).unwrap();
    fails(at, &["eval", "model.safetensors"], 1, "tokenizer.json is not the tokenizer of");
    let init = ["train", "--init", "model.safetensors", "--out", "run", "--corpus", "."];
    for split in ["train.txt", "valid.txt"] {
        std::fs::copy(at.join("text.txt"), at.join(split)).unwrap();
    }
    fails(at, &init, 1, "tokenizer.json is not the tokenizer of");
}

#[test]
fn a_checkpoint_that_does_not_record_its_tokenizer_gets_a_note() {
    let place = workplace();
    let at = place.path();
    quantize(at, "uniform-int8", "own.rbk");
    let path = at.join("model.safetensors");
    let mut checkpoint = Checkpoint::read(&path).unwrap();
    checkpoint.provenance.remove("tokenizer_sha256").unwrap();
    checkpoint.write(&path).unwrap();
    let output = resnet_bk(at, &["generate", "model.safetensors", "--tokens", "2"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.contains("does not record the tokenizer"),
        "{stderr}"
    );

    // Between blobs, their embedded tokenizers are compared.
    foreign_tokenizer(272).save(&at.join("tokenizer.json")).unwrap();
    quantize(at, "uniform-int8", "other.rbk");
    std::fs::write(at.join("text.txt"), numbers()).unwrap();
    let eval = ["eval", "own.rbk", "other.rbk", "--text", "text.txt"];
    fails(at, &eval, 1, "the tokenizer of own.rbk is not the tokenizer of other.rbk");
}

#[test]
fn damaged_checkpoints_are_refused() {
    let place = workplace();
    let at = place.path();
    let bytes = std::fs::read(at.join("model.safetensors")).unwrap();
    std::fs::write(at.join("cut.safetensors"), &bytes[..bytes.len() - 4]).unwrap();
    fails(at, &["inspect", "cut.safetensors"], 1, "cut.safetensors is not a valid");
    let mut nan = bytes.clone();
    let last = nan.len() - 4;
    nan[last..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(at.join("nan.safetensors"), nan).unwrap();
    fails(at, &["inspect", "nan.safetensors"], 1, "NaN");
}
