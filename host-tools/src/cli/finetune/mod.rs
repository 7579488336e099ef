//! `resnet-bk finetune`.

mod recipe;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use resnet_bk_core::blob::Measured;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::common::{Loaded, hex, note, parse_blob, print_json};
use super::quantize::{Made, Making};
use crate::cli::Global;
use crate::corpus::{Corpus, Split};
use crate::error::{Error, Result};
use crate::eval::text::Tokens;
use crate::eval::{self, Quality, Subject};
use crate::files;
use crate::finetune::{Event, ExportOrigin, Held, Recipe, Run, Student, Summary};
use crate::quantize::{Origin, Source};
use crate::reference::Model;
use crate::tokenizer::Tokenizer;
use crate::train::{self, Output};
use recipe::RecipeArgs;

const EXAMPLES: &str = "\
Examples:
  The best blob that is 8 times smaller, its numbers trained to where the grid is; run the same
  command again to resume after an interruption:
      resnet-bk finetune model.safetensors --target-ratio 8 --importance importance.json \\
          --corpus data/wikitext-2 --out 8x.rbk

  Any policy, or a blob that `quantize` wrote before from the same checkpoint:
      resnet-bk finetune model.safetensors --policy uniform-int3 --corpus data/wikitext-2 --out 3.rbk
      resnet-bk finetune model.safetensors --blob budget.rbk --corpus data/wikitext-2 --out tuned.rbk

  A few minutes, to see what it gives:
      resnet-bk finetune model.safetensors --policy uniform-int4 --corpus data/wikitext-2 \\
          --out quick.rbk --train-tokens 500000

What happens:
  The blob of the policy, the target or --blob is the beginning. Every step computes with the numbers
  that the blob would store and with activations rounded as the integer path rounds them, compares all
  logits with those of the FP32 checkpoint, and moves what is behind the stored numbers: first scales,
  biases and chains alone, then codes too. A share of the tokens that go in is random, so that what the
  text lacks is not forgotten. The blob keeps its precisions and its size. What is written is the step
  with the smallest KL divergence on the validation split.

  With --rounds 2 a target's precisions are chosen a second time, for the weights as they are after half
  of the tokens, and the better of both rounds is written.

  While a run lasts, FILE.state holds what it needs to resume and FILE.jsonl its log, FILE being --out.
  The same seed, text and settings give the same bytes on the same machine, whatever --threads.";

/// Fine-tune a quantized model towards its checkpoint and write the blob.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`finetune --help` shows examples.")]
pub(crate) struct Args {
    /// Checkpoint (safetensors) with its tokenizer.json beside it: the teacher.
    model: PathBuf,
    /// Blob of this checkpoint to start from, instead of a policy or a target.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "targets"])]
    blob: Option<PathBuf>,
    /// Blob to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten, next_help_heading = "Quantization")]
    making: Making,
    #[command(flatten, next_help_heading = "Training")]
    recipe: RecipeArgs,
}

pub(crate) fn run(mut args: Args, global: Global) -> Result<()> {
    args.making.suffix = TUNED;
    let loaded = args.making.load(&args.model)?;
    let recipe = args.recipe.recipe(&args.making, &loaded)?;
    let teacher = Model::from_checkpoint(&loaded.checkpoint);
    let [train, valid] = args.texts(&recipe, &loaded, &teacher, global)?;
    args.making.recorded = Some(valid.tokens.len() as u32 - 1);
    let start = args.start(&loaded, global)?;
    let job = Job {
        args: &args,
        loaded: &loaded,
        teacher: &teacher,
        recipe,
        train: &train,
        valid: &valid,
        global,
    };
    let rounds = job.rounds(start)?;
    let better = |a: &Round, b: &Round| a.summary.after.kl.total_cmp(&b.summary.after.kl);
    let (best, _) = rounds.iter().enumerate().min_by(|a, b| better(a.1, b.1)).expect("one round");
    let finished = job.export(&rounds[0], &rounds[best])?;
    files::write_atomically(&args.out, &finished.blob)?;
    // The blob is safe: the states are of no more use.
    for round in 0..args.recipe.rounds {
        let state = args.beside(round, "state");
        if state.exists() {
            std::fs::remove_file(&state).map_err(Error::io("remove", &state))?;
        }
    }
    report(&args.out, &loaded, &rounds, best, &finished, global);
    Ok(())
}

/// A blob to fine-tune, with what it was made from unless it was given as a file.
struct Start {
    blob: Vec<u8>,
    made: Option<(Source, Made)>,
}

/// A round of fine-tuning: the blob that it began with and what came of it.
struct Round {
    blob: Vec<u8>,
    summary: Summary,
}

/// What every round has in common.
struct Job<'a> {
    args: &'a Args,
    loaded: &'a Loaded,
    teacher: &'a Model,
    recipe: Recipe,
    train: &'a Tokens,
    valid: &'a Tokens,
    global: Global,
}

