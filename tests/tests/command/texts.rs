//! Tokenizers of other programs, and files of token ids without one.

use std::fs;
use std::path::Path;

use crate::common::{corpus, fails, json, resnet_bk, training};

/// A tokenizer of the fixtures.
fn fixture(name: &str) -> String {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tokenizers");
    fixtures.join(name).with_extension("json").to_str().unwrap().to_owned()
}

#[track_caller]
fn run(at: &Path, arguments: &[&str]) -> String {
    let output = resnet_bk(at, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    stderr
}

/// `training` without its size of the vocabulary.
fn trained<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = training(out, "4", more);
    let at = arguments.iter().position(|word| *word == "--vocab").unwrap();
    arguments.drain(at..at + 2);
    arguments
}

const BLOB: [&str; 8] = [
    "--policy",
    "uniform-int8",
    "--out",
    "blob.rbk",
    "--calibration-tokens",
    "512",
    "--measure-tokens",
    "128",
];

#[test]
fn a_tokenizer_of_gpt2_goes_the_whole_way() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    corpus(at);
    let file = fixture("gpt2");
    run(at, &trained("run", &["--tokenizer", &file]));
    let model = "run/model.safetensors";
    let text = ["--corpus", "corpus"];
    let notes = run(at, &[&["quantize", model][..], &BLOB, &text].concat());
    assert!(!notes.contains("tokenizer"), "{notes}");
    fs::write(at.join("book.txt"), "Café 21 don't  <|endoftext|>\n\n".repeat(40)).unwrap();
    let book = ["--text", "book.txt", "--json", "--quiet"];
    let both = json(at, &[&["eval", model, "blob.rbk"][..], &book].concat());
    let alone = json(at, &[&["eval", "blob.rbk"][..], &book].concat());
    for field in ["perplexity", "bits_per_byte", "bits_per_token"] {
        assert!(both["fp32"][field].as_f64().unwrap() > 0.0, "{both}");
        assert_eq!(both["blobs"][0][field], alone["blobs"][0][field], "{field}");
    }
    let quiet = ["--json", "--quiet", "--tokens", "8"];
    let prompt = ["--prompt", "don't  stop"];
    for model in [model, "blob.rbk"] {
        let said = json(at, &[&["generate", model][..], &prompt, &quiet].concat());
        assert!(said["text"].as_str().unwrap().starts_with("don't  stop"), "{said}");
        assert_eq!(said["tokens"].as_array().unwrap().len(), 8);
    }
    run(at, &["compress", "blob.rbk", "book.txt", "--verify", "--out", "book.rbt"]);
    run(at, &["decompress", "blob.rbk", "book.rbt", "--out", "again.txt"]);
    assert_eq!(fs::read(at.join("again.txt")).unwrap(), fs::read(at.join("book.txt")).unwrap());
    run(at, &["suggest", "blob.rbk", "the cas", "--steps", "3"]);
    // Another tokenizer of as many tokens.
    let other = fs::read_to_string(&file).unwrap().replace("<|endoftext|>", "<|startoftext|>");
    fs::write(at.join("other.json"), other).unwrap();
    let other = ["eval", "blob.rbk", "--tokenizer", "other.json", "--text", "book.txt"];
    fails(at, &other, 1, "other.json is not the tokenizer of blob.rbk");
    let tuned = ["finetune", model, "--blob", "blob.rbk", "--out", "tuned.rbk", "--quiet"];
    let short = ["--train-tokens", "32", "--batch", "2", "--window", "16", "--shards", "1"];
    let valid = ["--validation-tokens", "64"];
    fs::copy(at.join("corpus/valid.txt"), at.join("corpus/test.txt")).unwrap();
    run(at, &[&tuned[..], &short, &valid, &text].concat());
    let again = json(at, &[&["eval", "tuned.rbk"][..], &book].concat());
    assert!(again["blobs"][0]["bits_per_byte"].as_f64().is_some());
}

