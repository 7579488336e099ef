//! Progress of fine-tuning.

use crate::cli::Global;
use crate::cli::progress::Progress;
use crate::finetune::Event;
use crate::train;

pub(super) fn progress_bar(recipe: &train::Recipe, global: Global) -> Progress {
    Progress::new(recipe.steps, "{bar:24} {percent:>3}% {msg} · {eta} left", global)
}

pub(super) fn show(bar: &Progress, event: Event) {
    match event {
        Event::Resumed(step) => {
            bar.set_position(step);
            bar.reset_eta();
            bar.println(&format!("resumed after step {step}"));
        }
        Event::Step(step, result) => {
            bar.set_message(format!("step {step} KL {:.4} lr {:.1e}", result.kl, result.rate));
            bar.set_position(step);
        }
        Event::Validated(step, score) => bar.println(&format!(
            "step {step}: validation KL {:.5}, perplexity {:.3}",
            score.kl, score.perplexity
        )),
    }
}
