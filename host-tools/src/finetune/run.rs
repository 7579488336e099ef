//! A complete fine-tuning run: steps, validation, early stopping, log, resume file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use resnet_bk_schema::outputs::DistillationScore;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Recipe, Step, Student, Tuner, ValidationSet};
use crate::checkpoint::ModelConfig;
use crate::corpus;
use crate::error::Result;
use crate::reference::Predicts;
use crate::train::{Log, Output, state};

/// Blob, teacher, text and settings of a run.
pub struct Run<'a> {
    /// Dimensions of the checkpoint that the blob was made from.
    pub checkpoint: &'a ModelConfig,
    /// The teacher: that checkpoint, or its average with other models.
    pub teacher: &'a dyn Predicts,
    /// The blob to start from.
    pub blob: &'a [u8],
    /// Training settings.
    pub recipe: Recipe,
    /// Training tokens.
    pub train: &'a [u32],
    /// Validation tokens, which select the best step.
    pub valid: &'a [u32],
    /// Identity of the data, such as hashes; a run resumes only with the same.
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
    /// The student was validated after this many steps.
    Validated(u64, DistillationScore),
}

/// Result of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Parameters with the smallest KL divergence on the validation text.
    pub parameters: Vec<f32>,
    /// Score of the initial student.
    pub before: DistillationScore,
    /// Best score.
    pub after: DistillationScore,
    /// Step of the best validation; 0 if none improved on the initial student.
    pub best_step: u64,
    /// Steps taken.
    pub steps: u64,
    /// Training tokens seen.
    pub tokens: u64,
    /// Whether the run was stopped early.
    pub stopped_early: bool,
    /// Wall-clock seconds, without those before a resume.
    pub seconds: f64,
}

/// Progress, as saved in the resume file.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Progress {
    step: u64,
    before: DistillationScore,
    best: DistillationScore,
    best_step: u64,
    /// Validations in the second half since the last improvement.
    stale: u64,
}

const ARRAYS: [&str; 4] = ["parameters", "first_moments", "second_moments", "best_parameters"];

impl Run<'_> {
    /// Fine-tunes to the end, from the resume file if there is one.
    pub fn tune(&self, show: &mut dyn FnMut(Event)) -> Result<Summary> {
        let training = &self.recipe.training;
        corpus::require_window("the training text", self.train.len(), training.window)?;
        corpus::require_window("the validation text", self.valid.len(), training.window)?;
        let held = ValidationSet::new(self.teacher, self.valid, training.window);
        let (mut tuner, mut progress, mut best) = self.start(&held)?;
        if progress.step > 0 {
            show(Event::Resumed(progress.step));
        } else {
            show(Event::Validated(0, progress.before));
        }
        let mut log = Log::open(&self.output.log, progress.step)?;
        let tokens = |step: u64| step * (training.batch * training.window) as u64;
        let (started, first_step) = (Instant::now(), progress.step);
        let mut kl = (0.0, 0);
        while progress.step < training.steps && !self.stopped(&progress) {
            let step = tuner.step(self.train)?;
            let done = tuner.steps_done();
            progress.step = done;
            show(Event::Step(done, step));
            kl = (kl.0 + step.kl, kl.1 + 1);
            let last = done == training.steps;
            if done.is_multiple_of(self.output.log_every) || last {
                let seconds = started.elapsed().as_secs_f64();
                log.write(json!({
                    "step": done,
                    "tokens": tokens(done),
                    "kl": kl.0 / f64::from(kl.1),
                    "learning_rate": step.rate,
                    "gradient_norm": step.gradient_norm,
                    "tokens_per_second": tokens(done - first_step) as f64 / seconds,
                    "seconds": seconds,
                }))?;
                kl = (0.0, 0);
            }
            if done.is_multiple_of(self.output.validate_every) || last {
                let score = held.score(tuner.student());
                // Not counted while the learning rate is high: codes that flip back and forth hide
                // improvement.
                progress.stale += u64::from(2 * done > training.steps);
                if score.kl < progress.best.kl {
                    (progress.best, progress.best_step, progress.stale) = (score, done, 0);
                    best.copy_from_slice(tuner.parameters());
                }
                show(Event::Validated(done, score));
                log.write(json!({
                    "step": done,
                    "tokens": tokens(done),
                    "validation_kl": score.kl,
                    "validation_perplexity": score.perplexity,
                }))?;
            }
            if done.is_multiple_of(self.output.save_every) {
                self.save(&tuner, &progress, &best)?;
            }
        }
        // The next round starts from this one's best parameters, also after an interruption.
        self.save(&tuner, &progress, &best)?;
        Ok(Summary {
            parameters: best,
            before: progress.before,
            after: progress.best,
            best_step: progress.best_step,
            steps: progress.step,
            tokens: tokens(progress.step),
            stopped_early: progress.step < training.steps,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    fn stopped(&self, progress: &Progress) -> bool {
        self.recipe.patience > 0 && progress.stale >= self.recipe.patience
    }

    fn start(&self, held: &ValidationSet<'_>) -> Result<(Tuner<'_>, Progress, Vec<f32>)> {
        let blob =
            resnet_bk_core::Model::from_bytes(self.blob).map_err(crate::error::Error::Blob)?;
        let student = Student::new(&blob, self.checkpoint)?;
        let mut tuner = Tuner::new(self.teacher, student, self.recipe.clone());
        let names = ARRAYS.map(|name| (name, tuner.parameters().len()));
        let wanted = self.settings();
        let load = |path: &Path| state::read(path, names, &wanted);
        let found: Option<(Progress, _)> = self.output.resume(load)?;
        let Some((progress, [parameters, first, second, best])) = found else {
            let before = held.score(tuner.student());
            let progress = Progress { step: 0, before, best: before, best_step: 0, stale: 0 };
            let best = tuner.parameters().to_vec();
            return Ok((tuner, progress, best));
        };
        tuner.resume(progress.step, [parameters, first, second])?;
        Ok((tuner, progress, best))
    }

    fn save(&self, tuner: &Tuner<'_>, progress: &Progress, best: &[f32]) -> Result<()> {
        let arrays = [&tuner.parameters, &tuner.first, &tuner.second].map(Vec::as_slice);
        let arrays = ARRAYS.into_iter().zip(arrays.into_iter().chain([best]));
        state::write(&self.output.state, arrays, self.settings(), progress)
    }

    fn settings(&self) -> BTreeMap<String, String> {
        state::settings(self.checkpoint, &self.recipe, &self.data)
    }
}