#[test]
fn a_blob_decodes_what_a_device_cannot_encode() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    corpus(at);
    run(at, &trained("run", &["--tokenizer", &fixture("unigram")]));
    let model = "run/model.safetensors";
    let text = ["--corpus", "corpus"];
    let notes = run(at, &[&["quantize", model][..], &BLOB, &text].concat());
    assert!(notes.contains("only decodes: its model is \"Unigram\""), "{notes}");
    let tokens = ["--tokens", "4", "--json", "--quiet"];
    let ids = json(at, &[&["generate", "blob.rbk", "--ids", "5,9"][..], &tokens].concat());
    assert_eq!(ids["prompt_tokens"], serde_json::json!([5, 9]));
    assert!(ids["text"].is_string(), "{ids}");
    fails(at, &["generate", "blob.rbk"], 1, "the blob's tokenizer only decodes");
    fails(at, &["eval", "blob.rbk", "--text", "corpus/valid.txt"], 1, "has to be encoded");
    fails(at, &["suggest", "blob.rbk", "The"], 1, "only decodes");
    let own = ["--tokenizer", "run/tokenizer.json"];
    let said = json(at, &[&["generate", "blob.rbk"][..], &tokens, &own].concat());
    assert!(said["text"].as_str().unwrap().starts_with("The "), "{said}");
    let book = ["--text", "corpus/valid.txt", "--json", "--quiet"];
    let scored = json(at, &[&["eval", "blob.rbk"][..], &book, &own].concat());
    assert!(scored["blobs"][0]["bits_per_byte"].as_f64().unwrap() > 0.0);
    fails(
        at,
        &["eval", "blob.rbk", "--tokenizer", &fixture("llama"), "--text", "corpus/valid.txt"],
        1,
        "is not the tokenizer of blob.rbk",
    );

    run(at, &trained("bert", &["--tokenizer", &fixture("wordpiece")]));
    let bert = ["quantize", "bert/model.safetensors", "--no-tokenizer"];
    let notes = run(at, &[&bert[..1], &bert[1..2], &BLOB, &text].concat());
    assert!(notes.contains("the blob gets no tokenizer"), "{notes}");
    let said = json(at, &[&["generate", "bert/model.safetensors"][..], &tokens].concat());
    assert!(said["text"].as_str().unwrap().starts_with("the"), "{said}");
}

/// Tokens of a text that can be learnt.
fn numbers() -> Vec<u16> {
    (0..3000u32).map(|i| (i * i % 7 * 70) as u16).collect()
}

fn bare(tokens: &[u16]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// As NumPy writes an array of `<i4`.
fn array(tokens: &[u16]) -> Vec<u8> {
    let shape = tokens.len();
    let header = format!("{{'descr': '<i4', 'fortran_order': False, 'shape': ({shape},), }}");
    let header = format!("{header:<117}\n");
    let mut bytes = [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..]].concat();
    bytes.extend(header.into_bytes());
    bytes.extend(tokens.iter().flat_map(|token| i32::from(*token).to_le_bytes()));
    bytes
}

#[test]
fn token_ids_stand_in_for_texts() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fs::create_dir(at.join("corpus")).unwrap();
    let (tokens, file) = (numbers(), |name: &str| at.join("corpus").join(name));
    fs::write(file("train.u16"), bare(&tokens)).unwrap();
    fs::write(file("valid.npy"), array(&tokens[..600])).unwrap();
    fs::write(file("test.bin"), bare(&tokens[..500])).unwrap();
    fails(at, &trained("run", &[]), 2, "train.u16 has token ids up to 280");
    fails(at, &training("run", "4", &[]), 1, "has token 280, but the model has only 260 tokens");
    let vocab = ["--vocab", "300", "--positions", "24", "--json"];
    let result = json(at, &trained("run", &vocab));
    assert!(result["validation_bits_per_byte"].is_null(), "{result}");
    assert!(result["validation_bits_per_token"].as_f64().unwrap() > 0.0, "{result}");
    assert!(!at.join("run/tokenizer.json").exists());

    let model = "run/model.safetensors";
    let text = ["--corpus", "corpus", "--token-type", "u16"];
    fails(at, &["eval", model, "--corpus", "corpus"], 1, "test.bin: its name does not say");
    run(at, &[&["quantize", model][..], &BLOB, &text].concat());
    let quiet = ["--json", "--quiet"];
    let both = json(at, &[&["eval", model, "blob.rbk"][..], &text, &quiet].concat());
    assert_eq!(both["window"], 24, "as many as the model has positions");
    assert!(both["fp32"]["bits_per_byte"].is_null());
    assert!(both["blobs"][0]["fidelity"]["kl"].as_f64().unwrap() < 0.1, "{both}");
    let shown = resnet_bk(at, &[&["eval", model][..], &text].concat());
    assert!(String::from_utf8_lossy(&shown.stdout).contains("bits/token"));
    fs::write(at.join("high.u32"), 300u32.to_le_bytes().repeat(100)).unwrap();
    fails(at, &["eval", model, "--text", "high.u32"], 1, "high.u32: it has token 300");
    fs::write(at.join("book.txt"), "A text.").unwrap();
    fails(at, &["eval", model, "--text", "book.txt"], 1, "book.txt has to be encoded");
    fs::write(at.join("floats.npy"), b"\x93NUMPY\x01\x00\x36\x00{'descr': '<f4', 'shape': (1,)}\n")
        .unwrap();
    fails(at, &["eval", model, "--text", "floats.npy"], 1, "floats.npy: ");

    let analyzed = ["analyze", model, "--out", "importance.json", "--tokens", "512"];
    run(at, &[&analyzed[..], &["--measure-tokens", "0"], &text].concat());
    let tuned = ["finetune", model, "--blob", "blob.rbk", "--out", "tuned.rbk", "--quiet"];
    let short = ["--train-tokens", "32", "--batch", "2", "--window", "16", "--shards", "1"];
    run(at, &[&tuned[..], &short, &["--validation-tokens", "64"], &text].concat());

    // Without a tokenizer there are only numbers.
    for model in [model, "blob.rbk"] {
        let said = run_out(at, &["generate", model, "--ids", "1,5,9", "--tokens", "2", "--quiet"]);
        let ids: Vec<u32> = said.trim().split(',').map(|id| id.parse().unwrap()).collect();
        assert_eq!((&ids[..3], ids.len()), (&[1, 5, 9][..], 5), "{said}");
        fails(at, &["generate", model], 1, "tokenizer");
    }
    fails(at, &["generate", model, "--ids", "1,300"], 1, "token 300 is out of range");
}