impl Job<'_> {
    /// Every round; each but the first begins with precisions chosen again for what the one before has
    /// learnt, and there is none where those would be the same.
    fn rounds(&self, start: Start) -> Result<Vec<Round>> {
        let Start { mut blob, mut made } = start;
        let mut rounds: Vec<Round> = Vec::new();
        loop {
            let summary = self.run(&blob, rounds.len())?.tune(&mut self.progress())?;
            rounds.push(Round { blob, summary });
            let Some((source, before)) = &mut made else { break };
            if rounds.len() == self.args.recipe.rounds {
                break;
            }
            let Round { blob: old, summary } = &rounds[rounds.len() - 1];
            let student = Student::new(&parse_blob(old, &self.args.out)?, self.teacher.config())?;
            student.teach(&summary.parameters, source);
            let tokenizer = self.loaded.tokenizer.as_ref();
            let making = &self.args.making;
            let Some(again) =
                making.make_again(source, before, self.teacher, tokenizer, self.global)?
            else {
                note(self.global, "the precisions stay as they are: no other round");
                break;
            };
            blob = self.args.assemble(source, &again)?;
            *before = again;
        }
        Ok(rounds)
    }

    fn run<'a>(&'a self, blob: &'a [u8], round: usize) -> Result<Run<'a>> {
        let Self { teacher, args: Args { recipe: flags, .. }, .. } = *self;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = flags.threads.unwrap_or_else(cores);
        let mut recipe = self.recipe.clone();
        let window = recipe.training.window;
        flags.choose_rate(&mut recipe, || {
            let student = Student::new(&parse_blob(blob, &self.args.out)?, teacher.config())?;
            let held = Held::new(teacher, &self.valid.tokens, window, threads);
            Ok(held.score(&student, threads).kl)
        })?;
        Ok(Run {
            teacher,
            blob,
            recipe,
            train: &self.train.tokens,
            valid: &self.valid.tokens,
            data: BTreeMap::from([
                ("teacher_sha256".to_string(), self.loaded.sha256_hex()),
                ("blob_sha256".to_string(), sha256(blob)),
                ("train_text_sha256".to_string(), sha256_of(&self.train.tokens)),
                ("valid_text_sha256".to_string(), sha256_of(&self.valid.tokens)),
            ]),
            threads,
            output: Output {
                log: self.args.beside(round, "jsonl"),
                state: self.args.beside(round, "state"),
                save_every: flags.save_every,
                validate_every: flags.validate_every,
                log_every: flags.log_every,
            },
        })
    }

    fn progress(&self) -> impl FnMut(Event) {
        let bar = progress_bar(&self.recipe.training, self.global.quiet);
        move |event| show(&bar, event)
    }
}

/// A fine-tuned blob and how good it is.
struct Finished {
    blob: Vec<u8>,
    policy: String,
    corpus: String,
    /// Of the checkpoint, of the blob that the run started with and of the one that came out.
    quality: Vec<Quality>,
}

impl Args {
    /// Text to train on and text to validate on.
    fn texts(
        &self,
        recipe: &Recipe,
        loaded: &Loaded,
        teacher: &Model,
        global: Global,
    ) -> Result<[Tokens; 2]> {
        let text = &self.making.text;
        if text.text.is_some() {
            return Err(Error::Usage(
                "fine-tuning needs text to train on and other text to validate on: name --corpus, or \
                 nothing for text that the checkpoint writes itself"
                    .into(),
            ));
        }
        let windows = (self.recipe.validation_tokens / text.window.max(1)).max(1);
        let held_out = windows * text.window + 1;
        let sampled = matches!(Corpus::find(text.corpus.as_deref()), Err(Error::CorpusMissing));
        let tokenizer = loaded.tokenizer.as_ref();
        let tokens = |split, limit| text.tokens(split, limit, Some(teacher), tokenizer, global);
        if !sampled {
            return Ok([tokens(Split::Train, None)?, tokens(Split::Valid, Some(held_out))?]);
        }
        // One text: what comes last is to validate on.
        let training = &recipe.training;
        let wanted = training.steps.saturating_mul((training.batch * training.window) as u64);
        let count = (wanted as usize).clamp(text.window + 1, SAMPLED_TOKENS);
        let mut train = tokens(Split::Train, Some(count + held_out))?;
        let valid = train.tokens.split_off(count);
        let valid = Tokens { name: train.name.clone(), tokens: valid };
        Ok([train, valid])
    }

    /// A file of a round, beside the blob that is to be written.
    fn beside(&self, round: usize, extension: &str) -> PathBuf {
        let mut name = self.out.clone().into_os_string();
        match round {
            0 => name.push(format!(".{extension}")),
            _ => name.push(format!(".round{}.{extension}", round + 1)),
        }
        PathBuf::from(name)
    }

    /// The blob to start from.
    fn start(&self, loaded: &Loaded, global: Global) -> Result<Start> {
        if let Some(path) = &self.blob {
            let blob = files::read(path)?;
            if parse_blob(&blob, path)?.provenance().source_sha256 != loaded.sha256 {
                let path = path.display();
                return Err(Error::Usage(format!("{path} was made from another checkpoint")));
            }
            return Ok(Start { blob, made: None });
        }
        let made = self.making.make(loaded, false, global)?;
        let made = made.expect("nothing was asked to be left out");
        let blob = self.assemble(&made.0, &made.1)?;
        Ok(Start { blob, made: Some(made) })
    }

