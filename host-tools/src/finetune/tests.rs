//! Students match their blobs before and after training; runs are reproducible.

use std::collections::BTreeMap;
use std::path::Path;

use resnet_bk_core as core;
use resnet_bk_core::blob::{Precision, TensorId};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::eval::sample::sample;
use crate::eval::{self, Subject};
use crate::quantize::calibration::Calibration;
use crate::quantize::division::Division;
use crate::quantize::substitute::substitute;
use crate::quantize::tests::{random_checkpoint, random_gated};
use crate::quantize::{Origin, Source};
use crate::reference::{Distillation, Ensemble, Model, Predicts, Tape};
use crate::tensors::Assignment;
use crate::tensors::layer_name;
use crate::threads;
use crate::train::{self, Output};
use resnet_bk_schema::Storage;

const WINDOW: usize = 16;

/// A checkpoint and a blob of it in all precisions, with token classes and some pruned hidden
/// units.
struct Fixture {
    checkpoint: Checkpoint,
    source: Source,
    blob: Vec<u8>,
    tokens: Vec<u32>,
}

fn made(storage: impl Fn(usize) -> Storage, potentials_int8: bool) -> Fixture {
    made_of(random_checkpoint(5, 2), storage, potentials_int8)
}

/// Fixtures of the published block, and of a gated chain with and without experts.
fn all_made(storage: impl Fn(usize) -> Storage, potentials_int8: bool) -> [Fixture; 3] {
    let [gated, bare] = [(24, 3, 3), (0, 1, 1)].map(|sizes| random_gated(5, sizes));
    [random_checkpoint(5, 2), gated, bare]
        .map(|checkpoint| made_of(checkpoint, &storage, potentials_int8))
}

fn made_of(
    checkpoint: Checkpoint,
    storage: impl Fn(usize) -> Storage,
    potentials_int8: bool,
) -> Fixture {
    let mut source = Source::new(&checkpoint, [3; 32], 1000, None).unwrap();
    let model = Model::from_checkpoint(&source.folded);
    let tokens = sample(&model, 4096, 1, |_| {}).unwrap();
    let mut calibration = Calibration::collect(&model, &tokens[..1024], WINDOW, 1, |_| {}).unwrap();
    let kept = if source.experts().next().is_some() {
        BTreeMap::from([(layer_name(TensorId::ExpertDown(1, 0)), 17)])
    } else {
        BTreeMap::new()
    };
    let classes = (0..40).map(|token| ['0', '1', '1'][token % 3]).collect();
    source.divide(&Division { classes, kept }, &mut calibration).unwrap();
    let storage = (0..source.dims.tensor_count()).map(storage).collect();
    let assignment = Assignment { name: "mixed".into(), storage, potentials_int8 };
    let origin = Origin { calibration: "none", calibration_tokens: 0, seed: 0, measured: None };
    let blob = source.quantize(&assignment, &calibration, &origin).unwrap();
    Fixture { checkpoint, source, blob, tokens }
}

/// Cycles through the precisions; 24 divides no row, so the last group is shorter.
fn mixed(index: usize) -> Storage {
    let precision = Precision::ALL[index % Precision::ALL.len()];
    Storage { precision, group: if precision.is_grouped() { 12 } else { 0 } }
}

fn int3(_: usize) -> Storage {
    Storage::grouped(Precision::Int3, 8)
}

fn recipe(steps: u64) -> Recipe {
    Recipe {
        training: train::Recipe {
            seed: 7,
            steps,
            batch: 8,
            window: WINDOW,
            shards: 4,
            peak_rate: 5e-3,
            final_fraction: 0.05,
            warmup: 3,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.99,
            clip: 1.0,
            dropout: 0.0,
            cross_entropy: None,
        },
        distillation: Distillation { temperature: 1.5, cross_entropy: 0.1 },
        replaced: 0.02,
        first_stage: steps / 8,
        scale_rate: 1.0,
        patience: 0,
    }
}

