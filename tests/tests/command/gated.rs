//! Gated chains on the command line.

use crate::common::{fails, json};

/// A gated chain is trained, scored, sampled and described in FP32, and quantizing it names the
/// reason for refusing.
#[test]
fn a_gated_chain_is_trained_scored_and_sampled() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let words = ["the chain", "remembers", "what", "it met", "and forgets", "the rest.\n"];
    let text: String = (0..3000).map(|i| words[i * i % 7 % 6].to_owned() + " ").collect();
    std::fs::write(at.join("train.txt"), &text).unwrap();
    std::fs::write(at.join("valid.txt"), &text[..4000]).unwrap();
    let train = ["train", "--corpus", ".", "--out", "gated", "--block", "gated", "--vocab", "280"];
    let sizes = ["--width", "16", "--layers", "2", "--potentials", "4", "--steps", "30"];
    let batch = ["--batch", "4", "--lr", "0.01", "--warmup", "5", "--json", "--quiet"];
    let trained = json(at, &[&train[..], &sizes, &batch].concat());
    assert!(trained["validation_bits_per_byte"].as_f64().unwrap() < 8.0);

    let model = "gated/model.safetensors";
    let inspected = json(at, &["inspect", model, "--json"]);
    assert_eq!(inspected["dimensions"]["channels"], 32);
    let scores = json(at, &["eval", model, "--text", "valid.txt", "--json", "--quiet"]);
    assert!(scores["fp32"]["perplexity"].as_f64().unwrap() > 1.0, "{scores}");
    // Longer than a chunk of the long-window path.
    let long = ["eval", model, "--text", "train.txt", "--window", "2000", "--json", "--quiet"];
    assert!(json(at, &long)["fp32"]["perplexity"].as_f64().unwrap() > 1.0);
    let generate = ["generate", model, "--tokens", "20", "--seed", "3", "--json"];
    assert_eq!(json(at, &generate)["tokens"].as_array().unwrap().len(), 20);
    let quantize =
        ["quantize", model, "--policy", "static", "--text", "valid.txt", "--out", "g.rbk"];
    fails(at, &quantize, 2, "gated chain");
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
