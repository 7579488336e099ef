//! `resnet-bk finetune`.

mod recipe;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};
use resnet_bk_core::blob::Measured;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::common::{Loaded, hex, parse_blob, print_json};
use super::quantize::Making;
use crate::cli::Global;
use crate::corpus::{Corpus, Split};
use crate::error::{Error, Result};
use crate::eval::text::Tokens;
use crate::eval::{self, Quality, Subject};
use crate::files;
use crate::finetune::{Event, ExportOrigin, Recipe, Run, Student, Summary};
use crate::quantize::Origin;
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
  biases and chains alone, then codes too. The blob keeps its precisions and its size. What is written
  is the step with the smallest KL divergence on the validation split.

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
    let blob = args.start(&loaded, global)?;
    let data = BTreeMap::from([
        ("teacher_sha256".to_string(), loaded.sha256_hex()),
        ("blob_sha256".to_string(), sha256(&blob)),
        ("train_text_sha256".to_string(), sha256_of(&train.tokens)),
        ("valid_text_sha256".to_string(), sha256_of(&valid.tokens)),
    ]);
    let beside = |extension: &str| {
        let mut name = args.out.clone().into_os_string();
        name.push(extension);
        PathBuf::from(name)
    };
    let state = beside(".state");
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let tuning = Run {
        teacher: &teacher,
        blob: &blob,
        recipe,
        train: &train.tokens,
        valid: &valid.tokens,
        data,
        threads: args.recipe.threads.unwrap_or_else(cores),
        output: Output {
            log: beside(".jsonl"),
            state: state.clone(),
            save_every: args.recipe.save_every,
            validate_every: args.recipe.validate_every,
            log_every: args.recipe.log_every,
        },
    };
    let bar = progress_bar(&tuning.recipe.training, global.quiet);
    let summary = tuning.tune(&mut |event| show(&bar, event))?;
    bar.finish_and_clear();
    let finished = args.export(&tuning, &summary, &valid, &loaded)?;
    files::write_atomically(&args.out, &finished.blob)?;
    // The blob is safe: the state is of no more use.
    if state.exists() {
        std::fs::remove_file(&state).map_err(Error::io("remove", &state))?;
    }
    report(&args.out, &loaded, &summary, &finished, global);
    Ok(())
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

    /// The blob to start from.
    fn start(&self, loaded: &Loaded, global: Global) -> Result<Vec<u8>> {
        if let Some(path) = &self.blob {
            let blob = files::read(path)?;
            if parse_blob(&blob, path)?.provenance().source_sha256 != loaded.sha256 {
                let path = path.display();
                return Err(Error::Usage(format!("{path} was made from another checkpoint")));
            }
            return Ok(blob);
        }
        let made = self.making.make(loaded, false, global)?;
        let (source, made) = made.expect("nothing was asked to be left out");
        let origin = Origin {
            calibration: &made.text.name,
            calibration_tokens: made.text.tokens.len() as u32,
            seed: self.making.text.seed,
            measured: None,
        };
        source.assemble(&made.encoded, &made.assignment, &origin)
    }

    /// The blob of the best step, measured through the integer path.
    fn export(
        &self,
        run: &Run<'_>,
        summary: &Summary,
        valid: &Tokens,
        loaded: &Loaded,
    ) -> Result<Finished> {
        let before = parse_blob(run.blob, &self.out)?;
        let student = Student::new(&before, run.teacher.config())?;
        let policy = before.provenance().policy;
        let policy = match policy.ends_with(TUNED) {
            true => policy.to_owned(),
            false => format!("{policy}{TUNED}"),
        };
        let mut origin =
            ExportOrigin { policy: &policy, seed: self.making.text.seed, measured: None };
        let parameters = &summary.parameters;
        let blob = student.export(parameters, run.blob, &origin)?;
        let subjects = [before.clone(), parse_blob(&blob, &self.out)?].map(Subject::Blob);
        let lengths = loaded.tokenizer.as_ref().map(Tokenizer::token_lengths);
        let window = run.recipe.training.window;
        let quality = eval::evaluate(
            Some(run.teacher),
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
        let blob = student.export(parameters, run.blob, &origin)?;
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

fn report(out: &Path, loaded: &Loaded, summary: &Summary, finished: &Finished, global: Global) {
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
            "steps": summary.steps,
            "train_tokens": summary.tokens,
            "best_step": summary.best_step,
            "stopped_early": summary.stopped_early,
            "seconds": summary.seconds,
            "simulated": { "before": summary.before, "after": summary.after },
            "measured": {
                "corpus": finished.corpus, "fp32": fp32, "before": before, "after": after,
            },
        }));
        return;
    }
    println!(
        "{}: {bytes} bytes, {ratio:.2}× smaller; best after step {} of {}",
        out.display(),
        summary.best_step,
        summary.steps
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
