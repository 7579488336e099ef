//! `resnet-bk finetune`.

mod flags;
mod progress;
mod recipe;
mod report;
mod rounds;

pub(crate) use flags::Args;

use crate::checkpoint::Chain;
use crate::cli::Global;
use crate::cli::teachers::{Student, TeacherFile, Teachers};
use crate::error::Result;
use crate::files::{self, Lock};
use crate::memory::Copies;
use crate::reference::Model;
use flags::{Start, TUNED};
use report::report;
use rounds::{Finetuning, Round};

pub(crate) fn run(mut args: Args, global: Global) -> Result<()> {
    args.making.suffix = TUNED;
    let out = args.output()?;
    let _lock = Lock::acquire(&args.beside(0, "lock"))?;
    let loaded = args.making.load(&args.model, global)?;
    Copies::FINETUNE.require(loaded.checkpoint.config.parameters())?;
    let given = args.given(&loaded)?;
    let recipe = args.recipe.recipe(&args.making, &loaded)?;
    let teacher = Model::from_checkpoint(&loaded.checkpoint);
    let files = TeacherFile::read_all(&args.teacher, global)?;
    let config = &loaded.checkpoint.config;
    let student = Student {
        vocab: config.vocab,
        tokenizer: loaded.tokenizer.as_ref(),
        whole_windows: config.chain == Chain::Full,
    };
    let teachers = Teachers::new(Some((&teacher, loaded.sha256_hex())), &files, &student)?;
    teachers.fit(recipe.training.window)?;
    let [train, valid, test] = args.texts(&recipe, &loaded, &teacher, global)?;
    args.making.recorded = Some(test.clone());
    let start = match given {
        Some(blob) => Start { blob, made: None },
        None => args.start(&loaded, global)?,
    };
    let finetuning = Finetuning {
        args: &args,
        loaded: &loaded,
        teacher: &teacher,
        teachers: &teachers,
        recipe,
        train: &train,
        valid: &valid,
        test: &test,
        global,
    };
    let rounds = finetuning.rounds(start)?;
    let better = |a: &Round, b: &Round| a.summary.after.kl.total_cmp(&b.summary.after.kl);
    let (best, _) = rounds.iter().enumerate().min_by(|a, b| better(a.1, b.1)).expect("one round");
    let finished = finetuning.export(&rounds[0], &rounds[best])?;
    out.write(&finished.blob)?;
    // The blob is written: what was kept for resuming is no longer needed.
    for round in 0..args.recipe.rounds {
        files::remove(&args.beside(round, "state"))?;
    }
    args.making.remove_kept()?;
    report(&args.out, &loaded, &rounds, best, &finished, global)
}
