//! Options of single commands.

use crate::common::{SHORT, fails, json, quantize, resnet_bk, workplace};

#[test]
fn every_help_teaches_with_examples() {
    let place = tempfile::tempdir().unwrap();
    for command in
        ["train", "import", "analyze", "quantize", "eval", "inspect", "report", "generate"]
    {
        let output = resnet_bk(place.path(), &[command, "--help"]);
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains(&format!("resnet-bk {command}")), "{command}: {help}");
        assert!(help.contains("Example"), "{command}: {help}");
    }
    assert_eq!(resnet_bk(place.path(), &["frobnicate"]).status.code(), Some(2));
}

#[test]
fn memory_is_bounded_without_another_result() {
    let place = workplace();
    let at = place.path();
    let quantize = ["quantize", "model.safetensors", "--target-ratio", "6", "--json", "--quiet"];
    let made = |out: &str, more: &[&str]| {
        json(at, &[&quantize[..], &["--out", out], &SHORT, more].concat());
        std::fs::read(at.join(out)).unwrap()
    };
    assert!(made("any.rbk", &[]) == made("bounded.rbk", &["--memory", "2MB"]));
    let none = [&quantize[..], &["--out", "no.rbk", "--memory", "100kB"], &SHORT].concat();
    fails(at, &none, 1, "more than --memory allows");
    assert!(!at.join("no.rbk").exists());
}

/// INT4 has a kernel everywhere, FP16 only where an FPU converts halves: `static` has both.
#[test]
fn inspect_says_which_kernels_serve() {
    let place = workplace();
    let at = place.path();
    quantize(at, "static", "static.rbk");
    let kernels = |target: &str| json(at, &["inspect", "static.rbk", "--json", "--target", target]);
    let of = |inspected: &serde_json::Value, precision: &str, key: &str| -> Vec<String> {
        let tensors = inspected["tensors"].as_array().unwrap().iter();
        let linear = |t: &&serde_json::Value| !t["name"].as_str().unwrap().contains("embedding");
        let some = tensors.filter(linear).filter(|t| t["precision"] == precision);
        some.map(|t| t[key].to_string()).collect()
    };
    let (m4f, m0) = (kernels("cortex-m4f"), kernels("cortex-m0"));
    for (inspected, precision, kernel, fallback) in [
        (&m4f, "fp16", "\"FPU\"", "null"),
        (&m4f, "int4", "\"DSP extension\"", "null"),
        (&m0, "fp16", "\"portable\"", "\"storage\""),
    ] {
        let (names, reasons) =
            (of(inspected, precision, "kernel"), of(inspected, precision, "fallback"));
        assert!(!names.is_empty() && names.iter().all(|name| name == kernel), "{names:?}");
        assert!(reasons.iter().all(|reason| reason == fallback), "{reasons:?}");
    }
    assert_eq!(m4f["kernels"]["target"], "cortex-m4f");
    assert_eq!(m4f["kernels"]["fast"], m4f["kernels"]["tensors"]);
    assert!(m0["kernels"]["fast"].as_u64() < m0["kernels"]["tensors"].as_u64());
    let output = resnet_bk(at, &["inspect", "static.rbk", "--target", "cortex-m0"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("no kernel for this precision"), "{text}");
    let here = json(at, &["inspect", "static.rbk", "--json"]);
    assert_eq!(here["kernels"]["target"], "this machine");
    // For a refused argument, clap lists the possible values.
    let unknown = resnet_bk(at, &["inspect", "static.rbk", "--target", "z80"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("cortex-m4f"));
    fails(at, &["inspect", "model.safetensors", "--target", "cortex-m4f"], 2, "quantize it first");
}

#[test]
fn the_published_estimate_is_exact() {
    let place = tempfile::tempdir().unwrap();
    let output = resnet_bk(place.path(), &["inspect", "--published-estimate"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for figure in ["4639.98 KiB", "772.91 KiB", "6.00×"] {
        assert!(text.contains(figure), "{text}");
    }
}

#[test]
fn a_policy_file_overrides_by_pattern() {
    let place = workplace();
    let at = place.path();
    let policy = "name = \"mine\"\nbase = \"uniform-int8\"\n\
                  [[override]]\ntensors = \"blocks.*.experts.*\"\nprecision = \"int4\"\ngroup = 16\n";
    std::fs::write(at.join("mine.toml"), policy).unwrap();
    quantize(at, "mine.toml", "mine.rbk");
    let inspected = json(at, &["inspect", "mine.rbk", "--json"]);
    for tensor in inspected["tensors"].as_array().unwrap() {
        let expert = tensor["name"].as_str().unwrap().contains("experts");
        assert_eq!(tensor["precision"], if expert { "int4" } else { "int8" });
        assert_eq!(tensor["group"], if expert { 16 } else { 0 });
    }
    let unmatched = policy.replace("experts.*", "heads.*");
    std::fs::write(at.join("other.toml"), unmatched).unwrap();
    let arguments = ["quantize", "model.safetensors", "--policy", "other.toml", "--out", "x.rbk"];
    fails(at, &arguments, 1, "matches no tensor");
    assert!(!at.join("x.rbk").exists());
}

#[test]
fn a_step_can_be_left_out() {
    let place = workplace();
    let at = place.path();
    let make = |without: &[&str]| {
        let arguments = ["quantize", "model.safetensors", "--policy", "uniform-int4"];
        let rest = ["--out", "a.rbk", "--json", "--quiet"];
        let made = json(at, &[&arguments[..], &rest, &SHORT, without].concat());
        made["measured"]["blob"]["fidelity"]["kl"].as_f64().unwrap()
    };
    let all = make(&[]);
    let none = "scale-search,refit,gptq,descent,outputs,bias-correction";
    let plain = make(&["--without", none]);
    assert!(all < 0.8 * plain, "{all} with every step, {plain} with none");
}

#[test]
fn the_same_inputs_give_the_same_blob() {
    let place = workplace();
    quantize(place.path(), "static", "one.rbk");
    quantize(place.path(), "static", "two.rbk");
    let read = |name: &str| std::fs::read(place.path().join(name)).unwrap();
    assert_eq!(read("one.rbk"), read("two.rbk"));
}
