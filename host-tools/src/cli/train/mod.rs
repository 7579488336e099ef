//! `resnet-bk train`.

mod flags;
mod flash;
mod texts;

pub(crate) use flags::Args;

use crate::checkpoint::TOKENIZER_KEY;
use crate::cli::Global;
use crate::cli::common::{Loaded, bar, escaped, model_files, set};
use crate::cli::progress::Progress;
use crate::cli::teachers::{Student, TeacherFile, Teachers};
use crate::corpus::{Corpus, Split};
use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::memory::Copies;
use crate::output::{self, Kind};
use crate::reference::SoftTargets;
use crate::terminal::{Stderr, Stdout};
use crate::tokenizer::Tokenizer;
use crate::train::{Event, Recipe, Run, Summary};
use std::path::PathBuf;
use texts::Texts;

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    // Check dimensions before spending time on the tokenizer.
    args.model.config(args.model.vocab())?;
    let initial = args.init.as_deref().map(|path| Loaded::read(path, None, global)).transpose()?;
    let positions = match &initial {
        Some(initial) => initial.checkpoint.config.positions,
        None => args.model.positions,
    };
    let files = TeacherFile::read_all(&args.teacher, global)?;
    let distilled = !files.is_empty();
    let recipe = args.recipe.recipe(positions, distilled, args.model.shape().as_ref())?;
    let corpus = Corpus::find(args.corpus.as_deref())?.with_token_type(args.tokens.token_type);
    let texts = Texts::read(&corpus)?;
    files::create_directory(&args.out)?;
    let _lock = Lock::acquire(&args.out.join("train.lock"))?;
    let places = args.places(&corpus)?;
    let own;
    let needed = texts.need_tokenizer();
    let tokenizer = match (&args.tokenizer, &initial, files.first()) {
        (None, Some(initial), _) => {
            present(initial.tokenizer.as_ref(), needed, "beside", "--init")?
        }
        (None, None, Some(teacher)) => present(teacher.tokenizer(), needed, "with", "--teacher")?,
        (None, None, None) if !needed => None,
        (path, ..) => {
            own = match path {
                Some(path) => Tokenizer::load(path)?,
                None => texts.train_tokenizer(args.model.vocab())?,
            };
            Some(&own)
        }
    };
    let config = match (&initial, tokenizer, args.model.asked_vocab()) {
        (Some(initial), ..) => initial.checkpoint.config.clone(),
        (None, Some(tokenizer), _) => args.model.config(tokenizer.vocab())?,
        (None, None, Some(vocab)) => args.model.config(vocab)?,
        (None, None, None) => return Err(texts.vocabulary_missing(&corpus)),
    };
    Copies::TRAIN.require(config.parameters())?;
    let student = Student { vocab: config.vocab, tokenizer, whole_windows: false };
    let teachers = distilled.then(|| Teachers::new(None, &files, &student)).transpose()?;
    let mut data = texts.hashes();
    data.extend(tokenizer.map(|tokenizer| (TOKENIZER_KEY.to_string(), tokenizer.sha256())));
    if let Some(initial) = &initial {
        data.insert("initial_sha256".into(), initial.sha256_hex());
    }
    let [train, valid] = texts.tokens(&corpus, tokenizer, config.vocab)?;
    let (train, valid) = (&train, &valid);
    data.extend(teachers.iter().flat_map(Teachers::hashes));
    let soft = teachers.as_ref().map(|teachers| || soft_targets(teachers, &train.tokens, global));
    let training = Run {
        config,
        initial: initial.as_ref().map(|initial| &initial.checkpoint),
        recipe,
        train: &train.tokens,
        soft: soft.as_ref().map(|compute| compute as _),
        valid: &valid.tokens,
        valid_bytes: valid.bytes.as_deref(),
        data,
        output: args.recipe.optimizer.output(places.log, places.state.clone(), args.force.force),
    };
    if !global.quiet {
        let (count, parameters) = (train.tokens.len(), training.config.parameters());
        let length = |bytes: &Vec<u32>| bytes.iter().map(|&bytes| f64::from(bytes)).sum::<f64>();
        let each = train.bytes.as_ref().map(|bytes| length(bytes) / count as f64);
        let each = each.map_or(String::new(), |each| format!(" of {each:.2} bytes"));
        writeln!(Stderr, "{parameters} parameters, {count} training tokens{each}");
    }
    let bar = progress_bar(&training.recipe, global);
    let mut summary = training.train(&mut |event| show(&bar, &training.recipe, event))?;
    bar.finish_and_clear();
    let command: Vec<String> = std::env::args_os().skip(1).map(escaped).collect();
    summary
        .checkpoint
        .provenance
        .insert("command".into(), format!("resnet-bk {}", command.join(" ")));
    // Written together with the model: until then the directory may hold another model with its own
    // tokenizer, and a resumed run trains the same tokenizer again.
    if let Some(tokenizer) = tokenizer {
        places.tokenizer.write(&tokenizer.to_bytes())?;
    }
    places.model.write(&summary.checkpoint.to_bytes())?;
    // The model is written: the resume file is no longer needed.
    files::remove(&places.state)?;
    report(&summary, places.model.path(), global)
}

