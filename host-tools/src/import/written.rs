//! Archives as written by `torch.save`, in variants without a fixture.

use super::element::{Entries, Entry, Values};
use super::saved::{Maker, Object, Storages, Tensor};
use super::*;
use crate::checkpoint::{Block, Chain};
use crate::files;

const NAME: &str = "pytorch/k1_top1.pt";

fn bytes(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
    files::read(&path).unwrap()
}

fn fixture() -> Vec<u8> {
    bytes(NAME)
}

fn published() -> Entries {
    entries(&fixture())
}

fn entries(bytes: &[u8]) -> Entries {
    let mut source = Source::from_bytes(bytes, Path::new(NAME)).unwrap();
    let state = state::states(&source.dictionaries).unwrap().swap_remove(0);
    source.read(state.tensors.into_iter().collect()).unwrap()
}

fn read(bytes: &[u8], state: Option<&str>) -> Result<Checkpoint> {
    let dimensions = Dimensions { top_k: Some(1), ..Dimensions::default() };
    let options = Options { state: state.map(Into::into), ..Options::with(dimensions) };
    from_bytes(bytes, Path::new("x.pt"), &options).map(|imported| imported.checkpoint)
}

/// Asserts that the file imports as the fixture's model; returns the provenance.
#[track_caller]
fn same(bytes: &[u8], state: Option<&str>) -> BTreeMap<String, String> {
    let checkpoint = read(bytes, state).unwrap();
    let expected = read(&fixture(), None).unwrap();
    assert_eq!((checkpoint.config, checkpoint.tensors), (expected.config, expected.tensors));
    checkpoint.provenance
}

#[track_caller]
fn said(bytes: &[u8], state: Option<&str>) -> String {
    let error = read(bytes, state).expect_err("it was imported");
    format!("{error}\nhelp: {}", error.help())
}

fn plain(name: &str) -> String {
    name.into()
}

#[test]
fn tensors_beside_the_model_are_no_part_of_it() {
    let mut file = Storages::default();
    let random = Entry { shape: vec![16], values: Values::Real(vec![0.5; 16]) };
    let object = Object::Dict(vec![
        ("rng_state".into(), Object::Tensor(file.tensor(&random))),
        ("model".into(), file.dict(&published(), plain)),
        ("args".into(), Object::Dict(vec![("lr".into(), Object::Text("0.1"))])),
    ]);
    let provenance = same(&file.save(&object), None);
    assert_eq!(provenance["imported_state"], "model");

    let mut file = Storages::default();
    let nested = Object::Dict(vec![("state_dict".into(), file.dict(&published(), plain))]);
    let object = Object::List(vec![Object::Int(3), nested]);
    assert_eq!(same(&file.save(&object), None)["imported_state"], "1.state_dict");
}

#[test]
fn settings_saved_beside_the_weights_are_taken() {
    let saved = |entries: &Entries, settings: &[(&str, Object)]| {
        let mut file = Storages::default();
        let settings = settings.iter().map(|(key, value)| (key.to_string(), value.clone()));
        let items = [
            ("model".into(), file.dict(entries, plain)),
            ("config".into(), Object::Dict(settings.collect())),
            // Of a sampler, and more than there are experts.
            ("sampling".into(), Object::Dict(vec![("top_k".into(), Object::Int(50))])),
        ];
        file.save(&Object::Dict(items.into()))
    };
    let import = |bytes: &[u8]| from_bytes(bytes, Path::new("x.pt"), &Options::default());

    let file = saved(&published(), &[("top_k", Object::Int(2)), ("eta_floor", Object::Float(9.0))]);
    let Imported { checkpoint, survey } = import(&file).unwrap();
    assert_eq!(checkpoint.config.top_k, 2);
    assert!(checkpoint.config.eta_floor < 9.0, "its buffers tell");
    assert_eq!(survey.origins["top_k"], "saved beside the weights");
    assert_eq!(read(&file, None).unwrap().config.top_k, 1, "flags come first");

    let trained = entries(&bytes("import/half.pt"));
    let file = saved(
        &trained,
        &[
            ("top_k", Object::Int(1)),
            ("chain", Object::Text("full")),
            ("eta_floor", Object::Float(0.0625)),
            ("off_diagonal", Object::Float(-1.0)),
        ],
    );
    let Imported { checkpoint, survey } = import(&file).unwrap();
    assert_eq!((checkpoint.config.chain, checkpoint.config.eta_floor), (Chain::Full, 0.0625));
    assert_eq!(
        (checkpoint.config.off_diagonal, &*survey.origins["off_diagonal"]),
        (1.0, "assumed")
    );

    let mut file = Storages::default();
    let top_k = |k| Object::Dict(vec![("top_k".into(), Object::Int(k))]);
    let model = file.dict(&published(), plain);
    let two = [("model".into(), model), ("args".into(), top_k(1)), ("config".into(), top_k(2))];
    let error = import(&file.save(&Object::Dict(two.into()))).expect_err("which of the two?");
    assert!(error.to_string().ends_with("is routed (top_k): {1, 2}"), "{error}");
    assert!(error.help().contains("--top-k"), "{error}");
}

