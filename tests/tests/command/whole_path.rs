//! The whole path from checkpoint to blob, text and fine-tuned blob.

use std::path::Path;
use std::process::Command;

use resnet_bk_tools::tokenizer::Tokenizer;
use serde_json::{Value, json as value};

use crate::common::{
    PROGRAM, SHORT, fails, fails_usage, json, numbers, quantize, resnet_bk, workplace,
};

#[test]
fn from_checkpoint_to_text() {
    let place = workplace();
    let at = place.path();
    let analyze = ["analyze", "model.safetensors", "--out", "importance.json", "--quiet", "--json"];
    let sizes = ["--tokens", "1024", "--measure-tokens", "256"];
    let analysis = json(at, &[&analyze[..], &sizes].concat());
    let measured = analysis["importance"]["measured"].as_object().unwrap();
    // Sixteen matrices, with four classes each of the two token tables.
    assert_eq!(measured.len(), 16 + 6, "every tensor is measured");
    // Tokens that never occur in the text have no loss in any storage. Groups are shorter than 32
    // where that does not divide a row.
    for costs in measured.values().map(|costs| costs.as_object().unwrap()) {
        let (_, int4) = costs.iter().find(|(storage, _)| storage.starts_with("int4/")).unwrap();
        assert!(int4.as_f64() >= costs["fp16"].as_f64(), "{costs:?}");
    }
    assert!(measured["token_embedding.weight"]["int4/32"].as_f64() > Some(0.0));

    let mut sizes = Vec::new();
    for policy in ["static", "dynamic", "uniform-int8", "uniform-int4"] {
        let out = format!("{policy}.rbk");
        let made = quantize(at, policy, &out);
        let bytes = std::fs::metadata(at.join(&out)).unwrap().len();
        assert_eq!(made["blob_bytes"], bytes);
        let dry =
            ["quantize", "model.safetensors", "--policy", policy, "--dry-run", "--json", "--quiet"];
        let predicted = json(at, &[&dry[..], &SHORT].concat());
        assert_eq!(predicted["blob_bytes"], bytes, "{policy}: the dry run predicts the size");
        let inspected = json(at, &["inspect", &out, "--json"]);
        assert_eq!(inspected["bytes"], bytes);
        assert_eq!(inspected["provenance"]["policy"], policy);
        assert!(inspected["provenance"]["measured"]["perplexity"].as_f64().unwrap() > 1.0);
        sizes.push(bytes);
    }
    assert!(sizes[3] < sizes[2], "INT4 is smaller than INT8");

    let eval = ["eval", "model.safetensors", "uniform-int8.rbk", "uniform-int4.rbk", "--json"];
    let scores = json(at, &[&eval[..], &["--tokens", "4096", "--quiet"]].concat());
    assert!(scores["corpus"].as_str().unwrap().contains("self-sampled"));
    let kl = |i: usize| scores["blobs"][i]["fidelity"]["kl"].as_f64().unwrap();
    assert!(kl(0) < kl(1), "INT8 is closer to FP32 than INT4: {} {}", kl(0), kl(1));
    assert!(kl(0) < 0.01, "INT8 is close to FP32: {}", kl(0));

    let generate = ["generate", "uniform-int8.rbk", "--tokens", "40", "--seed", "3", "--json"];
    let sampled = [&generate[..], &["--temperature", "0.9", "--top-k", "20"]].concat();
    let first = json(at, &sampled);
    assert_eq!(first, json(at, &sampled), "the same seed writes the same text");
    assert_eq!(first["tokens"].as_array().unwrap().len(), 40);
    // Prompt tokens are fed without logits; each generated token needs one vector of logits.
    assert_eq!(first["steps"], 40);
    let nucleus = |top_p: &str| json(at, &[&sampled[..], &["--top-p", top_p]].concat());
    assert_eq!(nucleus("1"), first);
    assert_ne!(nucleus("0.5")["tokens"], first["tokens"]);
    fails(at, &[&generate[..], &["--top-p", "0"]].concat(), 2, "--top-p 0: top-p must be above 0");
    let distinct = |penalty: &str| {
        let text = json(at, &[&generate[..], &["--repetition-penalty", penalty]].concat());
        let mut tokens: Vec<u64> =
            text["tokens"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens.len()
    };
    assert!(distinct("1.5") > distinct("1"));
    let refused = [&generate[..], &["--repetition-penalty", "0.5"]].concat();
    fails(at, &refused, 2, "--repetition-penalty 0.5: the repetition penalty must be between 1");

    // Generation ends before the first stop token; the logits that chose it count.
    let tokenizer = Tokenizer::load(&at.join("tokenizer.json")).unwrap();
    let tokens: Vec<u32> =
        first["tokens"].as_array().unwrap().iter().map(|t| t.as_u64().unwrap() as u32).collect();
    let one_token = |&token: &u32| {
        let text = String::from_utf8(tokenizer.decode(&[token]).unwrap()).ok()?;
        (tokenizer.encode(&text).unwrap() == [token]).then_some((token, text))
    };
    let (token, stop) = tokens[10..].iter().find_map(one_token).unwrap();
    let before = tokens.iter().position(|&t| t == token).unwrap();
    let stopped = json(at, &[&sampled[..], &["--stop", &stop]].concat());
    assert_eq!(stopped["tokens"], value!(&tokens[..before]));
    assert_eq!(stopped["steps"], before + 1);
    let many = [&generate[..], &["--stop", "several words"]].concat();
    fails(at, &many, 2, "choose a text of a single token");

    let greedy = json(at, &["generate", "model.safetensors", "--tokens", "8", "--json"]);
    assert!(greedy["text"].as_str().unwrap().starts_with("The "));
    assert_eq!(greedy["steps"], 8);
}

#[test]
fn budgets_are_kept_and_sensitivities_reused() {
    let place = workplace();
    let at = place.path();
    let make = |target: &[&str], out: &str| {
        let arguments = ["quantize", "model.safetensors", "--importance", "importance.json"];
        let rest = ["--out", out, "--json", "--quiet"];
        json(at, &[&arguments[..], target, &rest, &SHORT].concat())
    };
    let analyze = ["analyze", "model.safetensors", "--out", "importance.json", "--json", "--quiet"];
    json(at, &[&analyze[..], &["--tokens", "1024", "--measure-tokens", "512"]].concat());
    let six = make(&["--target-ratio", "6"], "six.rbk");
    assert_eq!(six["policy"], "budget");
    assert!(six["ratio"].as_f64().unwrap() >= 6.0, "{six}");
    let table = std::fs::read(at.join("importance.json")).unwrap();

    let bytes = six["blob_bytes"].as_u64().unwrap();
    let same = make(&["--target-bytes", &bytes.to_string()], "same.rbk");
    assert!(same["blob_bytes"].as_u64().unwrap() <= bytes);
    assert_eq!(
        std::fs::read(at.join("importance.json")).unwrap(),
        table,
        "nothing is measured again"
    );

    // The target holds on the text that the mix is chosen on.
    let fidelity = |made: &Value| made["chosen"]["blob"]["fidelity"]["kl"].as_f64().unwrap();
    let limit = 4.0 * fidelity(&six);
    let near = make(&["--max-kl", &limit.to_string()], "near.rbk");
    assert!(fidelity(&near) <= limit, "{near}");
    assert!(near["blob_bytes"].as_u64().unwrap() < bytes, "a worse model is a smaller one");

    let quantize = ["quantize", "model.safetensors", "--importance", "importance.json"];
    let tiny = [&quantize[..], &["--target-bytes", "99", "--out", "no.rbk"], &SHORT].concat();
    fails(at, &tiny, 1, "no mix of precisions fits 99 bytes: the smallest has");
    let exact = [&quantize[..], &["--max-kl", "0", "--out", "no.rbk"], &SHORT].concat();
    fails(at, &exact, 1, "no mix of precisions loses at most 0 nats");
    let odd = [&quantize[..], &["--target-ratio", "-1", "--out", "no.rbk"], &SHORT].concat();
    assert!(!resnet_bk(at, &odd).status.success());
    let both = [&quantize[..], &["--target-ratio", "6", "--policy", "static"], &SHORT].concat();
    fails_usage(at, &both);
    assert!(!at.join("no.rbk").exists());
}

/// The recorded perplexity is of text used neither for calibration nor for choices, with and
/// without a corpus.
#[test]
fn a_blob_is_measured_on_text_that_chose_nothing() {
    let place = workplace();
    let at = place.path();
    let quantize = |more: &[&str]| {
        let arguments = ["quantize", "model.safetensors", "--out", "a.rbk", "--json", "--quiet"];
        let made = json(at, &[&arguments[..], &SHORT, more].concat());
        let recorded = json(at, &["inspect", "a.rbk", "--json"])["provenance"]["measured"].clone();
        assert_eq!(recorded["corpus"], made["measured"]["corpus"]);
        [&made["calibration"], &made["chosen"]["corpus"], &recorded["corpus"]]
            .map(|name| name.as_str().unwrap_or("nothing").to_owned())
    };
    let sampled = |split| format!("self-sampled {split}, seed 1");
    let [train, valid, test] = ["train", "valid", "test"].map(sampled);
    let nothing = || "nothing".to_owned();
    assert_eq!(quantize(&["--policy", "uniform-int4"]), [train.clone(), nothing(), test.clone()]);
    let target = ["--target-ratio", "5", "--without", "classes,prune"];
    assert_eq!(quantize(&target), [train, valid, test]);

    std::fs::create_dir(at.join("corpus")).unwrap();
    let sentence = |i: usize| format!("Sentence {i} says that {} is a number . \n", i * i);
    let text = |range: std::ops::Range<usize>| range.map(sentence).collect::<String>();
    std::fs::write(at.join("corpus/train.txt"), text(0..200)).unwrap();
    std::fs::write(at.join("corpus/valid.txt"), text(200..300)).unwrap();
    let corpus = ["--policy", "uniform-int8", "--corpus", "corpus"];
    let names = |test: &str| ["corpus train".to_owned(), nothing(), test.to_owned()];
    assert_eq!(quantize(&corpus), names("corpus valid (in-sample)"));
    std::fs::write(at.join("corpus/test.txt"), text(300..400)).unwrap();
    assert_eq!(quantize(&corpus), names("corpus test"));
    let file = ["--policy", "uniform-int8", "--text", "corpus/train.txt"];
    let parts = ["train.txt, first 80 %", "nothing", "train.txt, last 10 %"];
    assert_eq!(quantize(&file), parts.map(str::to_owned));
}

/// Standard errors are by articles; a single article or window has none.
#[test]
fn errors_are_by_articles_and_one_block_has_none() {
    let place = workplace();
    let at = place.path();
    let article =
        |i: usize| format!(" \n = Title {i} = \n \n{} \n", " some words of it".repeat(60));
    std::fs::write(at.join("many.txt"), (0..12).map(article).collect::<String>()).unwrap();
    quantize(at, "uniform-int8", "a.rbk");
    let eval = |more: &[&str]| {
        let arguments = ["eval", "model.safetensors", "a.rbk", "--text", "many.txt", "--quiet"];
        resnet_bk(at, &[&arguments[..], more].concat())
    };
    let scores: Value = serde_json::from_slice(&eval(&["--json"]).stdout).unwrap();
    assert_eq!(
        (&scores["errors_by"], &scores["blocks"]["block"]),
        (&"12 articles".into(), &"article".into())
    );
    assert!(scores["fp32"]["perplexity_se"].as_f64() > Some(0.0), "{scores}");
    let fidelity = &scores["blobs"][0]["fidelity"];
    assert_eq!(fidelity["kl_replicates"].as_array().unwrap().len(), 12);
    for figure in ["ppl_rise_percent_se", "kl_se", "top1_se"] {
        assert!(fidelity[figure].as_f64() >= Some(0.0), "{figure}: {fidelity}");
    }
    // A single window at the end of the first article.
    let one = ["--window", "64", "--tokens", "65"];
    let scores = eval(&[&one[..], &["--json"]].concat());
    let scores: Value = serde_json::from_slice(&scores.stdout).unwrap();
    assert_eq!(scores["fp32"]["tokens"], 64);
    assert!(scores["fp32"]["perplexity_se"].is_null(), "{scores}");
    assert!(scores["blobs"][0]["fidelity"]["kl_se"].is_null(), "{scores}");
    let table = String::from_utf8(eval(&one).stdout).unwrap();
    assert!(table.contains(" ± –") && !table.contains("± 0"), "{table}");
}

/// A full-chain PyTorch model takes the same path; its fidelity is KL and top-1 agreement.
#[test]
fn an_imported_full_chain_model_is_quantized_for_a_target() {
    let place = tempfile::tempdir().unwrap();
    let at = place.path();
    let theirs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pytorch/k1_top2.pt");
    let theirs = theirs.to_str().unwrap();
    let import = ["import", theirs, "--top-k", "2", "--out", "model.safetensors", "--json"];
    json(at, &import);
    let window = ["--window", "12", "--quiet", "--json"];
    let quantize = ["quantize", "model.safetensors", "--target-ratio", "3", "--out", "three.rbk"];
    let made = json(at, &[&quantize[..], &SHORT, &window].concat());
    assert!(made["ratio"].as_f64().unwrap() >= 3.0, "{made}");
    let eval = ["eval", "model.safetensors", "three.rbk", "--tokens", "1200"];
    let scores = json(at, &[&eval[..], &window].concat());
    let fidelity = &scores["blobs"][0]["fidelity"];
    let (kl, top1) = (fidelity["kl"].as_f64().unwrap(), fidelity["top1"].as_f64().unwrap());
    assert!(kl > 0.0 && kl < 0.05 && top1 > 0.8, "{fidelity}");
    let weights = json(at, &[&eval[..], &window, &["--weights-only"]].concat());
    let alone = weights["blobs"][0]["fidelity"]["kl"].as_f64().unwrap();
    assert!(alone > 0.0 && alone < 2.0 * kl, "{alone} of the weights alone, {kl} in all");
}

#[test]
fn a_report_is_a_page_and_its_plots() {
    let place = workplace();
    let at = place.path();
    quantize(at, "uniform-int4", "small.rbk");
    let row = r#"{"name": "uniform-int4", "kind": "uniform", "blob_bytes": 30000, "ratio": 5.0,
        "ppl": 21.0, "ppl_rise_percent": 5.0, "kl": 0.02, "top1": 0.9}"#;
    let frontier = format!(
        r#"{{"model": "m", "corpus": "c", "fp32_bytes": 150000, "ppl_fp32": 20.0, "rows": [{row}]}}"#
    );
    std::fs::write(at.join("frontier.json"), frontier).unwrap();
    let report = ["report", "frontier.json", "--blob", "small.rbk", "--out", "page.html"];
    let output = resnet_bk(at, &report);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("experts, down"));
    for file in ["page.html", "page/kl.svg", "page/kl.png", "page/bytes.svg", "page/bytes.png"] {
        assert!(at.join(file).metadata().is_ok_and(|file| file.len() > 1000), "{file}");
    }
    std::fs::write(at.join("empty.json"), "{}").unwrap();
    fails(
        at,
        &["report", "empty.json", "--out", "no.html"],
        1,
        "empty.json is not a valid frontier",
    );
    fails(at, &["report", "frontier.json", "--out", "page"], 2, "needs an extension");
}

