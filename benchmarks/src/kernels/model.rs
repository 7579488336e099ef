//! Windows and generation with a quantized model against its FP32 reference, on the same tokens.

use std::error::Error;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use resnet_bk_core as core;
use resnet_bk_core::blob::TensorId;
use resnet_bk_tools::checkpoint::Checkpoint;
use resnet_bk_tools::eval::sample::sample;
use resnet_bk_tools::files::Resident;
use resnet_bk_tools::policy::Policy;
use resnet_bk_tools::quantize::calibration::Calibration;
use resnet_bk_tools::quantize::{Origin, Source};
use resnet_bk_tools::reference::{Model, Stream};
use resnet_bk_tools::threads::{Pool, awake};

use super::alternate::{Ratio, alternate};
use super::host::{InstructionSets, Reading};
use super::row::Row;

/// Tokens per window, and tile of the integer path, as in `resnet-bk eval`.
const WINDOW: usize = 128;
/// Batch of the reference in windows, as in `resnet-bk eval`.
const WINDOWS: usize = 8;
/// Length of generated text in tokens.
const GENERATED: usize = 32;
const AGAINST: &str = "FP32 reference";

/// Rows for windows and for generation under every policy.
pub(super) fn measure(
    checkpoint: &Path,
    policies: &[String],
    threads: &[usize],
    rounds: usize,
) -> Result<Vec<Row>, Box<dyn Error>> {
    let checkpoint = Checkpoint::read(checkpoint)?;
    let reference = Model::from_checkpoint(&checkpoint);
    let source = Source::new(&checkpoint, [0; 32], 0, None)?;
    let tokens = sample(&reference, WINDOW * WINDOWS, 1, |_| {})?;
    // The values of codes hardly affect speed, so an empty calibration does.
    let calibration = Calibration::default();
    let origin = Origin { calibration: "none", calibration_tokens: 0, seed: 1, measured: None };
    let mut rows = Vec::new();
    for policy in policies {
        let assignment = Policy::parse(policy)?.assign(&source.dims, None)?;
        let blob = Resident::copy(&source.quantize(&assignment, &calibration, &origin)?)?;
        let model = core::Model::from_bytes(&blob).map_err(|error| error.to_string())?;
        let outputs = model.dims().vocab as usize;
        let mut row = |work: &str, inputs, (ratio, sets), reading| {
            let kernel = format!("{work}, {}", assignment.name);
            rows.push(Row { kernel, inputs, outputs, against: AGAINST, ratio, sets, reading });
        };
        row("windows", WINDOW, windows(&reference, &model, &tokens, rounds)?, None);
        if model.is_causal() {
            let tokens = &tokens[..GENERATED];
            let ratio = generation(&reference, &model, tokens, rounds)?;
            row("generation", 1, ratio, reading(&model, tokens, rounds)?);
            for &count in threads {
                let kernel = format!("generation, {}, {count} threads", assignment.name);
                let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build()?;
                let measure =
                    || on_threads(&model, tokens, rounds).map_err(|error| error.to_string());
                let (ratio, reading) = pool.install(|| awake(measure))?;
                let against = "one thread";
                rows.push(Row { kernel, inputs: 1, outputs, against, ratio, sets: None, reading });
            }
        }
    }
    Ok(rows)
}

/// Speed of tokens with logits relative to reading the weights that one needs.
fn reading(
    model: &core::Model<'_>,
    tokens: &[u32],
    rounds: usize,
) -> Result<Option<Reading>, Box<dyn Error>> {
    let next = stepping(model.clone(), tokens)?;
    Ok(Reading::measure(rounds, active_bytes(model), next)?)
}

/// Speed of tokens on the threads of the pool that this runs in, relative to one thread and to
/// reading on as many.
fn on_threads(
    model: &core::Model<'_>,
    tokens: &[u32],
    rounds: usize,
) -> Result<(Ratio, Option<Reading>), Box<dyn Error>> {
    let shared = model.clone().with_threads(Arc::new(Pool));
    let ratio =
        alternate(rounds, stepping(shared.clone(), tokens)?, stepping(model.clone(), tokens)?);
    Ok((ratio, reading(&shared, tokens, rounds)?))
}

/// Computes another token, with its logits, in every call.
fn stepping(model: core::Model<'_>, tokens: &[u32]) -> Result<impl FnMut(), Box<dyn Error>> {
    let session = core::Session::allocate(model);
    let mut session = session.map_err(|error| error.to_string())?;
    let mut following = tokens.iter().cycle();
    Ok(move || {
        if session.position() == tokens.len() {
            session.reset();
        }
        black_box(following.next().map(|&token| session.step(token).is_ok()));
    })
}

/// Bytes of the weights that a token needs: of experts as many as a token has, of embeddings a
/// row.
fn active_bytes(model: &core::Model<'_>) -> usize {
    let dims = model.dims();
    let bytes = dims.tensors().map(|id| {
        let tensor = model.tensor(id);
        let bytes = tensor.layout().len();
        match id {
            _ if id.is_embedding() => bytes / tensor.rows,
            TensorId::ExpertUp(..) | TensorId::ExpertDown(..) => {
                bytes * dims.top_k as usize / dims.experts as usize
            }
            _ => bytes,
        }
    });
    bytes.sum()
}

/// Times the logits of every position of all windows.
fn windows(
    reference: &Model,
    model: &core::Model<'_>,
    tokens: &[u32],
    rounds: usize,
) -> Result<(Ratio, Option<InstructionSets>), Box<dyn Error>> {
    let scorer = core::Window::allocate(model.clone(), WINDOW, WINDOW);
    let mut scorer = scorer.map_err(|error| error.to_string())?;
    let mut ours = || {
        for window in tokens.chunks(WINDOW) {
            // Cannot fail: the tokens were sampled from this model and fill whole windows.
            let _ = scorer.score(window, |position, logits| {
                black_box((position, logits));
            });
        }
    };
    let sets = InstructionSets::measure(rounds, &mut ours);
    let ratio = alternate(rounds, ours, || {
        black_box(reference.forward(tokens, WINDOW));
    });
    Ok((ratio, sets))
}

/// Times greedy decoding. Both sides are fed the same tokens whatever they choose, so they do the
/// same work.
fn generation(
    reference: &Model,
    model: &core::Model<'_>,
    tokens: &[u32],
    rounds: usize,
) -> Result<(Ratio, Option<InstructionSets>), Box<dyn Error>> {
    let session = core::Session::allocate(model.clone());
    let mut session = session.map_err(|error| error.to_string())?;
    let mut stream = Stream::new(reference)?;
    let mut sampler = core::Sampler::greedy();
    let mut ours = || {
        session.reset();
        for &token in tokens {
            black_box(session.step(token).map(|logits| sampler.sample(logits))).ok();
        }
    };
    let sets = InstructionSets::measure(rounds, &mut ours);
    let ratio = alternate(rounds, ours, || {
        stream.reset();
        for &token in tokens {
            let best = stream.step(&[token]).map(|logits| {
                let ends = |a: &(usize, &f32), b: &(usize, &f32)| a.1.total_cmp(b.1);
                logits.iter().enumerate().max_by(ends).map(|(i, _)| i)
            });
            black_box(best).ok();
        }
    });
    Ok((ratio, sets))
}