#[test]
fn of_two_models_one_has_to_be_named() {
    let mut other = published();
    other.get_mut("lm_head.bias").unwrap().values = Values::Real(vec![1.0; 40]);
    let both = || {
        let mut file = Storages::default();
        let object = Object::Dict(vec![
            ("model".into(), file.dict(&published(), plain)),
            ("ema".into(), file.dict(&other, |name| format!("module.{name}"))),
        ]);
        file.save(&object)
    };
    let refusal = said(&both(), None);
    assert!(refusal.contains("it holds 2 models: `model`, `ema`"), "{refusal}");
    assert!(refusal.contains("--state model"), "{refusal}");
    same(&both(), Some("model"));
    let ema = read(&both(), Some("ema")).unwrap();
    assert_eq!(ema.tensors["lm_head.bias"].data, [1.0; 40]);
    assert_eq!(ema.provenance["imported_state"], "ema");
    let refusal = said(&both(), Some("average"));
    assert!(refusal.contains("no model `average`, but `model`, `ema`"), "{refusal}");
}

#[test]
fn prefixes_on_some_names_and_foreign_names_beside_a_prefix() {
    let some = |name: &str| match name.strip_prefix("blocks.0.") {
        Some(rest) => format!("blocks.0._orig_mod.{rest}"),
        None => name.to_string(),
    };
    let mut file = Storages::default();
    let object = file.dict(&published(), some);
    assert!(!same(&file.save(&object), None).contains_key(LEFT_OUT_KEY));

    let with_weight = |wrap: &str| {
        let mut file = Storages::default();
        let weight = Entry { shape: vec![2], values: Values::Real(vec![1.0; 2]) };
        let Object::Dict(mut items) = file.dict(&published(), |name| format!("{wrap}{name}"))
        else {
            panic!("no dictionary");
        };
        items.push(("criterion.weight".into(), Object::Tensor(file.tensor(&weight))));
        file.save(&Object::Dict(items))
    };
    for prefix in ["", "module.", "model.", "module.net."] {
        assert_eq!(same(&with_weight(prefix), None)[LEFT_OUT_KEY], "criterion.weight");
    }
}

/// The fixture's archive after a change to one tensor.
fn changed(name: &str, change: impl FnOnce(&mut Tensor, &mut Storages)) -> Vec<u8> {
    let mut file = Storages::default();
    let Object::Dict(mut items) = file.dict(&published(), plain) else { panic!("no dictionary") };
    let (_, object) = items.iter_mut().find(|(key, _)| key == name).unwrap();
    let Object::Tensor(tensor) = object else { panic!("no tensor") };
    change(tensor, &mut file);
    file.save(&Object::Dict(items))
}

