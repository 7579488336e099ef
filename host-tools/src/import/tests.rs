use super::*;
use crate::checkpoint::{Block, Chain, Tensor};
use crate::files;
use element::{Element, Entries, Entry, Values};
use state::Dictionary;

fn options(top_k: usize) -> Options {
    Options::with(Dimensions { top_k: Some(top_k), ..Dimensions::default() })
}

fn import(path: &Path, options: &Options) -> Result<Checkpoint> {
    super::import(path, options).map(|imported| imported.checkpoint)
}

fn from_bytes(bytes: &[u8], path: &Path, options: &Options) -> Result<Checkpoint> {
    super::from_bytes(bytes, path, options).map(|imported| imported.checkpoint)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/pytorch").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    files::read(&fixture(name)).unwrap()
}

/// The error message: every problem on its own line, then the remedy.
fn said(result: Result<Checkpoint>) -> String {
    let error = result.expect_err("it was imported");
    format!("{error}\nhelp: {}", error.help())
}

/// Every tensor of the first state.
fn entries(bytes: &[u8]) -> Result<Entries> {
    let refused = |refusal: Refusal| refusal.of_file(Path::new("x"));
    let mut source = Source::from_bytes(bytes, Path::new("x"))?;
    let state = state::states(&source.dictionaries).map_err(refused)?.swap_remove(0);
    source.read(state.tensors.into_iter().collect()).map_err(refused)
}

/// Plans and converts tensors that are already read.
fn convert(entries: Entries) -> Result<(ModelConfig, BTreeMap<String, Tensor>), Refusal> {
    let shape = |entry: &Entry| match entry.values {
        Values::Real(_) => Element::F32,
        Values::Complex(_) => Element::Complex64,
        Values::Integers => Element::Integer(8),
    };
    let shapes = entries.iter().map(|(name, entry)| {
        (name.as_str(), Some(Shape { extents: &entry.shape, element: shape(entry) }))
    });
    layout::plan(&shapes.collect(), None, &[], &options(1))?.convert(entries)
}

/// The error message for `k1_top1.pt` after a change to its tensors.
fn said_after(change: impl FnOnce(&mut Entries)) -> String {
    let mut entries = entries(&bytes("k1_top1.pt")).unwrap();
    change(&mut entries);
    let Refusal { problems, remedy } = convert(entries).unwrap_err();
    assert!(!remedy.is_empty());
    problems.join("\n")
}

fn set(entries: &mut Entries, name: &str, index: usize, value: f32) {
    match &mut entries.get_mut(name).unwrap().values {
        Values::Real(values) => values[index] = value,
        other => panic!("{name} holds {other:?}"),
    }
}

fn real(shape: &[usize]) -> Entry {
    let values = Values::Real(vec![0.0; shape.iter().product()]);
    Entry { shape: shape.to_vec(), values }
}

#[test]
fn dimensions_are_counted_and_buffers_become_the_chain() {
    let checkpoint = import(&fixture("k1_top1.pt"), &options(1)).unwrap();
    let config = ModelConfig {
        vocab: 40,
        width: 10,
        layers: 2,
        experts: 3,
        top_k: 1,
        hidden: 20,
        potentials: 1,
        positions: Some(12),
        chain: Chain::Full,
        eta_floor: 1.0,
        off_diagonal: 1.0,
        block: Block::Resolvent,
    };
    assert_eq!(checkpoint.config, config);
    for block in 0..2 {
        let tensor = |name| &checkpoint.tensors[&format!("blocks.{block}.bk_layer.{name}")];
        assert_eq!(tensor("diagonal").data, [-2.0]);
        assert_eq!(tensor("log_eta").data, [0.0]);
    }
    assert_eq!(checkpoint.provenance["imported_from"], "k1_top1.pt");
    assert_eq!(checkpoint.provenance["imported_sha256"].len(), 64);
}

#[test]
fn every_container_gives_the_same_weights() {
    let same = |a: &str, b: &str, top_k| {
        let read = |name| import(&fixture(name), &options(top_k)).unwrap();
        let (a, b) = (read(a), read(b));
        assert_eq!((a.config, a.tensors), (b.config, b.tensors));
    };
    same("k1_top1.pt", "k1_top1.safetensors", 1);
    same("k1_dense.pt", "k1_dense_nested.pt", 3);
}

#[test]
fn an_imported_model_is_an_ordinary_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let dimensions = Dimensions { top_k: Some(2), chain: Some(Chain::Half), ..Default::default() };
    let checkpoint = import(&fixture("k1_top2.pt"), &Options::with(dimensions)).unwrap();
    assert_eq!(checkpoint.config.chain, Chain::Half);
    checkpoint.write(&path).unwrap();
    assert_eq!(Checkpoint::read(&path).unwrap(), checkpoint);
    // Importing our own format writes it again; its metadata has all dimensions.
    let again = import(&path, &Options::default()).unwrap();
    assert_eq!((&again.config, &again.tensors), (&checkpoint.config, &checkpoint.tensors));
    let said = said(import(&path, &options(1)));
    assert!(said.contains("top_k is 1 by the flags, but 2 in the file"), "{said}");
}

