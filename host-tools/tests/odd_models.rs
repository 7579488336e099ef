//! Checkpoints at the edge of what a blob can represent: equivalent checkpoints quantize equally
//! well, and models that cannot be quantized give an error that names the reason.

use std::path::Path;

use proptest::prelude::*;
use resnet_bk_core::Model as Blob;
use resnet_bk_core::blob::Precision;
use resnet_bk_schema::{Step, Steps, Storage};
use resnet_bk_tools::checkpoint::Checkpoint;
use resnet_bk_tools::error::Error;
use resnet_bk_tools::eval::{self, Blocks, Subject, sample::sample};
use resnet_bk_tools::importance;
use resnet_bk_tools::policy::Policy;
use resnet_bk_tools::quantize::calibration::Calibration;
use resnet_bk_tools::quantize::division::Division;
use resnet_bk_tools::quantize::{Origin, Source};
use resnet_bk_tools::reference::Model;
use resnet_bk_tools::tensors::Assignment;

const WINDOW: usize = 64;
/// Tolerated ratio of KL divergences: across calibration seeds they have a relative standard
/// deviation of a quarter.
const NOISE: f64 = 2.0;
const HIDDEN: usize = 64;
const WIDTH: usize = 32;

fn tiny() -> Checkpoint {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tiny/model.safetensors");
    Checkpoint::read(&path).unwrap()
}

fn data<'a>(checkpoint: &'a mut Checkpoint, name: &str) -> &'a mut [f32] {
    &mut checkpoint.tensors.get_mut(name).unwrap().data
}

fn origin() -> Origin<'static> {
    Origin { calibration: "none", calibration_tokens: 0, seed: 0, measured: None }
}

/// KL divergence of a policy's blob to the FP32 checkpoint, on text sampled from the original
/// model.
fn kl(checkpoint: &Checkpoint, policy: &str) -> f64 {
    let tokens = sample(&Model::from_checkpoint(&tiny()), 4096, 1, |_| {}).unwrap();
    let source = Source::new(checkpoint, [0; 32], 0, None).unwrap();
    let folded = Model::from_checkpoint(&source.folded);
    let calibration = Calibration::collect(&folded, &tokens[..2048], WINDOW, 1, |_| {}).unwrap();
    let assignment = Policy::parse(policy).unwrap().assign(&source.dims, None).unwrap();
    let blob = source.quantize(&assignment, &calibration, &origin()).unwrap();
    let subjects = [Subject::Blob(Blob::from_bytes(&blob).unwrap())];
    let reference = Model::from_checkpoint(checkpoint);
    let (tokens, blocks) = (&tokens[2048..], Blocks::runs(2048, WINDOW));
    let quality =
        eval::evaluate(Some(&reference), &subjects, tokens, &blocks, None, |_| {}).unwrap();
    quality[1].fidelity.as_ref().unwrap().kl
}

/// Multiplies rows of hidden units by a factor and divides their columns by it.
fn rescale(checkpoint: &mut Checkpoint, factor: impl Fn(usize) -> f32) {
    for expert in 0..4 {
        let name = format!("blocks.{}.bk_layer.moe_ffn.experts.{}", expert / 2, expert % 2);
        for unit in 0..HIDDEN {
            let factor = factor(unit);
            let rows = data(checkpoint, &format!("{name}.0.weight"));
            rows[unit * WIDTH..][..WIDTH].iter_mut().for_each(|w| *w *= factor);
            data(checkpoint, &format!("{name}.0.bias"))[unit] *= factor;
            let columns = data(checkpoint, &format!("{name}.3.weight"));
            columns[unit..].iter_mut().step_by(HIDDEN).for_each(|w| *w /= factor);
        }
    }
}

#[test]
fn hidden_units_of_any_scale_quantize_alike() {
    for policy in ["uniform-int8", "uniform-int4"] {
        let plain = kl(&tiny(), policy);
        for factor in [1e-30, 1e-6, 1e-3, 1e4, 1e6, 1e30] {
            let mut checkpoint = tiny();
            rescale(&mut checkpoint, |unit| if unit % 2 == 0 { factor } else { 1.0 });
            let found = kl(&checkpoint, policy);
            assert!(found < NOISE * plain, "{policy} {factor:e}: {found}, {plain}");
        }
        let mut checkpoint = tiny();
        rescale(&mut checkpoint, |unit| 10f32.powf((unit % 9) as f32 / 2.0 - 2.0));
        let found = kl(&checkpoint, policy);
        assert!(found < NOISE * plain, "{policy}: {found}, {plain}");
    }
}