    fn assemble(&self, source: &Source, made: &Made) -> Result<Vec<u8>> {
        let origin = Origin {
            calibration: &made.text.name,
            calibration_tokens: made.text.tokens.len() as u32,
            seed: self.making.text.seed,
            measured: None,
        };
        source.assemble(&made.encoded, &made.assignment, &origin)
    }
}

impl Job<'_> {
    /// The blob of the best step, measured through the integer path beside the one that the first round
    /// began with.
    fn export(&self, first: &Round, best: &Round) -> Result<Finished> {
        let Self { loaded, teacher, valid, .. } = *self;
        let out = &self.args.out;
        let [first, before] = [&first.blob, &best.blob];
        let student = Student::new(&parse_blob(before, out)?, teacher.config())?;
        let first = parse_blob(first, out)?;
        let policy = first.provenance().policy;
        let policy = match policy.ends_with(TUNED) {
            true => policy.to_owned(),
            false => format!("{policy}{TUNED}"),
        };
        let mut origin =
            ExportOrigin { policy: &policy, seed: self.args.making.text.seed, measured: None };
        let parameters = &best.summary.parameters;
        let blob = student.export(parameters, before, &origin)?;
        let subjects = [first.clone(), parse_blob(&blob, out)?].map(Subject::Blob);
        let lengths = loaded.tokenizer.as_ref().map(Tokenizer::token_lengths);
        let window = self.recipe.training.window;
        let quality = eval::evaluate(
            Some(teacher),
            &subjects,
            &valid.tokens,
            window,
            lengths.as_deref(),
            |_| {},
        )?;
        origin.measured = Some(Measured {
            corpus: &valid.name,
            tokens: quality[2].tokens as u32,
            perplexity_fp32: quality[0].perplexity as f32,
            perplexity: quality[2].perplexity as f32,
        });
        let blob = student.export(parameters, before, &origin)?;
        Ok(Finished { blob, policy, corpus: valid.name.clone(), quality })
    }
}

/// What a policy's name ends with where its blob was fine-tuned.
const TUNED: &str = " fine-tuned";
/// Training tokens that the checkpoint writes at most where there is no corpus.
const SAMPLED_TOKENS: usize = 1 << 18;

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn sha256_of(tokens: &[u32]) -> String {
    sha256(&tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>())
}

fn progress_bar(recipe: &train::Recipe, quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{bar:24} {percent:>3}% {msg} · {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(recipe.steps).with_style(style)
}

fn show(bar: &ProgressBar, event: Event) {
    match event {
        Event::Resumed(step) => {
            bar.set_position(step);
            bar.reset_eta();
            bar.println(format!("resumed after step {step}"));
        }
        Event::Step(step, result) => {
            bar.set_position(step);
            bar.set_message(format!("step {step} KL {:.4} lr {:.1e}", result.kl, result.rate));
        }
        Event::Validated(step, score) => bar.println(format!(
            "step {step}: validation KL {:.5}, perplexity {:.3}",
            score.kl, score.perplexity
        )),
    }
}

fn report(
    out: &Path,
    loaded: &Loaded,
    rounds: &[Round],
    best: usize,
    finished: &Finished,
    global: Global,
) {
    let summary = &rounds[best].summary;
    let [fp32, before, after] = [0, 1, 2].map(|i| &finished.quality[i]);
    let bytes = finished.blob.len();
    let ratio = loaded.bytes as f64 / bytes as f64;
    if global.json {
        print_json(&json!({
            "policy": finished.policy,
            "out": out,
            "blob_bytes": bytes,
            "fp32_bytes": loaded.bytes,
            "ratio": ratio,
            "train_tokens": rounds.iter().map(|round| round.summary.tokens).sum::<u64>(),
            "seconds": rounds.iter().map(|round| round.summary.seconds).sum::<f64>(),
            "best_round": best + 1,
            "rounds": rounds.iter().map(|round| json!({
                "steps": round.summary.steps,
                "train_tokens": round.summary.tokens,
                "best_step": round.summary.best_step,
                "stopped_early": round.summary.stopped_early,
                "simulated": { "before": round.summary.before, "after": round.summary.after },
            })).collect::<Vec<_>>(),
            "measured": {
                "corpus": finished.corpus, "fp32": fp32, "before": before, "after": after,
            },
        }));
        return;
    }
    println!(
        "{}: {bytes} bytes, {ratio:.2}× smaller; best after step {} of {} in round {} of {}",
        out.display(),
        summary.best_step,
        summary.steps,
        best + 1,
        rounds.len()
    );
    for (name, quality) in [("before", before), ("after", after)] {
        let fidelity = quality.fidelity.as_ref();
        println!(
            "{name}: perplexity {:.3} → {:.3} ({:+.2} %), KL {:.5} on {} tokens of {}",
            fp32.perplexity,
            quality.perplexity,
            fidelity.map_or(0.0, |f| f.ppl_rise_percent),
            fidelity.map_or(0.0, |f| f.kl),
            quality.tokens,
            finished.corpus
        );
    }
}
