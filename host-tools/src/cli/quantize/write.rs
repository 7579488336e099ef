//! The finished blob, and what would become one.

use resnet_bk_core::blob::Measured;
use serde_json::json;

use super::{Made, Making};
use crate::cli::Global;
use crate::cli::common::{Loaded, bar, escaped, parse_blob, print_json, set};
use crate::error::{Error, Result};
use crate::eval;
use crate::eval::Quality;
use crate::eval::statistics::with_error;
use crate::eval::text::Tokens;
use crate::output::Output;
use crate::policy::Assignment;
use crate::quantize::names::weight_name;
use crate::quantize::{Origin, Source};
use crate::reference::Model;
use crate::table::table;
use crate::terminal::Stdout;

/// Assembles the blob, measures it, writes it and says so.
pub(super) fn write(
    args: &Making,
    out: &Output,
    loaded: &Loaded,
    source: &Source,
    made: &Made,
    global: Global,
) -> Result<()> {
    let Made { assignment, encoded, mix, text, recorded } = made;
    let mut origin = Origin {
        calibration: &text.name,
        calibration_tokens: text.tokens.len() as u32,
        seed: args.text.seed,
        measured: None,
    };
    let mut blob = source.assemble(encoded, assignment, &origin)?;
    let reference = Model::from_checkpoint(&loaded.checkpoint);
    let measure = |text: &Tokens| {
        let subjects = [eval::Subject::Blob(parse_blob(&blob, out.path())?)];
        let blocks = text.blocks(args.text.window);
        let progress = bar("measuring", global);
        let show = |share| set(&progress, share);
        let quality =
            eval::evaluate(Some(&reference), &subjects, &text.tokens, &blocks, None, show)?;
        progress.finish_and_clear();
        Ok::<_, Error>((text.name.clone(), blocks.describe(), quality))
    };
    let chosen = mix.as_ref().map(|mix| measure(&mix.chosen_on)).transpose()?;
    let measured = recorded.as_ref().map(measure).transpose()?;
    if let Some((corpus, _, quality)) = &measured {
        origin.measured = Some(Measured {
            corpus,
            tokens: quality[1].tokens as u32,
            perplexity_fp32: quality[0].perplexity as f32,
            perplexity: quality[1].perplexity as f32,
        });
        blob = source.assemble(encoded, assignment, &origin)?;
    }
    out.write(&blob)?;
    if out.is_standard_output() {
        return Ok(());
    }
    let ratio = loaded.bytes as f64 / blob.len() as f64;
    if global.json {
        print_json(&json!({
            "policy": assignment.name,
            "out": escaped(out.path()),
            "blob_bytes": blob.len(),
            "fp32_bytes": loaded.bytes,
            "ratio": ratio,
            "calibration": text.name,
            "weights": mix.as_ref().map(|mix| json!({
                "predicted_kl": mix.predicted, "measured_kl": mix.measured,
            })),
            "chosen": chosen.map(shown),
            "measured": measured.map(shown),
        }))?;
    } else {
        writeln!(
            Stdout,
            "{}: {} bytes, {ratio:.2}× smaller, {}",
            out.path().display(),
            blob.len(),
            summary(assignment)
        )?;
        if let Some((corpus, errors_by, quality)) = &measured {
            let [fp32, blob] = [0, 1].map(|i| &quality[i]);
            write!(Stdout, "perplexity {:.3} → {:.3} ", fp32.perplexity, blob.perplexity)?;
            if let Some(f) = &blob.fidelity {
                let rise = format!("{:+.2}", f.ppl_rise_percent);
                write!(Stdout, "({} %), ", with_error(rise, f.ppl_rise_percent_se, 2))?;
                write!(Stdout, "KL {} ", with_error(format!("{:.5}", f.kl), f.kl_se, 5))?;
            }
            writeln!(
                Stdout,
                "on {} tokens of {corpus} (standard errors by {errors_by}); calibrated on {}",
                blob.tokens, text.name
            )?;
        }
        if let Some((corpus, _, quality)) = &chosen
            && let Some(fidelity) = &quality[1].fidelity
        {
            writeln!(Stdout, "KL {:.5} on {corpus}, which chose the precisions", fidelity.kl)?;
        }
    }
    Ok(())
}

/// A measurement in JSON.
fn shown((corpus, errors_by, quality): (String, String, Vec<Quality>)) -> serde_json::Value {
    json!({ "corpus": corpus, "errors_by": errors_by, "fp32": quality[0], "blob": quality[1] })
}

/// Prints the exact size and the storage of every tensor.
pub(super) fn preview(
    loaded: &Loaded,
    source: &Source,
    assignment: &Assignment,
    origin: &Origin<'_>,
    global: Global,
) -> Result<()> {
    let bytes = source.predict(assignment, origin)?;
    let ratio = loaded.bytes as f64 / bytes as f64;
    let tensors: Vec<_> = source
        .dims
        .tensors()
        .zip(&assignment.storage)
        .map(|(id, storage)| {
            let (rows, cols) = source.shape(id);
            (weight_name(id), storage, rows, cols, source.section_len(id, *storage))
        })
        .collect();
    if global.json {
        let tensors: Vec<_> = tensors
            .iter()
            .map(|(name, storage, rows, cols, bytes)| {
                json!({
                    "name": name, "precision": storage.precision.name(), "group": storage.group,
                    "rows": rows, "cols": cols, "bytes": bytes,
                })
            })
            .collect();
        print_json(&json!({
            "policy": assignment.name, "blob_bytes": bytes, "fp32_bytes": loaded.bytes,
            "ratio": ratio, "tensors": tensors,
        }))?;
        return Ok(());
    }
    let mut rows = table(&["tensor", "shape", "storage", "bytes"]);
    for (name, storage, out, cols, bytes) in tensors {
        let storage = storage.to_string();
        rows.add_row([name, format!("{out} × {cols}"), storage, bytes.to_string()]);
    }
    writeln!(
        Stdout,
        "{rows}\n{bytes} bytes, {ratio:.2}× smaller, {}; nothing was written",
        summary(assignment)
    )?;
    Ok(())
}

fn summary(assignment: &Assignment) -> String {
    let counts: Vec<String> = assignment
        .counts()
        .into_iter()
        .map(|(precision, count)| format!("{count} {}", precision.name()))
        .collect();
    format!("policy {}: {}", assignment.name, counts.join(", "))
}