#[test]
fn masked_tokens_cost_the_others_nothing() {
    let plain = kl(&tiny(), "uniform-int8");
    for mask in [-1e4, -3e4, -1e5, -1e30] {
        let mut checkpoint = tiny();
        for token in [5, 77, 130, 200] {
            data(&mut checkpoint, "lm_head.bias")[token] = mask;
        }
        let found = kl(&checkpoint, "uniform-int8");
        assert!(found < NOISE * plain, "{mask:e}: {found}, {plain}");
    }
}

#[test]
fn biases_that_no_blob_holds_are_named() {
    let mut checkpoint = tiny();
    data(&mut checkpoint, "blocks.1.bk_layer.output_proj.bias")[3] = 1e5;
    let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
    let assignment = Assignment::uniform("test", &source.dims, Storage::INT8);
    let error = source.quantize(&assignment, &Calibration::default(), &origin()).unwrap_err();
    assert!(error.to_string().contains("`blocks.1.bk_layer.output_proj.bias`"), "{error}");
}

#[test]
fn what_overflows_is_an_error_and_not_a_hang() {
    let tokens: Vec<u32> = (0..512).map(|i| i * 37 % 272).collect();
    let mut single = tiny();
    data(&mut single, "lm_head.weight")[40 * WIDTH + 3] = 3e38;
    let mut all = tiny();
    data(&mut all, "lm_head.weight").fill(1e30);
    let mut first = tiny();
    data(&mut first, "blocks.0.bk_layer.output_proj.weight").fill(3e38);
    for (checkpoint, layer) in [(single, "lm_head"), (first, "blocks.0.bk_layer.output_proj")] {
        let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
        let folded = Model::from_checkpoint(&source.folded);
        let found = Calibration::collect(&folded, &tokens, WINDOW, 1, |_| {});
        let error = found.unwrap_err();
        assert!(matches!(error, Error::Overflow { .. }), "{error}");
        assert!(error.to_string().contains(&format!("`{layer}`")), "{error}");
        let reference = Model::from_checkpoint(&checkpoint);
        let blocks = Blocks::runs(tokens.len(), WINDOW);
        let scored = eval::evaluate(Some(&reference), &[], &tokens, &blocks, None, |_| {});
        assert!(matches!(scored, Err(Error::Overflow { .. })), "{scored:?}");
    }
    // Large but finite: quantized, or rejected by name.
    let source = Source::new(&all, [0; 32], 0, None).unwrap();
    let folded = Model::from_checkpoint(&source.folded);
    let quantized = Calibration::collect(&folded, &tokens, WINDOW, 1, |_| {}).and_then(|known| {
        let assignment = Assignment::uniform("test", &source.dims, Storage::INT4);
        source.quantize(&assignment, &known, &origin())
    });
    assert!(
        matches!(
            &quantized,
            Err(Error::Overflow { .. } | Error::WeightTooLarge { .. } | Error::Singular { .. })
        ),
        "{quantized:?}"
    );
}

#[test]
fn experts_that_no_token_reaches_have_statistics_and_importance() {
    let mut checkpoint = tiny();
    data(&mut checkpoint, "blocks.1.bk_layer.moe_ffn.gating_network.bias")[1] = -1e4;
    let tokens: Vec<u32> = (0..513).map(|i| i * 37 % 272).collect();
    let model = Model::from_checkpoint(&checkpoint);
    let published = importance::publish(&model, &tokens, WINDOW, |_| {}).unwrap();
    let source = Source::new(&checkpoint, [0; 32], 0, None).unwrap();
    let calibration = Calibration::collect(&model, &tokens, WINDOW, 1, |_| {}).unwrap();
    for layer in ["0", "3"].map(|part| format!("blocks.1.bk_layer.moe_ffn.experts.1.{part}")) {
        let found = &published[&layer];
        assert_eq!((found.gradient, found.variance), (0.0, 0.0), "{layer}");
        assert!(found.magnitude > 0.0 && found.score.is_finite(), "{layer}");
        assert!(calibration.rows().any(|seen| seen == (layer.as_str(), 0)), "{layer}");
    }
    let linear = source.dims.tensors().filter(|id| !id.is_embedding()).count();
    assert_eq!(published.len(), linear);
}

