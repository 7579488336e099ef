//! Reproducibility across threads, interruptions and seeds.

use super::*;
use crate::checkpoint::{Block, Chain, ModelConfig};
use crate::reference::{Model, SoftTargets};
use crate::threads;
use std::collections::BTreeMap;
use std::path::Path;

fn config() -> ModelConfig {
    ModelConfig {
        vocab: 20,
        width: 8,
        layers: 2,
        experts: 2,
        top_k: 1,
        hidden: 16,
        potentials: 4,
        positions: None,
        chain: Chain::Half,
        eta_floor: 0.03125,
        off_diagonal: 1.0,
        block: Block::Resolvent,
    }
}

fn gated() -> ModelConfig {
    let block = Block::Gated { channels: 16 };
    ModelConfig { hidden: 0, experts: 1, block, ..config() }
}

fn recipe(steps: u64) -> Recipe {
    Recipe {
        seed: 7,
        steps,
        batch: 6,
        window: 16,
        shards: 4,
        peak_rate: 1e-2,
        final_fraction: 0.05,
        warmup: 3,
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        clip: 1.0,
        dropout: 0.1,
        cross_entropy: None,
    }
}

/// A learnable text: the next token depends on the last two.
fn text() -> Vec<u32> {
    let mut tokens = vec![1, 2];
    for i in 2..3000 {
        tokens.push((tokens[i - 1] + 2 * tokens[i - 2] + u32::from(i % 7 == 0)) % 20);
    }
    tokens
}

