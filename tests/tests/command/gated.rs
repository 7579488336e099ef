//! Gated chains on the command line.

use std::path::Path;

use serde_json::Value;

use crate::common::{SHORT, fails, json};

const MODEL: &str = "gated/model.safetensors";

/// Trains a tiny gated chain on a text that it can learn.
fn trained(at: &Path, more: &[&str]) -> Value {
    let words = ["the chain", "remembers", "what", "it met", "and forgets", "the rest.\n"];
    let text: String = (0..3000).map(|i| words[i * i % 7 % 6].to_owned() + " ").collect();
    std::fs::write(at.join("train.txt"), &text).unwrap();
    std::fs::write(at.join("valid.txt"), &text[..4000]).unwrap();
    let train = ["train", "--corpus", ".", "--out", "gated", "--block", "gated", "--vocab", "280"];
    let sizes = ["--width", "16", "--layers", "2", "--potentials", "4", "--steps", "60"];
    let batch = ["--batch", "4", "--lr", "0.01", "--warmup", "5", "--json", "--quiet"];
    json(at, &[&train[..], &sizes, &batch, more].concat())
}

/// A gated chain is trained, scored, sampled and described in FP32.
#[test]
fn a_gated_chain_is_trained_scored_and_sampled() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let trained = trained(at, &[]);
    assert!(trained["validation_bits_per_byte"].as_f64().unwrap() < 8.0);
    let inspected = json(at, &["inspect", MODEL, "--json"]);
    assert_eq!(inspected["dimensions"]["channels"], 32);
    let scores = json(at, &["eval", MODEL, "--text", "valid.txt", "--json", "--quiet"]);
    assert!(scores["fp32"]["perplexity"].as_f64().unwrap() > 1.0, "{scores}");
    // Longer than a chunk of the long-window path.
    let long = ["eval", MODEL, "--text", "train.txt", "--window", "2000", "--json", "--quiet"];
    assert!(json(at, &long)["fp32"]["perplexity"].as_f64().unwrap() > 1.0);
    let generate = ["generate", MODEL, "--tokens", "20", "--seed", "3", "--json"];
    assert_eq!(json(at, &generate)["tokens"].as_array().unwrap().len(), 20);
}

/// A model is trained on the predictions of others; each of them counts, and only teachers of the
/// same tokens are taken.
#[test]
fn a_gated_chain_is_distilled_from_others() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    trained(at, &[]);
    let tensors = |folder: &str| {
        let bytes = std::fs::read(at.join(folder).join("model.safetensors")).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    let student = |out: &str, more: &[&str]| {
        let train = ["train", "--corpus", ".", "--out", out, "--block", "gated", "--width", "16"];
        let sizes = ["--layers", "1", "--potentials", "4", "--steps", "20", "--batch", "4"];
        let quiet = ["--warmup", "5", "--json", "--quiet"];
        [&train[..], &sizes, &quiet, more].concat().iter().map(|&s| s.to_owned()).collect()
    };
    let run = |out: &str, more: &[&str]| {
        let words: Vec<String> = student(out, more);
        json(at, &words.iter().map(String::as_str).collect::<Vec<_>>());
        tensors(out)
    };
    let tokenizer = ["--tokenizer", "gated/tokenizer.json"];
    let alone = run("alone", &tokenizer);
    let one = run("one", &["--teacher", MODEL]);
    assert_ne!(alone, one);
    let other = "alone/model.safetensors";
    let two = run("two", &["--teacher", MODEL, "--teacher", other, "--threads", "1"]);
    assert_ne!(one, two);
    assert_eq!(two, run("again", &["--teacher", MODEL, "--teacher", other, "--threads", "2"]));
    // A blob teaches what it computes, with the tokenizer that it contains.
    let quantize = ["quantize", MODEL, "--policy", "uniform-int4", "--out", "4.rbk", "--quiet"];
    json(at, &[&quantize[..], &SHORT, &["--json"]].concat());
    let of_blob = run("of-blob", &["--teacher", "4.rbk"]);
    assert!(of_blob != one && of_blob != alone);
    // Of the text's own tokens alone, teachers say nothing.
    assert_eq!(alone, run("own", &["--teacher", MODEL, "--cross-entropy", "1"]));

    run("foreign", &["--vocab", "270"]);
    let words: Vec<String> =
        student("refused", &["--teacher", "foreign/model.safetensors", "--teacher", MODEL]);
    fails(at, &words.iter().map(String::as_str).collect::<Vec<_>>(), 2, "another tokenizer");

    let finetune = ["finetune", MODEL, "--blob", "4.rbk", "--corpus", "."];
    let short = ["--train-tokens", "7680", "--validation-tokens", "2048", "--json", "--quiet"];
    let fast = ["--batch", "2", "--warmup", "2", "--lr", "1e-3", "--validate-every", "4"];
    let tune = |out: &str, more: &[&str]| {
        json(at, &[&finetune[..], &short, &fast, &["--out", out], more].concat());
        std::fs::read(at.join(out)).unwrap()
    };
    assert!(tune("a.rbk", &[]) != tune("b.rbk", &["--teacher", "4.rbk"]));
    let full = ["train", "--corpus", ".", "--out", "full", "--width", "16", "--layers", "1"];
    let table = ["--experts", "1", "--hidden", "16", "--steps", "1", "--batch", "1", "--quiet"];
    let positions = ["--positions", "64", "--window", "64", "--json"];
    let made =
        |more: &[&str]| json(at, &[&full[..], &table, &positions, &tokenizer, more].concat());
    made(&[]);
    let refused = |cause: &str| {
        let teacher = ["--out", "c.rbk", "--teacher", "full/model.safetensors"];
        fails(at, &[&finetune[..], &teacher].concat(), 2, cause);
    };
    refused("a table of 64 positions");
    made(&["--chain", "full", "--force"]);
    refused("full chains");
}