fn run<'a>(teacher: &'a Model, made: &'a Fixture, directory: &Path, steps: u64) -> Run<'a> {
    Run {
        checkpoint: &made.checkpoint.config,
        teacher,
        blob: &made.blob,
        recipe: recipe(steps),
        train: &made.tokens[..3500],
        valid: &made.tokens[3500..],
        data: BTreeMap::from([("blob_sha256".into(), "abc".into())]),
        output: Output {
            log: directory.join("log"),
            state: directory.join("state"),
            save_every: 10,
            validate_every: 10,
            log_every: 5,
            anew: false,
        },
    }
}

fn student(made: &Fixture) -> Student {
    let blob = core::Model::from_bytes(&made.blob).unwrap();
    Student::new(&blob, &made.checkpoint.config).unwrap()
}

/// Logits of a blob on the integer path.
fn integer_logits(blob: &[u8], tokens: &[u32]) -> Vec<f32> {
    let model = core::Model::from_bytes(blob).unwrap();
    let mut scorer = core::Window::allocate(model.clone(), WINDOW, 4).unwrap();
    let mut logits = Vec::new();
    for window in tokens.chunks(WINDOW) {
        scorer.score(window, |_, row| logits.extend(row.iter().map(|l| l.to_f32()))).unwrap();
    }
    logits
}

const ORIGIN: ExportOrigin<'static> = ExportOrigin { policy: "tuned", seed: 1, measured: None };

#[test]
fn an_untrained_student_is_its_blob() {
    for made in all_made(mixed, true) {
        let blob = core::Model::from_bytes(&made.blob).unwrap();
        let mut student = student(&made);
        let parameters = student.take_parameters();
        let exported = student.export(&parameters, &made.blob, &ORIGIN).unwrap();
        let exported = core::Model::from_bytes(&exported).unwrap();
        assert_eq!(exported.dims(), blob.dims());
        assert_eq!(exported.provenance().policy, "tuned");
        assert_eq!(exported.provenance().source_sha256, blob.provenance().source_sha256);
        for id in blob.dims().tensors() {
            let (old, new) = (blob.tensor(id), exported.tensor(id));
            assert_eq!(
                (old.codes, old.scales, old.biases),
                (new.codes, new.scales, new.biases),
                "{id:?}"
            );
        }
        assert_eq!(exported.chain_format(), blob.chain_format());
        for token in 0..40 {
            assert_eq!(exported.token_classes().place(token), blob.token_classes().place(token));
        }
    }
}

/// Exported values and logits equal those of training, except for activations that the integer path
/// rounds to a neighbouring code.
#[test]
fn a_trained_student_exports_what_its_training_saw() {
    for made in [false, true].into_iter().flat_map(|int8| all_made(mixed, int8)) {
        let teacher = Model::from_checkpoint(&made.checkpoint);
        let mut tuner = Tuner::new(&teacher, student(&made), recipe(30));
        for _ in 0..30 {
            tuner.step(&made.tokens).unwrap();
        }
        let exported = tuner.student().export(tuner.parameters(), &made.blob, &ORIGIN).unwrap();
        assert_eq!(exported.len(), made.blob.len() - "mixed".len() + "tuned".len());
        let blob = core::Model::from_bytes(&exported).unwrap();
        let stored = Student::new(&blob, &made.checkpoint.config).unwrap();
        let own = tuner.student().model();
        let mut moved = 0;
        let before = student(&made);
        for (i, (a, b)) in own.parameters().iter().zip(stored.model().parameters()).enumerate() {
            assert!((a - b).abs() <= 1e-6 * a.abs().max(1e-3), "{i}: {a} {b}");
            moved += usize::from(*a != before.model().parameters()[i]);
        }
        assert!(moved > own.parameters().len() / 2, "{moved} numbers moved");

        let tokens = &made.tokens[..512];
        let mut tape = Tape::fake_quantized(tuner.student().fake_quant());
        let simulated = own.forward_reusing(tokens, WINDOW, &mut tape).to_vec();
        let computed = integer_logits(&exported, tokens);
        let unrounded = own.forward(tokens, WINDOW);
        let distance = |a: &[f32], b: &[f32]| {
            let squares = a.iter().zip(b).map(|(a, b)| f64::from((a - b) * (a - b)));
            // The median position: where two gate logits nearly tie, either expert may be chosen.
            let squares: Vec<f64> = squares.collect();
            let mut rows: Vec<f64> = squares.chunks(40).map(|row| row.iter().sum()).collect();
            rows.sort_by(f64::total_cmp);
            rows[rows.len() / 2].sqrt()
        };
        let (simulated, unrounded) =
            (distance(&simulated, &computed), distance(&unrounded, &computed));
        // A memory passes codes that were rounded to a neighbour on to later positions.
        let share = if own.config().block.is_published() { 0.7 } else { 0.9 };
        assert!(simulated < share * unrounded, "{simulated} beside {unrounded} without rounding");

        let held = ValidationSet::new(&teacher, &made.tokens[..2049], WINDOW);
        let score = held.score(tuner.student());
        let subjects = [Subject::Blob(blob)];
        let tokens = &made.tokens[..2049];
        let blocks = eval::Blocks::runs(tokens.len(), WINDOW);
        let quality =
            eval::evaluate(Some(&teacher), &subjects, tokens, &blocks, None, |_| {}).unwrap();
        assert_eq!(held.predictions(), quality[1].tokens);
        let ratio = quality[1].perplexity / score.perplexity;
        assert!((ratio - 1.0).abs() < 1e-3, "perplexities differ by {ratio}");
        let kl = quality[1].fidelity.as_ref().unwrap().kl;
        assert!((kl - score.kl).abs() < 0.05 * score.kl, "{kl} {}", score.kl);
    }
}

