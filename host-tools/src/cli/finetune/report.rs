//! Output after fine-tuning.

use std::path::Path;

use resnet_bk_schema::outputs::{Finetuned, FinetuningRound, Improvement, Simulated, Written};

use super::rounds::{Round, TunedBlob};
use crate::cli::Global;
use crate::cli::common::{Loaded, escaped, print_json};
use crate::error::Result;
use crate::finetune::Summary;
use crate::terminal::Stdout;
use resnet_bk_schema::statistics::with_error;

pub(super) fn report(
    out: &Path,
    loaded: &Loaded,
    rounds: &[Round],
    best: usize,
    finished: &TunedBlob,
    global: Global,
) -> Result<()> {
    let summary = &rounds[best].summary;
    let measured = &finished.measured;
    let Improvement { fp32, before, after, .. } = measured;
    let bytes = finished.blob.len();
    let ratio = loaded.bytes as f64 / bytes as f64;
    if global.json {
        return print_json(&Finetuned {
            written: Written {
                policy: finished.policy.clone(),
                out: escaped(out),
                blob_bytes: bytes as u64,
                fp32_bytes: loaded.bytes,
                ratio,
            },
            train_tokens: rounds.iter().map(|round| round.summary.tokens).sum(),
            seconds: rounds.iter().map(|round| round.summary.seconds).sum(),
            best_round: best + 1,
            rounds: rounds.iter().map(|round| shown(&round.summary)).collect(),
            chosen: finished.chosen.clone(),
            measured: finished.measured.clone(),
        });
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

/// A round in JSON.
fn shown(summary: &Summary) -> FinetuningRound {
    FinetuningRound {
        steps: summary.steps,
        train_tokens: summary.tokens,
        best_step: summary.best_step,
        stopped_early: summary.stopped_early,
        simulated: Simulated { before: summary.before, after: summary.after },
    }
}