#[test]
fn missing_surplus_and_misshapen_tensors_are_named_together() {
    let said = said_after(|entries| {
        entries.remove("blocks.1.bk_layer.moe_ffn.experts.2.3.bias").unwrap();
        entries.remove("blocks.0.bk_layer.z").unwrap();
        entries.insert("blocks.0.bk_layer.extra".into(), real(&[7]));
        entries.insert("token_embedding.weight".into(), real(&[40, 11]));
        entries.insert("lm_head.bias".into(), real(&[39]));
        let counter = entries["blocks.0.bk_layer.moe_ffn.scattering_step_counter"].clone();
        entries.insert("layer_norm_final.bias".into(), Entry { shape: vec![10], ..counter });
    });
    let expected = [
        "`blocks.0.bk_layer.z` [] is missing",
        "`blocks.1.bk_layer.moe_ffn.experts.2.3.bias` [10] is missing",
        "`layer_norm_final.bias` holds integers, expected floating-point numbers",
        "`lm_head.bias` has shape [39], expected [40]",
        "`token_embedding.weight` has shape [40, 11], expected [40, 10]",
        "`blocks.0.bk_layer.extra` [7] does not belong to this model",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn every_single_tensor_is_needed_and_has_one_shape() {
    let complete = entries(&bytes("k1_top1.pt")).unwrap();
    for name in complete.keys() {
        let without = || complete.clone().into_iter().filter(|(n, _)| n != name);
        if name.ends_with("scattering_step_counter") {
            assert!(convert(without().collect()).is_ok(), "the counter changes nothing");
            continue;
        }
        let missing = convert(without().collect()).unwrap_err().problems.join("\n");
        assert!(missing.contains(&format!("`{name}`")) && missing.contains("is missing"), "{name}");
        let odd = without().chain([(name.clone(), real(&[3, 1, 4]))]).collect();
        let misshapen = convert(odd).unwrap_err().problems.join("\n");
        let expected = format!("`{name}` has shape [3, 1, 4], expected");
        assert!(misshapen.contains(&expected), "{misshapen}");
    }
}

#[test]
fn unknown_extents_are_not_made_up() {
    let said = said_after(|entries| {
        entries.remove("token_embedding.weight");
        entries.retain(|name, _| !name.starts_with("lm_head"));
    });
    assert!(said.contains("`token_embedding.weight` [?, 10] is missing"), "{said}");
}

#[test]
fn wrappers_around_the_names_are_removed() {
    let plain = entries(&bytes("k1_top1.pt")).unwrap();
    for wrapper in ["module.", "model.", "_orig_mod.", "module._orig_mod.model."] {
        let wrapped = plain.iter().map(|(k, v)| (format!("{wrapper}{k}"), v.clone())).collect();
        let wrapped = Dictionary { path: String::new(), tensors: wrapped };
        let State { tensors, left_out, .. } = state::states(&[wrapped]).unwrap().swap_remove(0);
        assert!(left_out.is_empty());
        let (config, tensors) = convert(tensors).unwrap();
        assert_eq!(tensors, convert(plain.clone()).unwrap().1);
        assert_eq!(config.layers, 2);
    }
}

#[test]
fn other_revisions_are_refused_with_the_reason() {
    let cases: [(&str, &[usize], &str); 7] = [
        ("blocks.0.bk_layer.gamma", &[], "`blocks.0.bk_layer.gamma` belongs to a learned decay"),
        ("blocks.0.bk_layer.epsilon_param", &[], "a learned decay"),
        ("blocks.0.bk_layer.birman_schwinger_core.x", &[2], "the Birman–Schwinger core"),
        ("blocks.0.bk_layer.moe_ffn.scattering_router.x", &[2], "routing by scattering phases"),
        ("blocks.0.bk_layer.ffn.experts.0.0.weight", &[20, 10], "pass through tanh"),
        ("blocks.1.force_field.v_proj.weight", &[1, 5], "the symplectic block"),
        ("blocks.1.bk_layer.bk_scale", &[10], "scales each channel by itself"),
    ];
    for (name, shape, reason) in cases {
        let said = said_after(|entries| drop(entries.insert(name.into(), real(shape))));
        assert!(
            said.contains(name) && said.contains(reason) && said.lines().count() == 1,
            "{said}"
        );
    }
}

#[test]
fn buffers_that_are_no_constants_are_refused() {
    let of = |block: usize, name: &str| format!("blocks.{block}.bk_layer.{name}");
    let cases: [(&str, f32, &str); 5] = [
        ("h0_diag_base", -1.5, "is -2 at position 0 but -1.5 at position 3"),
        ("h0_diag_base", f32::NAN, "is NaN at position 3"),
        ("h0_sub_base", 0.5, "is 1 at position 0 but 0.5 at position 3"),
        ("h0_super_base", 0.0, "is 1 at position 0 but 0 at position 3"),
        ("h0_super_base", f32::INFINITY, "is inf at position 3"),
    ];
    for (buffer, value, reason) in cases {
        let said = said_after(|entries| set(entries, &of(1, buffer), 3, value));
        assert!(said.contains(&of(1, buffer)) && said.contains(reason), "{said}");
    }
    for (value, reason) in [(0.0, "is 0, so no position sees another"), (-1.0, "is -1; a chain")] {
        let said = said_after(|entries| {
            (0..11).for_each(|index| set(entries, &of(0, "h0_sub_base"), index, value));
        });
        assert!(said.contains(reason), "{said}");
    }
    let said = said_after(|entries| {
        (0..11).for_each(|index| set(entries, &of(1, "h0_sub_base"), index, 0.25));
    });
    assert!(said.contains("of block 1 have the product 0.25, those of block 0 1.0"), "{said}");
    for z in [[0.5, 1.0], [0.0, 0.0], [0.0, -1.0], [0.0, f32::NAN], [f32::NAN, 1.0]] {
        let values = Values::Complex(vec![z]);
        let said = said_after(|entries| entries.get_mut(&of(0, "z")).unwrap().values = values);
        assert!(said.contains("`blocks.0.bk_layer.z`") && said.contains("imaginary"), "{said}");
    }
}

#[test]
fn other_constants_are_taken_over() {
    let mut entries = entries(&bytes("k1_top1.pt")).unwrap();
    let z = |entries: &mut Entries, block: usize, entry: Entry| {
        entries.insert(format!("blocks.{block}.bk_layer.z"), entry);
    };
    z(&mut entries, 0, Entry { shape: vec![], values: Values::Complex(vec![[0.0, 0.5]]) });
    // As stored by `torch.view_as_real`.
    z(&mut entries, 1, Entry { shape: vec![2], values: Values::Real(vec![0.0, 2.0]) });
    for index in 0..12 {
        set(&mut entries, "blocks.1.bk_layer.h0_diag_base", index, -1.0);
    }
    for (block, index) in (0..2).flat_map(|block| (0..11).map(move |index| (block, index))) {
        set(&mut entries, &format!("blocks.{block}.bk_layer.h0_sub_base"), index, 0.5);
        set(&mut entries, &format!("blocks.{block}.bk_layer.h0_super_base"), index, 0.5);
    }
    let (config, tensors) = convert(entries).unwrap();
    assert_eq!((config.eta_floor, config.off_diagonal), (0.5, 0.25));
    let value = |name: &str| tensors[&format!("blocks.{name}")].data[0];
    assert_eq!((value("0.bk_layer.diagonal"), value("1.bk_layer.diagonal")), (-2.0, -1.0));
    assert_eq!(value("0.bk_layer.log_eta"), 0.5f32.ln());
    assert_eq!(value("1.bk_layer.log_eta"), 2.0f32.ln());
}

#[test]
fn weights_that_are_not_numbers_are_refused() {
    // The last bytes of the container are weights of the last tensor, `token_embedding.weight`.
    let mut file = bytes("k1_top1.safetensors");
    let end = file.len();
    file[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    let said = said(from_bytes(&file, Path::new("x"), &options(1)));
    assert!(said.contains("x:") && said.contains("holds NaN at index 399"), "{said}");
}

#[test]
fn top_k_has_to_fit_the_experts() {
    for top_k in [0, 4] {
        let said = said(import(&fixture("k1_top1.pt"), &options(top_k)));
        let expected =
            format!("top_k is {top_k}; it must be between 1 and the number of experts, 3");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn what_is_no_state_dict_is_refused_with_a_remedy() {
    let said_of = |name: &str| said(import(&fixture(name), &options(1)));
    let foreign = "none of its 2 tensors belongs to a ResNet-BK";
    for (name, reason, remedy) in [
        ("refused_torchscript.pt", "a TorchScript archive", "torch.jit.load("),
        // Read, but of another model.
        ("refused_legacy.pt", foreign, "state_dict"),
        ("refused_whole_model.pt", foreign, "state_dict"),
        ("refused_other_model.pt", foreign, "state_dict"),
        ("../make_pytorch.py", "neither a ZIP archive", ".safetensors"),
    ] {
        let said = said_of(name);
        assert!(said.contains(reason) && said.contains(remedy), "{said}");
    }
    let said = said(from_bytes(b"", Path::new("empty"), &options(1)));
    assert!(said.contains("empty") && said.contains("neither a ZIP archive"), "{said}");
}

#[test]
fn damaged_files_are_refused() {
    for name in ["k1_dense.pt", "k1_top1.safetensors"] {
        let whole = bytes(name);
        for length in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
            let result = from_bytes(&whole[..length], Path::new("x"), &options(1));
            assert!(matches!(result, Err(Error::Import { .. })), "{name}, {length} bytes");
        }
    }
    // The archive's checksum detects a flipped bit in a weight; in the pickle, checksum or parser
    // does.
    let whole = bytes("k1_dense.pt");
    let clean = entries(&whole).unwrap();
    for index in (0..whole.len()).step_by(61) {
        let mut damaged = whole.clone();
        damaged[index] ^= 0x10;
        if let Ok(read) = entries(&damaged) {
            assert_eq!(read, clean, "bit flipped in byte {index}");
        }
    }
}