#[test]
fn a_text_that_the_model_does_not_expect_is_said_to_be_one() {
    let model = Model::from_checkpoint(&tiny());
    let problem = |tokens: &[u32]| {
        let calibration = Calibration::collect(&model, tokens, WINDOW, 1, |_| {}).unwrap();
        calibration.expectation().problem()
    };
    assert_eq!(problem(&sample(&model, 4096, 3, |_| {}).unwrap()), None);
    for token in [40, 66, 97, 200] {
        assert!(problem(&[token; 4096]).is_some(), "{token}");
    }
    let noise: Vec<u32> = (0..4096u32).map(|i| i.wrapping_mul(2_654_435_761) % 272).collect();
    assert!(problem(&noise).unwrap().contains("harder to predict than random"));
}

#[test]
fn groups_end_with_their_rows() {
    let source = Source::new(&tiny(), [0; 32], 0, None).unwrap();
    for policy in ["uniform-int4/64", "uniform-int3/256", "static:int8,int6,int4/1024"] {
        let assignment = Policy::parse(policy).unwrap().assign(&source.dims, None).unwrap();
        let blob = source.quantize(&assignment, &Calibration::default(), &origin()).unwrap();
        Blob::from_bytes(&blob).unwrap();
    }
    // Requested explicitly, it is rejected before quantizing, also in dry runs.
    let long = Storage::grouped(Precision::Int4, 33);
    let assignment = Assignment::uniform("test", &source.dims, long);
    let error = source.predict(&assignment, &origin()).unwrap_err().to_string();
    assert!(error.contains("`token_embedding.weight` (272 × 32) as int4/33"), "{error}");
    assert!(source.quantize(&assignment, &Calibration::default(), &origin()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// The reader accepts what the writer writes; a dry run rejects what the writer rejects.
    #[test]
    fn writer_and_reader_agree(
        storages in prop::collection::vec((0usize..7, 0usize..80), 24),
        kept in prop::collection::vec(1usize..=HIDDEN, 4),
        classes in 0u32..5,
        int8 in any::<bool>(),
    ) {
        let mut source = Source::new(&tiny(), [0; 32], 0, None).unwrap();
        source.steps = Steps::NONE.with(Step::Classes).with(Step::Prune);
        let class = |token: u32| char::from_digit(token % classes.max(1), 10).unwrap();
        let tokens = if classes < 2 { 0 } else { 272 };
        let classes: String = (0..tokens).map(class).collect();
        let kept = kept.iter().enumerate().map(|(i, &kept)| {
            (format!("blocks.{}.bk_layer.moe_ffn.experts.{}.3", i / 2, i % 2), kept)
        });
        let division = Division { classes, kept: kept.collect() };
        let mut calibration = Calibration::default();
        source.divide(&division, &mut calibration).unwrap();
        let storage = |&(precision, group): &(usize, usize)| Storage {
            precision: Precision::ALL[precision],
            group,
        };
        let storage: Vec<Storage> =
            storages.iter().cycle().take(source.dims.tensor_count()).map(storage).collect();
        let fits = source.dims.tensors().zip(&storage).all(|(id, storage)| {
            storage.precision.is_grouped() == (storage.group != 0)
                && storage.group <= source.shape(id).1.max(32)
        });
        let mut assignment = Assignment { name: "any".into(), storage, potentials_int8: int8 };
        for round in 0..2 {
            let predicted = source.predict(&assignment, &origin());
            prop_assert_eq!(predicted.is_ok(), fits || round == 1);
            let written = source.quantize(&assignment, &calibration, &origin());
            prop_assert_eq!(written.is_ok(), predicted.is_ok());
            if let (Ok(written), Ok(predicted)) = (written, predicted) {
                prop_assert_eq!(written.len(), predicted);
                prop_assert!(Blob::from_bytes(&written).is_ok());
            }
            // The same with valid groups.
            for (id, storage) in source.dims.tensors().zip(&mut assignment.storage) {
                let group = if storage.precision.is_grouped() { storage.group.max(1) } else { 0 };
                *storage = Storage { group, ..*storage }.for_row(source.shape(id).1);
            }
        }
    }
}