fn run<'a>(train: &'a [u32], bytes: &'a [u32], directory: &Path, steps: u64) -> Run<'a> {
    Run {
        config: config(),
        initial: None,
        recipe: recipe(steps),
        train,
        soft: None,
        valid: &train[..301],
        valid_bytes: Some(bytes),
        data: BTreeMap::from([("tokenizer_sha256".into(), "abc".into())]),
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

#[test]
fn the_number_of_threads_does_not_matter() {
    let tokens = text();
    let train = |config: &ModelConfig, count| {
        threads::with(count, || {
            let mut trainer = Trainer::new(config.clone(), recipe(20)).unwrap();
            for _ in 0..20 {
                trainer.step(&tokens, None).unwrap();
            }
            trainer.model().parameters().to_vec()
        })
    };
    for config in [config(), gated()] {
        let one = train(&config, 1);
        assert_eq!(one, train(&config, 2));
        assert_eq!(one, train(&config, 4));
    }
}

/// A run that starts from trained weights records the tokens of both.
#[test]
fn weights_record_all_tokens_that_they_were_trained_on() {
    let (tokens, bytes) = (text(), vec![1; 301]);
    let [first, second] = [0; 2].map(|_| tempfile::tempdir().unwrap());
    let one = run(&tokens, &bytes, first.path(), 3).train(&mut |_| {}).unwrap();
    let mut again = run(&tokens, &bytes, second.path(), 5);
    again.initial = Some(&one.checkpoint);
    let both = again.train(&mut |_| {}).unwrap();
    assert_eq!(one.checkpoint.training_tokens(), Some(one.tokens));
    assert_eq!(both.checkpoint.training_tokens(), Some(one.tokens + both.tokens));
}

#[test]
fn a_resumed_run_is_the_uninterrupted_run() {
    let (tokens, bytes) = (text(), vec![1; 301]);
    let [whole, killed] = [0; 2].map(|_| tempfile::tempdir().unwrap());
    let uninterrupted = run(&tokens, &bytes, whole.path(), 40).train(&mut |_| {}).unwrap();
    // Interrupted after step 27, seven steps after the last save.
    let outcome = std::panic::catch_unwind(|| {
        run(&tokens, &bytes, killed.path(), 40).train(&mut |event| {
            if matches!(event, Event::Step(27, _)) {
                std::panic::resume_unwind(Box::new("killed"));
            }
        })
    });
    assert!(outcome.is_err());
    let mut resumed_at = None;
    let again = run(&tokens, &bytes, killed.path(), 40);
    let resumed = threads::with(1, || {
        again.train(&mut |event| {
            if let Event::Resumed(step) = event {
                resumed_at = Some(step);
            }
        })
    });
    let resumed = resumed.unwrap();
    assert_eq!(resumed_at, Some(20));
    assert_eq!(resumed.checkpoint.to_bytes(), uninterrupted.checkpoint.to_bytes());
    // The log reads as that of a single run.
    let steps = |directory: &Path| {
        let log = std::fs::read_to_string(directory.join("log")).unwrap();
        let step =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].clone();
        log.lines().map(step).collect::<Vec<_>>()
    };
    assert_eq!(steps(killed.path()), steps(whole.path()));
}

#[test]
fn a_run_is_resumed_only_with_its_own_settings() {
    let (tokens, bytes) = (text(), vec![1; 301]);
    let directory = tempfile::tempdir().unwrap();
    run(&tokens, &bytes, directory.path(), 15).train(&mut |_| {}).unwrap();
    let mut other = run(&tokens, &bytes, directory.path(), 15);
    other.recipe.peak_rate = 2e-2;
    other.data.insert("tokenizer_sha256".into(), "def".into());
    let error = other.train(&mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("recipe.peak_rate was 0.01 and is now 0.02"), "{error}");
    assert!(error.contains("data.tokenizer_sha256 was abc and is now def"), "{error}");
    // A damaged file is an error, not a new start.
    let path = directory.path().join("state");
    let state = std::fs::read(&path).unwrap();
    std::fs::write(&path, &state[..state.len() / 2]).unwrap();
    assert!(run(&tokens, &bytes, directory.path(), 15).train(&mut |_| {}).is_err());
}

#[test]
fn training_learns() {
    let (tokens, bytes) = (text(), vec![1; 301]);
    let bits = |config| {
        let directory = tempfile::tempdir().unwrap();
        let mut run = run(&tokens, &bytes, directory.path(), 400);
        run.config = config;
        run.output.validate_every = 1000;
        let summary = run.train(&mut |_| {}).unwrap();
        assert_eq!(summary.score.tokens, 300);
        summary.score.bits_per_byte().unwrap()
    };
    // Uniform guessing is log2(20) = 4.3 bits.
    let (published, gated) = (bits(config()), bits(gated()));
    assert!(published < 2.0, "{published}");
    // Its convolution sees the two tokens that decide.
    assert!(gated < 1.0, "{gated}");
}

/// A teacher that learnt another text teaches it, and the text's own tokens draw the student back.
#[test]
fn soft_targets_teach_what_the_teacher_predicts() {
    let (tokens, bytes) = (text(), vec![1; 301]);
    let other: Vec<u32> = tokens.iter().map(|&token| (token + 1) % 20).collect();
    let trained = |text: &[u32], teacher: Option<&Model>, cross_entropy| {
        let directory = tempfile::tempdir().unwrap();
        let mut run = run(text, &bytes, directory.path(), 200);
        run.config = gated();
        let soft = teacher.map(|teacher| || SoftTargets::new(teacher, &tokens, 16, |_| {}));
        run.soft = soft.as_ref().map(|compute| compute as _);
        run.recipe.cross_entropy = cross_entropy;
        let summary = run.train(&mut |_| {}).unwrap();
        Model::from_checkpoint(&summary.checkpoint)
    };
    let teacher = trained(&other, None, None);
    let agreement = |student: &Model| {
        let logits = [&teacher, student].map(|model| model.forward(&tokens[..1600], 16));
        let best = logits.map(|logits| {
            let argmax = |row: &[f32]| (0..20).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap();
            logits.chunks_exact(20).map(argmax).collect::<Vec<_>>()
        });
        best[0].iter().zip(&best[1]).filter(|(a, b)| a == b).count() as f64 / 1600.0
    };
    let taught = agreement(&trained(&tokens, Some(&teacher), Some(0.0)));
    let alone = agreement(&trained(&tokens, Some(&teacher), Some(1.0)));
    assert!(taught > 0.7 && alone < 0.5, "{taught} {alone}");
}

#[test]
fn evaluation_scores_every_token_once() {
    let tokens = text();
    let model = initial_model(config(), 3).unwrap();
    let bytes: Vec<u32> = tokens.iter().map(|token| token + 1).collect();
    let score =
        threads::with(2, || evaluate(&model, &tokens[..101], Some(&bytes[..101]), 16, None));
    assert_eq!(score.tokens, 100);
    assert_eq!(score.bytes, Some(tokens[1..101].iter().map(|&t| t as usize + 1).sum()));
    let one = threads::with(1, || evaluate(&model, &tokens[..101], Some(&bytes[..101]), 16, None));
    assert_eq!(score, one);
    let limited = evaluate(&model, &tokens[..101], Some(&bytes[..101]), 16, Some(2));
    assert_eq!(limited.tokens, 32);
    // Windows are independent: scoring them one at a time gives the same sum.
    let single: f64 = (0..7)
        .map(|i| {
            let window = &tokens[i * 16..(i * 16 + 17).min(101)];
            evaluate(&model, window, None, 16, None).nats
        })
        .sum();
    assert!((single - score.nats).abs() < 1e-3, "{single} {}", score.nats);
}