/// The tokenizer of a flag's file, which only texts need.
fn present<'a>(
    of: Option<&'a Tokenizer>,
    needed: bool,
    place: &str,
    flag: &str,
) -> Result<Option<&'a Tokenizer>> {
    match of {
        None if needed => {
            Err(Error::Tokenizer(format!("there is no tokenizer {place} the file of {flag}")))
        }
        of => Ok(of),
    }
}

fn soft_targets(teachers: &Teachers<'_>, text: &[u32], global: Global) -> SoftTargets {
    let progress = bar("predictions of the teachers", global);
    let longest = teachers.longest().unwrap_or(usize::MAX);
    let soft = SoftTargets::new(teachers.average(), text, longest, |share| set(&progress, share));
    progress.finish_and_clear();
    soft
}

/// Output files.
struct Places {
    model: output::Output,
    tokenizer: output::Output,
    state: PathBuf,
    log: PathBuf,
}

impl Args {
    /// The output files, if they may be written. A finished model is only replaced by a run that
    /// started before it was finished, or with `--force`.
    fn places(&self, corpus: &Corpus) -> Result<Places> {
        let mut inputs = vec![corpus.file(Split::Train), corpus.file(Split::Valid)];
        inputs.extend(self.tokenizer.clone());
        inputs.extend(self.teacher.iter().flat_map(|teacher| model_files(teacher, None)));
        inputs.extend(self.init.iter().flat_map(|init| model_files(init, None)));
        let mut plan = self.force.plan(inputs);
        let at = |name: &str| self.out.join(name);
        let state = plan.writes(&at("state"), Kind::State)?;
        let model = match state.is_occupied() {
            true => plan.writes(&at("model.safetensors"), Kind::Checkpoint)?,
            false => plan.creates(&at("model.safetensors"), "a finished model")?,
        };
        let tokenizer = plan.writes(&at("tokenizer.json"), Kind::Tokenizer)?;
        let log = self.log.clone().unwrap_or_else(|| at("train.jsonl"));
        let log = plan.writes(&log, Kind::Log)?;
        let path = |output: output::Output| output.path().to_path_buf();
        Ok(Places { model, tokenizer, state: path(state), log: path(log) })
    }
}

fn progress_bar(recipe: &Recipe, global: Global) -> Progress {
    let tokens = recipe.steps * (recipe.batch * recipe.window) as u64;
    let template = "{bar:24} {percent:>3}% {msg} · {rate} tokens/s · {eta} left";
    Progress::new(tokens, template, global)
}

fn show(bar: &Progress, recipe: &Recipe, event: Event) {
    let tokens = |step: u64| step * (recipe.batch * recipe.window) as u64;
    match event {
        Event::Resumed(step) => {
            bar.set_position(tokens(step));
            bar.reset_eta();
            bar.println(&format!("resumed after step {step}"));
        }
        Event::Step(step, result) => {
            bar.set_message(format!("step {step} loss {:.3} lr {:.1e}", result.loss, result.rate));
            bar.set_position(tokens(step));
        }
        Event::Validated(step, score) => {
            bar.println(&format!("step {step}: validation {}", score.in_words()));
        }
    }
}

fn report(summary: &Summary, path: &std::path::Path, global: Global) -> Result<()> {
    let score = &summary.score;
    let perplexity = score.perplexity();
    if global.json {
        let result = serde_json::json!({
            "model": escaped(path),
            "tokens": summary.tokens,
            "seconds": summary.seconds,
            "validation_bits_per_byte": score.bits_per_byte(),
            "validation_bits_per_token": score.bits_per_token(),
            "validation_perplexity": perplexity,
        });
        writeln!(Stdout, "{result}")
    } else {
        writeln!(
            Stdout,
            "{}: validation {}, perplexity {perplexity:.2}",
            path.display(),
            score.in_words()
        )
    }
}
