//! One step of fine-tuning, bit-reproducible on any number of threads.

use serde::{Deserialize, Serialize};

use super::Student;
use super::student::Segment;
use crate::error::{Error, Result};
use crate::memory;
use crate::reference::{Distillation, Predicts, Tape};
use crate::threads;
use crate::train::random::Random;
use crate::train::{self, Batch, CHUNK, Shard};

/// Every setting that affects the result, besides blob, teacher and text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    /// Steps, batches, learning rates; dropout and weight decay are ignored.
    pub training: train::Recipe,
    /// The distillation loss.
    pub distillation: Distillation,
    /// Probability of replacing an input by a random token, so that the student also follows its
    /// teacher off the training distribution.
    pub replaced: f64,
    /// Initial steps in which only scales, biases and chains are trained.
    pub first_stage: u64,
    /// Learning rate of the logarithms of scales, relative to that of weights.
    pub scale_rate: f32,
    /// Early stopping: validations in the second half without improvement; 0 disables it.
    pub patience: u64,
}

/// A student and its optimizer during a run.
pub struct Tuner<'a> {
    teacher: &'a dyn Predicts,
    student: Student,
    recipe: Recipe,
    segments: Vec<Segment>,
    /// Steps done.
    pub(super) step: u64,
    pub(super) parameters: Vec<f32>,
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
    gradient: Vec<f32>,
    batch: Batch,
    /// A teacher tape and a student tape for each thread.
    tapes: Vec<(Tape, Tape)>,
}

/// Result of a step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Mean KL divergence of the batch before the step, in nats per token at the distillation
    /// temperature.
    pub kl: f64,
    /// Learning rate of weights.
    pub rate: f64,
    /// Gradient norm before gradient-norm clipping.
    pub gradient_norm: f64,
}

impl<'a> Tuner<'a> {
    /// A new run.
    pub fn new(teacher: &'a dyn Predicts, mut student: Student, recipe: Recipe) -> Self {
        let shards = recipe.training.shards.clamp(1, recipe.training.batch);
        let parameters = student.take_parameters();
        let zeros = vec![0.0; parameters.len()];
        let buffers = memory::threads(student.model().parameters().len());
        let tapes = || (Tape::default(), Tape::fake_quantized(student.fake_quant()));
        Self {
            tapes: threads::states(shards.min(buffers), tapes),
            batch: Batch::new(shards, student.model().parameters().len()),
            segments: student.segments(recipe.scale_rate),
            first: zeros.clone(),
            second: zeros.clone(),
            gradient: zeros,
            step: 0,
            teacher,
            student,
            recipe,
            parameters,
        }
    }

    /// Resumes after `step` with the parameters and moments of an earlier run.
    pub(super) fn resume(&mut self, step: u64, arrays: [Vec<f32>; 3]) -> Result<()> {
        self.step = step;
        [self.parameters, self.first, self.second] = arrays;
        self.student.show(&mut self.parameters, &mut self.tapes)
    }

    /// The current student.
    pub fn student(&self) -> &Student {
        &self.student
    }

    /// Its parameters.
    pub fn parameters(&self) -> &[f32] {
        &self.parameters
    }

    /// Number of steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// Draws a batch from `tokens`, which must hold a window and the token after it, and takes one
    /// optimizer step.
    pub fn step(&mut self, tokens: &[u32]) -> Result<Step> {
        let train::Recipe { seed, batch, window, clip, .. } = self.recipe.training;
        self.batch.draw(tokens, (batch, window), Random::step(seed, self.step));
        let vocab = self.student.model().config().vocab;
        let random = Random::replacements(seed, self.step);
        self.batch.replace(self.recipe.replaced, vocab, random);
        let count = (batch * window) as f64;
        let (teacher, student, how) =
            (self.teacher, self.student.model(), self.recipe.distillation);
        let work = |tapes: &mut (Tape, Tape), shard: &Shard, gradient: &mut [f32], _| {
            let Shard { inputs, targets, .. } = shard;
            let exact = teacher.predict(inputs, window, &mut tapes.0);
            let scale = (1.0 / count) as f32;
            let learnt = (targets.as_slice(), exact);
            student
                .add_distilled_gradient(inputs, learnt, window, how, scale, &mut tapes.1, gradient)
                .kl
        };
        let random = Random::dropout(seed, self.step);
        let (kl, gradient_norm) = self.batch.backward(&mut self.tapes, random, work);
        let kl = kl / count;
        if !kl.is_finite() {
            return Err(Error::Diverged { step: self.step, loss: kl });
        }
        self.student.gradient(&self.batch.gradient, &mut self.gradient, &mut self.tapes);
        let rate = self.recipe.training.rate(self.step);
        self.update(rate, if gradient_norm > clip { clip / gradient_norm } else { 1.0 });
        self.student.show(&mut self.parameters, &mut self.tapes)?;
        self.step += 1;
        Ok(Step { kl, rate, gradient_norm })
    }

    fn update(&mut self, rate: f64, clipping: f64) {
        let Recipe { training, first_stage, .. } = &self.recipe;
        let stay = self.step < *first_stage;
        let (mut parameters, mut first) =
            (self.parameters.as_mut_slice(), self.first.as_mut_slice());
        let (mut second, mut gradient) = (self.second.as_mut_slice(), self.gradient.as_slice());
        let mut items = Vec::new();
        for &Segment { length, rate: own, weights } in &self.segments {
            let arrays = [&mut parameters, &mut first, &mut second];
            let arrays = arrays.map(|all| all.split_off_mut(..length).expect("one of each"));
            let gradient = gradient.split_off(..length).expect("one of each");
            let own = if weights && stay { 0.0 } else { f64::from(own) };
            let update = training.update(self.step, rate * own, clipping);
            let [p, m, v] = arrays.map(|array| array.chunks_mut(CHUNK));
            let chunks = p.zip(m).zip(v).zip(gradient.chunks(CHUNK));
            items.extend(chunks.map(|chunk| (update, chunk)));
        }
        // No weight decay: the teacher is the target, not zero.
        let decays = [0.0; CHUNK];
        threads::for_each(&mut self.tapes, items.into_iter(), |_, (update, (((p, m), v), g))| {
            update.apply(p, m, v, g, &decays[..g.len()]);
        });
    }
}