/// The whole path from a gated chain to blobs under every kind of policy, their text and their
/// fine-tuning; the same bytes on any number of threads. With two experts and without any.
#[test]
fn a_gated_chain_is_quantized_scored_sampled_and_finetuned() {
    for (experts, matrices) in [(&["--hidden", "16", "--experts", "2"][..], 20), (&[], 10)] {
        let place = tempfile::tempdir().unwrap();
        let at = place.path();
        trained(at, experts);
        let analyze = ["analyze", MODEL, "--out", "importance.json", "--quiet", "--json"];
        let analysis =
            json(at, &[&analyze[..], &["--tokens", "1024", "--measure-tokens", "256"]].concat());
        let table = |name: &str| analysis["importance"][name].as_object().unwrap().clone();
        // Four classes of both token tables.
        assert_eq!(table("measured").len(), matrices + 6);
        // Neither tables nor convolutions are Linear layers.
        assert_eq!(table("published").len(), matrices - 1 - 2);
        assert!(table("measured").contains_key("blocks.1.bk_layer.conv.weight"));

        let quantize = |out: &str, how: &[&str]| {
            let flags = ["quantize", MODEL, "--out", out, "--json", "--quiet"];
            json(at, &[&flags[..], &SHORT, how].concat())
        };
        let mut names = Vec::new();
        for policy in ["static", "dynamic", "uniform-int8", "uniform-int4"] {
            let out = format!("{policy}.rbk");
            quantize(&out, &["--policy", policy]);
            names.push(out);
        }
        let table = ["--importance", "importance.json"];
        let four = quantize("4.rbk", &[&["--target-ratio", "4"], &table[..]].concat());
        assert!(four["ratio"].as_f64().unwrap() >= 4.0, "{four}");
        names.push("4.rbk".into());
        let read = |name: &str| std::fs::read(at.join(name)).unwrap();
        quantize("again.rbk", &[&["--target-ratio", "4", "--threads", "1"], &table[..]].concat());
        assert!(read("4.rbk") == read("again.rbk"), "the same bytes");

        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let eval = ["eval", MODEL, "--text", "valid.txt", "--json", "--quiet"];
        let scores = json(at, &[&eval[..], &names].concat());
        let kl = |blob: &Value| blob["fidelity"]["kl"].as_f64().unwrap();
        for (blob, limit) in scores["blobs"].as_array().unwrap().iter().zip([1.0, 1.0, 0.01]) {
            assert!(kl(blob) < limit, "{blob}");
        }
        let inspected = json(at, &["inspect", "dynamic.rbk", "--json"]);
        assert_eq!(inspected["dimensions"]["channels"], 32);
        let tensors = inspected["tensors"].as_array().unwrap();
        let storage =
            |name: &str| &tensors.iter().find(|t| t["name"] == name).unwrap()["precision"];
        assert_eq!(storage("blocks.0.bk_layer.conv.weight"), "int8");
        let generate = ["generate", "uniform-int8.rbk", "--tokens", "20", "--seed", "3", "--json"];
        assert_eq!(json(at, &generate)["tokens"].as_array().unwrap().len(), 20);

        quantize("int3.rbk", &["--policy", "uniform-int3"]);
        let tune = |out: &str, threads: &str| {
            let finetune = ["finetune", MODEL, "--blob", "int3.rbk", "--out", out, "--quiet"];
            let short = ["--train-tokens", "7680", "--validation-tokens", "8192", "--json"];
            let fast = ["--batch", "2", "--warmup", "2", "--lr", "3e-3", "--validate-every", "4"];
            json(at, &[&finetune[..], &short, &fast, &["--threads", threads]].concat())
        };
        let tuned = tune("tuned.rbk", "2");
        let kl = |which: &str| kl(&tuned["measured"][which]);
        assert!(kl("after") < kl("before"), "{tuned}");
        tune("tuned-again.rbk", "1");
        assert!(read("tuned.rbk") == read("tuned-again.rbk"), "the same bytes");
    }
}

#[test]
fn impossible_dimensions_are_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let train = ["train", "--corpus", ".", "--out", "gated", "--block", "gated"];
    for (flags, cause) in [
        (["--width", "18446744073709551615"], "width is"),
        (["--channels", "12"], "multiple of the number of potentials, 8"),
        (["--experts", "2"], "2 experts without hidden units"),
        (["--chain", "full"], "causal"),
    ] {
        fails(place.path(), &[&train[..], &flags].concat(), 2, cause);
    }
    let published = ["train", "--corpus", ".", "--out", "x", "--channels", "64"];
    fails(place.path(), &published, 2, "--channels is for --block gated");
}