#[test]
fn weights_are_those_that_decoding_gives() {
    for made in all_made(mixed, false) {
        let blob = core::Model::from_bytes(&made.blob).unwrap();
        let (decoded, student) = (substitute(&made.source, &blob), student(&made));
        let logits = decoded.forward(&made.tokens[..64], WINDOW);
        for (a, b) in logits.iter().zip(student.model().forward(&made.tokens[..64], WINDOW)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}

/// Without training steps, the source receives the values that the blob stores.
#[test]
fn a_source_is_taught_what_the_student_computes() {
    for made in all_made(mixed, false) {
        let mut student = student(&made);
        let parameters = student.take_parameters();
        let mut source = made.source.clone();
        student.teach(&parameters, &mut source);
        let taught = Model::from_checkpoint(&source.folded);
        let tokens = &made.tokens[..64];
        let own = student.model().forward(tokens, WINDOW);
        for (a, b) in taught.forward(tokens, WINDOW).iter().zip(own) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}

#[test]
fn training_gets_closer_to_the_teacher() {
    for made in all_made(int3, false) {
        let teacher = Model::from_checkpoint(&made.checkpoint);
        let directory = tempfile::tempdir().unwrap();
        let summary = run(&teacher, &made, directory.path(), 150).tune(&mut |_| {}).unwrap();
        let (before, after) = (summary.before.kl, summary.after.kl);
        // Random memories leave less to gain.
        let share = if made.checkpoint.config.block.is_published() { 0.7 } else { 0.9 };
        assert!(after < share * before, "{before} {after}");
        assert!(summary.best_step > 0 && !summary.stopped_early);
        assert_eq!((summary.steps, summary.tokens), (150, 150 * 8 * WINDOW as u64));
    }
}

/// A student comes closer to the average of its own model with another.
#[test]
fn training_follows_the_average_of_teachers() {
    let made = made(int3, false);
    let teachers = [&made.checkpoint, &random_checkpoint(6, 2)].map(Model::from_checkpoint);
    let [teacher, _] = &teachers;
    let directory = tempfile::tempdir().unwrap();
    let mut run = run(teacher, &made, directory.path(), 150);
    let members = teachers.iter().map(|teacher| Box::new(teacher) as Box<dyn Predicts>);
    let average = Ensemble::new(members.collect());
    run.teacher = &average;
    let summary = run.tune(&mut |_| {}).unwrap();
    let (before, after) = (summary.before.kl, summary.after.kl);
    assert!(after < 0.9 * before, "{before} {after}");
    // The distance is that to the average, not to the student's own model.
    let distance = |teacher: &dyn Predicts| {
        ValidationSet::new(teacher, run.valid, WINDOW).score(&student(&made)).kl
    };
    assert!((distance(run.teacher) - before).abs() < 1e-6);
    assert!(distance(teacher) < before);
}

#[test]
fn neither_threads_nor_interruptions_matter_but_seeds_do() {
    let made = made(mixed, true);
    let teacher = Model::from_checkpoint(&made.checkpoint);
    let [whole, killed, other] = [0; 3].map(|_| tempfile::tempdir().unwrap());
    let uninterrupted = run(&teacher, &made, whole.path(), 40).tune(&mut |_| {}).unwrap();
    // Interrupted after step 27, seven steps after the last save.
    let outcome = std::panic::catch_unwind(|| {
        run(&teacher, &made, killed.path(), 40).tune(&mut |event| {
            if matches!(event, Event::Step(27, _)) {
                std::panic::resume_unwind(Box::new("killed"));
            }
        })
    });
    assert!(outcome.is_err());
    let again = run(&teacher, &made, killed.path(), 40);
    let mut resumed_at = None;
    let resumed = threads::with(1, || {
        again.tune(&mut |event| {
            if let Event::Resumed(step) = event {
                resumed_at = Some(step);
            }
        })
    });
    let resumed = resumed.unwrap();
    assert_eq!(resumed_at, Some(20));
    assert_eq!(resumed.parameters, uninterrupted.parameters);
    assert_eq!((resumed.before, resumed.after), (uninterrupted.before, uninterrupted.after));
    let steps = |directory: &Path| {
        let log = std::fs::read_to_string(directory.join("log")).unwrap();
        let step =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].clone();
        log.lines().map(step).collect::<Vec<_>>()
    };
    assert_eq!(steps(killed.path()), steps(whole.path()));

    let mut seeded = run(&teacher, &made, other.path(), 40);
    seeded.recipe.training.seed = 8;
    assert_ne!(seeded.tune(&mut |_| {}).unwrap().parameters, uninterrupted.parameters);
    // A run with other settings is not resumed.
    let mut changed = run(&teacher, &made, killed.path(), 40);
    changed.recipe.scale_rate = 0.5;
    let error = changed.tune(&mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("recipe.scale_rate was 1.0 and is now 0.5"), "{error}");
}

#[test]
fn a_run_that_gets_no_better_ends_with_what_it_began_with() {
    let made = made(int3, false);
    let teacher = Model::from_checkpoint(&made.checkpoint);
    let directory = tempfile::tempdir().unwrap();
    let mut run = run(&teacher, &made, directory.path(), 100);
    run.recipe.training.peak_rate = 1e-12;
    run.recipe.patience = 3;
    let summary = run.tune(&mut |_| {}).unwrap();
    assert!(summary.stopped_early);
    assert_eq!((summary.steps, summary.best_step), (80, 0));
    assert_eq!(summary.parameters, student(&made).take_parameters());
}

#[test]
fn in_the_first_stage_codes_stay() {
    let made = made(int3, false);
    let teacher = Model::from_checkpoint(&made.checkpoint);
    let mut stay = recipe(20);
    stay.first_stage = 20;
    let mut tuner = Tuner::new(&teacher, student(&made), stay);
    for _ in 0..20 {
        tuner.step(&made.tokens).unwrap();
    }
    let exported = tuner.student().export(tuner.parameters(), &made.blob, &ORIGIN).unwrap();
    let [old, new] = [&made.blob, &exported].map(|bytes| core::Model::from_bytes(bytes).unwrap());
    for id in old.dims().tensors() {
        assert_eq!(old.tensor(id).codes, new.tensor(id).codes, "{id:?}");
        assert_ne!(old.tensor(id).scales, new.tensor(id).scales, "{id:?}");
    }
}

#[test]
fn a_blob_of_another_model_is_refused() {
    let made = made(int3, false);
    let blob = core::Model::from_bytes(&made.blob).unwrap();
    let mut config = made.checkpoint.config.clone();
    config.potentials += 1;
    assert!(Student::new(&blob, &config).is_err());
    config.potentials -= 1;
    config.hidden = 8;
    assert!(Student::new(&blob, &config).is_err());
}