/// A run stopped in the directory of another model leaves that model unchanged.
#[test]
fn a_training_that_is_killed_leaves_no_foreign_tokenizer() {
    let place = workplace();
    let at = place.path();
    for split in ["train.txt", "valid.txt"] {
        std::fs::write(at.join(split), numbers()).unwrap();
    }
    let before = std::fs::read(at.join("tokenizer.json")).unwrap();
    let small = ["--vocab", "272", "--width", "8", "--layers", "1", "--hidden", "8"];
    let endless = ["--steps", "1000000000", "--window", "8", "--batch", "1", "--shards", "1"];
    let train = ["train", "--corpus", ".", "--out", ".", "--save-every", "1", "--quiet"];
    let mut training = Command::new(PROGRAM)
        .args([&train[..], &small, &endless].concat())
        .current_dir(at)
        .env_remove("WIKITEXT2_DIR")
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // Wait until it has certainly started, or refused to.
    while !at.join("state").exists() && training.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    training.kill().unwrap();
    training.wait().unwrap();
    assert_eq!(std::fs::read(at.join("tokenizer.json")).unwrap(), before);
    let generate = ["generate", "model.safetensors", "--tokens", "2", "--json"];
    assert_eq!(json(at, &generate)["tokens"].as_array().unwrap().len(), 2);
}

