//! What is shown while a model is fine-tuned, and after.

use std::path::Path;

use serde_json::{Value, json};

use super::job::{Finished, Measurement, Round};
use crate::cli::Global;
use crate::cli::common::{Loaded, escaped, print_json};
use crate::cli::progress::Progress;
use crate::error::Result;
use crate::eval::statistics::with_error;
use crate::finetune::Event;
use crate::terminal::Stdout;
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

pub(super) fn report(
    out: &Path,
    loaded: &Loaded,
    rounds: &[Round],
    best: usize,
    finished: &Finished,
    global: Global,
) -> Result<()> {
    let summary = &rounds[best].summary;
    let measured = &finished.measured;
    let [fp32, before, after] = [0, 1, 2].map(|i| &measured.quality[i]);
    let bytes = finished.blob.len();
    let ratio = loaded.bytes as f64 / bytes as f64;
    if global.json {
        print_json(&json!({
            "policy": finished.policy,
            "out": escaped(out),
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
            "chosen": shown(&finished.chosen),
            "measured": shown(&finished.measured),
        }))?;
        return Ok(());
    }
    writeln!(
        Stdout,
        "{}: {bytes} bytes, {ratio:.2}× smaller; best after step {} of {} in round {} of {}",
        out.display(),
        summary.best_step,
        summary.steps,
        best + 1,
        rounds.len()
    )?;
    for (name, quality) in [("before", before), ("after", after)] {
        let Some(fidelity) = &quality.fidelity else { continue };
        let rise = format!("{:+.2}", fidelity.ppl_rise_percent);
        writeln!(
            Stdout,
            "{name}: perplexity {:.3} → {:.3} ({} %), KL {} on {} tokens of {}",
            fp32.perplexity,
            quality.perplexity,
            with_error(rise, fidelity.ppl_rise_percent_se, 2),
            with_error(format!("{:.5}", fidelity.kl), fidelity.kl_se, 5),
            quality.tokens,
            measured.corpus
        )?;
    }
    writeln!(Stdout, "± are standard errors by {}", measured.errors_by)?;
    Ok(())
}

/// A measurement in JSON.
fn shown(measurement: &Measurement) -> Value {
    let Measurement { corpus, errors_by, quality } = measurement;
    let [fp32, before, after] = [0, 1, 2].map(|i| &quality[i]);
    json!({
        "corpus": corpus, "errors_by": errors_by, "fp32": fp32, "before": before, "after": after,
    })
}
