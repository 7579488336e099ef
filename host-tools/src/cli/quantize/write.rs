//! The finished blob, and what would become one.

use resnet_bk_core::blob::Measured;
use serde_json::json;

use super::{Made, Making};
use crate::cli::Global;
use crate::cli::common::{Loaded, bar, parse_blob, print_json, set};
use crate::corpus::Split;
use crate::error::Result;
use crate::eval;
use crate::output::Output;
use crate::policy::Assignment;
use crate::quantize::names::weight_name;
use crate::quantize::{Origin, Source};
use crate::reference::Model;
use crate::table::table;

/// Assembles the blob, measures it, writes it and says so.
pub(super) fn write(
    args: &Making,
    out: &Output,
    loaded: &Loaded,
    source: &Source,
    made: &Made,
    global: Global,
) -> Result<()> {
    let tokenizer = loaded.tokenizer.as_ref();
    let Made { assignment, encoded, mix, text } = made;
    let mut origin = Origin {
        calibration: &text.name,
        calibration_tokens: text.tokens.len() as u32,
        seed: args.text.seed,
        measured: None,
    };
    let mut blob = source.assemble(encoded, assignment, &origin)?;
    let mut measured = None;
    let held_out;
    if args.measure_tokens > 0 {
        let reference = Model::from_checkpoint(&loaded.checkpoint);
        let limit = Some(args.measure_tokens);
        held_out = args.text.tokens(Split::Valid, limit, Some(&reference), tokenizer, global)?;
        let progress = bar("measuring", global);
        let quality = eval::evaluate(
            Some(&reference),
            &[eval::Subject::Blob(parse_blob(&blob, out.path())?)],
            &held_out.tokens,
            args.text.window,
            None,
            |share| set(&progress, share),
        )?;
        progress.finish_and_clear();
        origin.measured = Some(Measured {
            corpus: &held_out.name,
            tokens: quality[1].tokens as u32,
            perplexity_fp32: quality[0].perplexity as f32,
            perplexity: quality[1].perplexity as f32,
        });
        blob = source.assemble(encoded, assignment, &origin)?;
        measured = Some((held_out.name.clone(), quality));
    }
    out.write(&blob)?;
    if out.is_standard_output() {
        return Ok(());
    }
    let ratio = loaded.bytes as f64 / blob.len() as f64;
    if global.json {
        print_json(&json!({
            "policy": assignment.name,
            "out": out.path(),
            "blob_bytes": blob.len(),
            "fp32_bytes": loaded.bytes,
            "ratio": ratio,
            "calibration": text.name,
            "weights": mix.as_ref().map(|mix| json!({
                "predicted_kl": mix.predicted, "measured_kl": mix.measured,
            })),
            "measured": measured.map(|(corpus, quality)| json!({
                "corpus": corpus, "fp32": quality[0], "blob": quality[1],
            })),
        }));
    } else {
        println!(
            "{}: {} bytes, {ratio:.2}× smaller, {}",
            out.path().display(),
            blob.len(),
            summary(assignment)
        );
        if let Some((corpus, quality)) = measured {
            let fidelity = quality[1].fidelity.as_ref();
            println!(
                "perplexity {:.3} → {:.3} ({:+.2} %) on {} tokens of {corpus}; calibrated on {}",
                quality[0].perplexity,
                quality[1].perplexity,
                fidelity.map_or(0.0, |f| f.ppl_rise_percent),
                quality[1].tokens,
                text.name,
            );
        }
    }
    Ok(())
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
        }));
        return Ok(());
    }
    let mut rows = table(&["tensor", "shape", "storage", "bytes"]);
    for (name, storage, out, cols, bytes) in tensors {
        let storage = storage.to_string();
        rows.add_row([name, format!("{out} × {cols}"), storage, bytes.to_string()]);
    }
    println!(
        "{rows}\n{bytes} bytes, {ratio:.2}× smaller, {}; nothing was written",
        summary(assignment)
    );
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