#[test]
fn expanded_buffers_are_read() {
    let expanded = changed("blocks.0.bk_layer.h0_diag_base", |tensor, file| {
        tensor.storage = file.add((-2.0f32).to_le_bytes().to_vec());
        tensor.strides = vec![0, 0];
    });
    same(&expanded, None);
    let outside = changed("blocks.0.bk_layer.h0_diag_base", |tensor, file| {
        tensor.storage = file.add((-2.0f32).to_le_bytes().to_vec());
        tensor.strides = vec![0, 1];
    });
    let refusal = said(&outside, None);
    assert!(refusal.contains("[1, 12] does not fit its storage"), "{refusal}");
    for shape in [vec![1 << 20, 1 << 20], vec![1 << 30; 8]] {
        let enormous = changed("lm_head.bias", |tensor, _| {
            tensor.strides = vec![0; shape.len()];
            tensor.shape = shape;
        });
        let refusal = said(&enormous, None);
        assert!(refusal.contains("`lm_head.bias` has shape [10"), "{refusal}");
    }
}

#[test]
fn a_small_file_does_not_become_a_large_model() {
    let config = read(&fixture(), None).unwrap().config;
    let large = ModelConfig { width: 4096, vocab: 65_536, block: Block::Resolvent, ..config };
    let mut file = Storages::default();
    let storage = file.add(1.0f32.to_le_bytes().to_vec());
    let tensor = |spec: crate::checkpoint::TensorSpec| {
        let strides = vec![0; spec.shape.len()];
        let (shape, maker) = (spec.shape, Maker::Plain);
        let tensor = Tensor { class: "FloatStorage", storage, offset: 0, shape, strides, maker };
        (spec.name, Object::Tensor(tensor))
    };
    let object = Object::Dict(large.tensors().into_iter().map(tensor).collect());
    let refusal = said(&file.save(&object), None);
    assert!(
        refusal.contains("beyond those of their storages") && refusal.contains("clone()"),
        "{refusal}"
    );
}

#[test]
fn views_share_a_storage() {
    let published = published();
    let Values::Real(bias) = &published["lm_head.bias"].values else { panic!("no numbers") };
    let mut padded = vec![7.0; 3];
    padded.extend(bias);
    padded.extend([8.0; 1 << 16]);
    let shared = changed("lm_head.bias", |tensor, file| {
        tensor.storage = file.add(padded.iter().flat_map(|v| v.to_le_bytes()).collect());
        tensor.offset = 3;
    });
    same(&shared, None);
    // Memory layout of `weight.t()`.
    let transposed = changed("lm_head.weight", |tensor, file| {
        let Values::Real(weight) = &published["lm_head.weight"].values else {
            panic!("no numbers")
        };
        let by_columns = (0..400).map(|i| weight[i % 40 * 10 + i / 40]);
        tensor.storage = file.add(by_columns.flat_map(f32::to_le_bytes).collect());
        tensor.strides = vec![1, 40];
    });
    same(&transposed, None);
}

#[test]
fn every_way_to_make_a_tensor_is_understood_or_named() {
    for maker in [Maker::Parameter, Maker::WithState] {
        same(&changed("lm_head.bias", |tensor, _| tensor.maker = maker), None);
    }
    // Views whose values are not those of their storage.
    same(
        &changed("blocks.0.bk_layer.z", |tensor, file| {
            let parts = [0.0f32, -1.0].iter().flat_map(|part| part.to_le_bytes());
            tensor.storage = file.add(parts.collect());
            tensor.maker = Maker::Marked("conj");
        }),
        None,
    );
    same(
        &changed("lm_head.bias", |tensor, file| {
            let bias = published().remove("lm_head.bias").unwrap();
            let Values::Real(bias) = bias.values else { panic!("no numbers") };
            tensor.storage = file.add(bias.iter().flat_map(|v| (-v).to_le_bytes()).collect());
            tensor.maker = Maker::Marked("neg");
        }),
        None,
    );
    let marked = changed("lm_head.bias", |tensor, _| tensor.maker = Maker::Marked("odd"));
    let refusal = said(&marked, None);
    assert!(refusal.contains("`lm_head.bias` has the unknown mark"), "{refusal}");
    let strange = changed("lm_head.bias", |tensor, _| tensor.class = "QInt8Storage");
    let refusal = said(&strange, None);
    assert!(refusal.contains("`torch.QInt8Storage`") && refusal.contains("float()"), "{refusal}");
}