/// A file size limit simulates a full disk: the write fails half way.
#[test]
#[cfg(target_os = "linux")]
fn a_failed_write_leaves_nothing_behind() {
    let place = workplace();
    let at = place.path();
    let before = std::fs::read_dir(at).unwrap().count();
    let command = format!(
        "trap '' XFSZ; ulimit -f 4; exec '{}' quantize model.safetensors --policy uniform-int8 \
         --out full.rbk --quiet --calibration-tokens 512 --measure-tokens 0",
        PROGRAM
    );
    let output = Command::new("bash")
        .args(["-c", &command])
        .current_dir(at)
        .env_remove("WIKITEXT2_DIR")
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot write") && stderr.contains("full.rbk"), "{stderr}");
    assert_eq!(std::fs::read_dir(at).unwrap().count(), before, "a partial file was left");
}

/// Fine-tuning on text sampled from the checkpoint: same size, closer to the checkpoint, no
/// leftover files, and the same bytes for the same seed.
#[test]
fn finetuning_gets_closer_in_as_many_bytes() {
    let place = workplace();
    quantize(place.path(), "uniform-int3", "int3.rbk");
    let tune = |out: &str, threads: &str| {
        let arguments = ["finetune", "model.safetensors", "--blob", "int3.rbk", "--out", out];
        let short = ["--train-tokens", "65536", "--validation-tokens", "2048"];
        let fast = ["--warmup", "2", "--lr", "2e-3"];
        let rest = ["--validate-every", "4", "--threads", threads, "--json", "--quiet"];
        json(place.path(), &[&arguments[..], &short, &fast, &rest].concat())
    };
    let tuned = tune("tuned.rbk", "2");
    let kl = |which: &str| tuned["measured"][which]["fidelity"]["kl"].as_f64().unwrap();
    assert!(kl("after") < 0.9 * kl("before"), "{tuned}");
    let perplexity = |of: &Value| of["perplexity"].as_f64().unwrap();
    let ratio = perplexity(&tuned["rounds"][0]["simulated"]["after"])
        / perplexity(&tuned["chosen"]["after"]);
    let corpus = |which: &str| tuned[which]["corpus"].as_str().unwrap().to_owned();
    assert_ne!(corpus("chosen"), corpus("measured"), "nothing is measured where it was chosen");
    assert!((ratio - 1.0).abs() < 1e-3, "{ratio}");
    assert_eq!(tuned["rounds"][0]["steps"], 16);
    let bytes = |name: &str| std::fs::read(place.path().join(name)).unwrap();
    // The header may grow by a few digits of recorded figures.
    assert!(bytes("tuned.rbk").len() <= bytes("int3.rbk").len() + 16);
    tune("again.rbk", "1");
    assert_eq!(bytes("tuned.rbk"), bytes("again.rbk"));
    assert!(!place.path().join("tuned.rbk.state").exists());
    assert!(place.path().join("tuned.rbk.jsonl").exists());

    let target = ["--target-ratio", "6", "--rounds", "2", "--train-tokens", "65536"];
    let arguments = ["finetune", "model.safetensors", "--out", "6.rbk", "--json", "--quiet"];
    let rounds = json(place.path(), &[&arguments[..], &target, &SHORT].concat());
    assert!(rounds["ratio"].as_f64().unwrap() >= 6.0, "{rounds}");
    assert!(!place.path().join("6.rbk.state").exists());
    let kls = rounds["rounds"].as_array().unwrap();
    let kl = |round: usize| kls[round]["simulated"]["after"]["kl"].as_f64().unwrap();
    let best = rounds["best_round"].as_u64().unwrap() as usize - 1;
    assert!((0..kls.len()).all(|round| kl(best) <= kl(round)), "{rounds}");

    let wrong = |more: &[&str], cause: &str| {
        let start = ["finetune", "model.safetensors", "--out", "x.rbk", "--blob", "int3.rbk"];
        fails(place.path(), &[&start[..], more].concat(), 2, cause);
    };
    wrong(&["--train-tokens", "1000000000"], "more than");
    wrong(&["--train-tokens", "10"], "too small for one step");
    wrong(&["--rounds", "2"], "name a target instead");
    wrong(&["--lr", "0"], "--lr must be positive");
}

