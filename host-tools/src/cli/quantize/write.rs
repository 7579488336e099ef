//! Writes the finished blob, or previews it.

use resnet_bk_core::blob::Measured;
use resnet_bk_schema::Storage;
use resnet_bk_schema::outputs::{
    Measurement, Preview, Quality, Quantized, StoredTensor, WeightLoss, Written,
};

use super::flags::QuantizeArgs;
use super::model::QuantizedModel;
use crate::cli::Global;
use crate::cli::common::{Loaded, bar, escaped, parse_blob, print_json, set};
use crate::error::{Error, Result};
use crate::eval;
use crate::eval::text::Tokens;
use crate::output::Output;
use crate::quantize::{Origin, Source};
use crate::reference::Model;
use crate::table::table;
use crate::tensors::Assignment;
use crate::tensors::weight_name;
use crate::terminal::Stdout;
use resnet_bk_schema::statistics::with_error;

/// Assembles, measures and writes the blob, and prints a summary.
pub(super) fn write(
    args: &QuantizeArgs,
    out: &Output,
    loaded: &Loaded,
    source: &Source,
    made: &QuantizedModel,
    global: Global,
) -> Result<()> {
    let QuantizedModel { assignment, encoded, mix, text, recorded } = made;
    let mut origin = args.origin(text, None);
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
        print_json(&Quantized {
            written: Written {
                policy: assignment.name.clone(),
                out: escaped(out.path()),
                blob_bytes: blob.len() as u64,
                fp32_bytes: loaded.bytes,
                ratio,
            },
            calibration: text.name.clone(),
            weights: mix
                .as_ref()
                .map(|mix| WeightLoss { predicted_kl: mix.predicted, measured_kl: mix.measured }),
            chosen: chosen.map(measurement),
            measured: measured.map(measurement),
        })?;
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

/// Quality of the checkpoint and of the blob on one text.
fn measurement((corpus, errors_by, quality): (String, String, Vec<Quality>)) -> Measurement {
    let [fp32, blob] = [0, 1].map(|i| quality[i].clone());
    Measurement { corpus, errors_by, fp32, blob }
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
    let tensors = source.dims.tensors().zip(&assignment.storage).map(|(id, &storage)| {
        let (rows, cols) = source.shape(id);
        (weight_name(id), storage, rows, cols, source.section_len(id, storage))
    });
    if global.json {
        let tensor = |(name, storage, rows, cols, bytes): (_, Storage, _, _, _)| StoredTensor {
            name,
            precision: storage.precision.name().to_owned(),
            group: storage.group,
            rows,
            cols,
            bytes,
        };
        return print_json(&Preview {
            policy: assignment.name.clone(),
            blob_bytes: bytes as u64,
            fp32_bytes: loaded.bytes,
            ratio,
            tensors: tensors.map(tensor).collect(),
        });
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
