//! A complete training run: steps, validation, log, resume file.

use crate::checkpoint::{Checkpoint, ModelConfig, TRAINING_TOKENS_KEY};
use crate::corpus;
use crate::error::{Error, Result};
use crate::files;
use crate::reference::{Model, SoftTargets};
use crate::train::evaluate::{Score, evaluate};
use crate::train::log::Log;
use crate::train::state;
use crate::train::trainer::{Recipe, Step, Trainer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Maximum number of validation windows scored during a run.
const VALIDATION_WINDOWS: usize = 256;

/// Output files and intervals of a run.
#[derive(Clone, Debug)]
pub struct Output {
    /// The JSON-lines log.
    pub log: PathBuf,
    /// The resume file. The caller removes it once the model is written.
    pub state: PathBuf,
    /// Steps between saves of the resume file.
    pub save_every: u64,
    /// Steps between validations.
    pub validate_every: u64,
    /// Steps between lines of the log.
    pub log_every: u64,
    /// Whether to discard a resume file of another run or one that is unreadable.
    pub anew: bool,
}

impl Output {
    /// Loads the resume file, if there is one.
    pub(crate) fn resume<T>(&self, load: impl FnOnce(&Path) -> Result<T>) -> Result<Option<T>> {
        files::remove_leftovers(&self.state)?;
        if !self.state.exists() {
            return Ok(None);
        }
        match load(&self.state) {
            Err(Error::ResumeMismatch { .. } | Error::Format { .. }) if self.anew => Ok(None),
            found => found.map(Some),
        }
    }
}

/// Data and settings of a training run.
pub struct Run<'a> {
    /// Dimensions of the model.
    pub config: ModelConfig,
    /// Initial weights, of these dimensions; `None` for random ones.
    pub initial: Option<&'a Checkpoint>,
    /// Training settings.
    pub recipe: Recipe,
    /// Training tokens.
    pub train: &'a [u32],
    /// Computes the soft targets of the training tokens, for a model trained on them, too; called
    /// when nothing else can refuse the run.
    pub soft: Option<&'a (dyn Fn() -> SoftTargets + Sync)>,
    /// Validation tokens.
    pub valid: &'a [u32],
    /// Bytes of each validation token, where they are known.
    pub valid_bytes: Option<&'a [u32]>,
    /// Identity of the data, such as hashes, recorded in the checkpoint; a run resumes only with
    /// the same.
    pub data: BTreeMap<String, String>,
    /// Files to write.
    pub output: Output,
}

/// Event to show to the user.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The run resumes after this step.
    Resumed(u64),
    /// A step is done; numbers count from 1.
    Step(u64, Step),
    /// The model was validated after this many steps.
    Validated(u64, Score),
}

/// Result of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The trained model.
    pub checkpoint: Checkpoint,
    /// Its loss on the whole validation text.
    pub score: Score,
    /// Training tokens seen.
    pub tokens: u64,
    /// Wall-clock seconds, without those before a resume.
    pub seconds: f64,
}

impl Run<'_> {
    /// Trains to the end, from the resume file if there is one.
    pub fn train(&self, show: &mut dyn FnMut(Event)) -> Result<Summary> {
        let Recipe { steps, batch, window, .. } = self.recipe;
        corpus::require_window("the training text", self.train.len(), window)?;
        corpus::require_window("the validation text", self.valid.len(), 1)?;
        let mut trainer = self.start()?;
        if trainer.steps_done() > 0 {
            show(Event::Resumed(trainer.steps_done()));
        }
        let mut log = Log::open(&self.output.log, trainer.steps_done())?;
        let soft = self.soft.map(|compute| compute());
        let started = Instant::now();
        let first_step = trainer.steps_done();
        let tokens = |step: u64| step * (batch * window) as u64;
        let mut losses = (0.0, 0);
        while trainer.steps_done() < steps {
            let step = trainer.step(self.train, soft.as_ref())?;
            let done = trainer.steps_done();
            show(Event::Step(done, step));
            losses = (losses.0 + step.loss, losses.1 + 1);
            let last = done == steps;
            if done.is_multiple_of(self.output.log_every) || last {
                let seconds = started.elapsed().as_secs_f64();
                log.write(json!({
                    "step": done,
                    "tokens": tokens(done),
                    "loss": losses.0 / f64::from(losses.1),
                    "learning_rate": step.rate,
                    "gradient_norm": step.gradient_norm,
                    "tokens_per_second": tokens(done - first_step) as f64 / seconds,
                    "seconds": seconds,
                }))?;
                losses = (0.0, 0);
            }
            if done.is_multiple_of(self.output.validate_every) && !last {
                let score = self.validate(&trainer, Some(VALIDATION_WINDOWS));
                show(Event::Validated(done, score));
                log.write(validation(done, tokens(done), "subset", score))?;
            }
            if done.is_multiple_of(self.output.save_every) && !last {
                state::save(&trainer, &self.data, &self.output.state)?;
            }
        }
        let score = self.validate(&trainer, None);
        show(Event::Validated(steps, score));
        log.write(validation(steps, tokens(steps), "whole", score))?;
        let checkpoint = trainer.model().to_checkpoint(self.provenance(score))?;
        let seconds = started.elapsed().as_secs_f64();
        Ok(Summary { checkpoint, score, tokens: tokens(steps), seconds })
    }

    fn start(&self) -> Result<Trainer> {
        let (config, recipe) = (self.config.clone(), self.recipe.clone());
        let load = |path: &Path| state::load(path, config.clone(), recipe.clone(), &self.data);
        match (self.output.resume(load)?, &self.initial) {
            (Some(trainer), _) => Ok(trainer),
            (None, Some(initial)) => {
                Ok(Trainer::from_model(Model::from_checkpoint(initial), recipe))
            }
            (None, None) => Trainer::new(config, recipe),
        }
    }

    fn validate(&self, trainer: &Trainer, limit: Option<usize>) -> Score {
        let (model, window) = (trainer.model(), self.recipe.window);
        evaluate(model, self.valid, self.valid_bytes, window, limit)
    }

    fn provenance(&self, score: Score) -> BTreeMap<String, String> {
        let mut all = self.data.clone();
        let before = self.initial.and_then(Checkpoint::training_tokens).unwrap_or(0);
        let tokens = self.recipe.steps * (self.recipe.batch * self.recipe.window) as u64;
        let recipe = serde_json::to_string(&self.recipe).expect("a plain struct serialises");
        all.insert("recipe".into(), recipe);
        all.insert("seed".into(), self.recipe.seed.to_string());
        all.insert(TRAINING_TOKENS_KEY.into(), (before + tokens).to_string());
        let (unit, bits) = match score.bits_per_byte() {
            Some(bits) => ("validation_bits_per_byte", bits),
            None => ("validation_bits_per_token", score.bits_per_token()),
        };
        all.insert(unit.into(), format!("{bits:.4}"));
        all.insert("trained_with".into(), concat!("resnet-bk ", env!("CARGO_PKG_VERSION")).into());
        all
    }
}

fn validation(step: u64, tokens: u64, text: &str, score: Score) -> Value {
    json!({
        "step": step,
        "tokens": tokens,
        "validation": text,
        "validation_bits_per_byte": score.bits_per_byte(),
        "validation_bits_per_token": score.bits_per_token(),
        "validation_perplexity": score.perplexity(),
    })
}
