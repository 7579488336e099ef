//! Rounds of fine-tuning, and the resulting blob.

use resnet_bk_core::blob::{Measured, Provenance};
use resnet_bk_schema::outputs::Improvement;

use super::flags::{Args, Start, TUNED};
use super::progress::{progress_bar, show};
use crate::cli::Global;
use crate::cli::common::{Loaded, note, parse_blob};
use crate::cli::teachers::Teachers;
use crate::digest::{sha256, sha256_of_tokens};
use crate::error::{Error, Result};
use crate::eval::text::Tokens;
use crate::eval::{self, Subject};
use crate::finetune::{Event, ExportOrigin, Recipe, Run, Student, Summary, ValidationSet};
use crate::reference::Model;

/// A round of fine-tuning: its initial blob and its result.
pub(super) struct Round {
    pub(super) blob: Vec<u8>,
    pub(super) summary: Summary,
}

/// Shared by all rounds.
pub(super) struct Finetuning<'a> {
    pub(super) args: &'a Args,
    pub(super) loaded: &'a Loaded,
    /// The model of the checkpoint.
    pub(super) teacher: &'a Model,
    /// It and others.
    pub(super) teachers: &'a Teachers<'a>,
    pub(super) recipe: Recipe,
    pub(super) train: &'a Tokens,
    pub(super) valid: &'a Tokens,
    /// Test text, which was not used to choose anything.
    pub(super) test: &'a Tokens,
    pub(super) global: Global,
}

impl Finetuning<'_> {
    /// Runs every round. Each but the first starts with newly chosen precisions for the weights
    /// trained so far or, if the precisions stay the same, with the previous round's blob.
    pub(super) fn rounds(&self, start: Start) -> Result<Vec<Round>> {
        let Start { mut blob, mut made } = start;
        let teacher = self.teacher;
        let mut rounds: Vec<Round> = Vec::new();
        loop {
            let summary = self.run(&blob, rounds.len())?.tune(&mut self.progress())?;
            rounds.push(Round { blob, summary });
            let Some((source, before)) = &mut made else { break };
            if rounds.len() == self.args.recipe.rounds {
                break;
            }
            let Round { blob: old, summary } = &rounds[rounds.len() - 1];
            let student = Student::new(&parse_blob(old, &self.args.out)?, teacher.config())?;
            student.teach(&summary.parameters, source);
            let tokenizer = self.loaded.tokenizer.as_ref();
            let making = &self.args.making;
            let again = making.make_again(source, before, teacher, tokenizer, self.global)?;
            blob = if let Some(again) = again {
                let blob = self.args.assemble(source, &again)?;
                *before = again;
                blob
            } else {
                note(self.global, "the precisions stay as they are");
                let origin = parse_blob(old, &self.args.out)?;
                let &Provenance { policy, seed, .. } = origin.provenance();
                let origin = ExportOrigin { policy, seed, measured: None };
                student.export(&summary.parameters, old, &origin)?
            };
        }
        Ok(rounds)
    }

    fn run<'a>(&'a self, blob: &'a [u8], round: usize) -> Result<Run<'a>> {
        let Self { teacher, teachers, args: Args { recipe: flags, .. }, .. } = *self;
        let mut recipe = self.recipe.clone();
        let window = recipe.training.window;
        flags.choose_rate(&mut recipe, || {
            let student = Student::new(&parse_blob(blob, &self.args.out)?, teacher.config())?;
            let held = ValidationSet::new(teachers.average(), &self.valid.tokens, window);
            Ok(held.score(&student).kl)
        })?;
        Ok(Run {
            checkpoint: teacher.config(),
            teacher: teachers.average(),
            blob,
            recipe,
            train: &self.train.tokens,
            valid: &self.valid.tokens,
            data: [
                ("blob_sha256".to_string(), sha256(blob)),
                ("train_text_sha256".to_string(), sha256_of_tokens(&self.train.tokens)),
                ("valid_text_sha256".to_string(), sha256_of_tokens(&self.valid.tokens)),
            ]
            .into_iter()
            .chain(teachers.hashes())
            .collect(),
            output: flags.optimizer.output(
                self.args.beside(round, "jsonl"),
                self.args.beside(round, "state"),
                self.args.force.force,
            ),
        })
    }

    fn progress(&self) -> impl FnMut(Event) {
        let bar = progress_bar(&self.recipe.training, self.global);
        move |event| show(&bar, event)
    }

    /// The blob of the best step, measured on the integer path together with the first round's
    /// initial blob.
    pub(super) fn export(&self, first: &Round, best: &Round) -> Result<TunedBlob> {
        let Self { teacher, valid, test, .. } = *self;
        let out = &self.args.out;
        let [first, before] = [&first.blob, &best.blob];
        let size = first.len();
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
        let measure = |text: &Tokens| {
            let blocks = text.blocks(self.recipe.training.window);
            let (tokens, bytes) = (&text.tokens, text.bytes.as_deref());
            let quality = eval::evaluate(Some(teacher), &subjects, tokens, &blocks, bytes, |_| {})?;
            let (corpus, errors_by) = (text.name.clone(), blocks.describe());
            let [fp32, before, after] = [0, 1, 2].map(|i| quality[i].clone());
            Ok::<_, Error>(Improvement { corpus, errors_by, fp32, before, after })
        };
        let [chosen, measured] = [measure(valid)?, measure(test)?];
        let Improvement { fp32, after, .. } = &measured;
        origin.measured = Some(Measured {
            corpus: &measured.corpus,
            tokens: after.tokens as u32,
            perplexity_fp32: fp32.perplexity as f32,
            perplexity: after.perplexity as f32,
        });
        let mut blob = student.export(parameters, before, &origin)?;
        // A given blob keeps its size, if necessary by keeping its policy name.
        if self.args.blob.is_some() && blob.len() > size {
            origin.policy = first.provenance().policy;
            blob = student.export(parameters, before, &origin)?;
        }
        let policy = origin.policy.to_owned();
        Ok(TunedBlob { blob, policy, chosen, measured })
    }
}

/// A fine-tuned blob and its quality.
pub(super) struct TunedBlob {
    pub(super) blob: Vec<u8>,
    pub(super) policy: String,
    /// On the validation text, which selected the step.
    pub(super) chosen: Improvement,
    /// On the test text.
    pub(super) measured: Improvement,
}