/// Fine-tuning on a file of the user's: parts of it that do not overlap train, choose and measure.
#[test]
fn one_file_is_divided_for_fine_tuning() {
    let place = workplace();
    quantize(place.path(), "uniform-int3", "int3.rbk");
    let lines = (0..4000).map(|i| format!("Line {i} of {} tells of {}.\n", i % 17, i * i % 101));
    std::fs::write(place.path().join("book.txt"), lines.collect::<String>()).unwrap();
    let arguments = ["finetune", "model.safetensors", "--blob", "int3.rbk", "--text", "book.txt"];
    let short = ["--train-tokens", "16384", "--validation-tokens", "1024", "--warmup", "2"];
    let rest = ["--out", "tuned.rbk", "--json", "--quiet"];
    let tuned = json(place.path(), &[&arguments[..], &short, &rest].concat());
    assert_eq!(tuned["chosen"]["corpus"], "book.txt, 80 to 90 %");
    assert_eq!(tuned["measured"]["corpus"], "book.txt, last 10 %");

    std::fs::write(place.path().join("book.txt"), "A line.\n").unwrap();
    let cause = "first 80 % has 0 tokens, but one window needs 129";
    fails(place.path(), &[&arguments[..], &short, &["--out", "x.rbk"]].concat(), 1, cause);
}