/// An imported full chain of 48 tokens and 12 positions, and a text of 22 characters.
#[test]
fn an_imported_model_is_made_small_on_its_users_text() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let theirs = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/pytorch/k1_top2.pt");
    let theirs = theirs.to_str().unwrap();
    run(at, &["import", theirs, "--top-k", "2", "--out", "model.safetensors"]);
    let line = |i: usize| format!("the fox jumps over {}dogs.\n", "lazy ".repeat(i * i % 3));
    let text: String = (0..300).map(line).collect();
    let mut known: Vec<char> = text.chars().collect();
    known.sort_unstable();
    known.dedup();
    let vocab: serde_json::Map<_, _> =
        known.iter().zip(0..).map(|(c, i): (_, u32)| (c.to_string(), i.into())).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    fs::write(at.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::create_dir(at.join("corpus")).unwrap();
    for split in ["train.txt", "valid.txt", "test.txt"] {
        fs::write(at.join("corpus").join(split), &text).unwrap();
    }
    let corpus = ["--corpus", "corpus"];
    run(at, &[&["quantize", "model.safetensors"][..], &BLOB, &corpus].concat());
    let tuned = ["finetune", "model.safetensors", "--blob", "blob.rbk", "--out", "tuned.rbk"];
    let short = ["--train-tokens", "256", "--batch", "4", "--shards", "1", "--quiet"];
    run(at, &[&tuned[..], &short, &["--validation-tokens", "256"], &corpus].concat());
    let eval = ["eval", "model.safetensors", "blob.rbk", "tuned.rbk"];
    let scores = json(at, &[&eval[..], &corpus, &["--json", "--quiet"]].concat());
    assert_eq!(scores["window"], 12);
    for blob in scores["blobs"].as_array().unwrap() {
        let fidelity = &blob["fidelity"];
        let (kl, top1) = (fidelity["kl"].as_f64().unwrap(), fidelity["top1"].as_f64().unwrap());
        assert!(kl > 0.0 && kl < 0.05 && top1 > 0.8, "{fidelity}");
    }
    let shown = resnet_bk(at, &[&eval[..], &corpus].concat());
    assert!(String::from_utf8_lossy(&shown.stdout).contains("KL and top-1 are what compares"));
}

/// A vocabulary that only the tools know.
#[test]
fn a_large_vocabulary_is_trained_and_scored_but_has_no_blob() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    fs::create_dir(at.join("corpus")).unwrap();
    let tokens: Vec<u8> = (0..300u32).flat_map(|i| (i * 233).to_le_bytes()).collect();
    for split in ["train", "valid"] {
        fs::write(at.join("corpus").join(split).with_extension("u32"), &tokens).unwrap();
    }
    run(at, &trained("run", &["--vocab", "70000"]));
    let model = "run/model.safetensors";
    let text = ["--text", "corpus/valid.u32", "--json", "--quiet"];
    let scored = json(at, &[&["eval", model][..], &text].concat());
    assert!(scored["fp32"]["bits_per_token"].as_f64().unwrap() > 0.0);
    run(at, &["inspect", model]);
    let blob = ["quantize", model, "--policy", "uniform-int8", "--out", "x.rbk"];
    fails(at, &blob, 1, "vocab is 70000, but must be between 1 and 65536");
}

fn run_out(at: &Path, arguments: &[&str]) -> String {
    let output = resnet_bk(at, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn files_that_are_no_tokenizers_are_refused_with_a_command() {
    let place = crate::common::workplace();
    let at = place.path();
    fs::write(at.join("spiece.model"), b"\x0a\x07\xff").unwrap();
    fs::write(at.join("vocab.json"), "{\"a\": 0, \"b\": 1}").unwrap();
    for (file, cause, command) in [
        ("spiece.model", "not JSON, but a model of SentencePiece", "save_pretrained"),
        ("vocab.json", "a vocabulary alone", "ByteLevelBPETokenizer"),
    ] {
        let arguments = ["generate", "model.safetensors", "--tokenizer", file];
        fails(at, &arguments, 1, cause);
        let help = String::from_utf8(resnet_bk(at, &arguments).stderr).unwrap();
        assert!(help.contains(command), "{help}");
    }
}
