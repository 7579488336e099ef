//! `resnet-bk quantize --target-bytes | --target-ratio | --max-kl`.

use std::collections::BTreeMap;
use std::path::Path;

use resnet_bk_schema::{Step, Storage};

use super::flags::{QuantizeArgs, Target};
use super::kept::KeptMeasurements;
use super::model::{QuantizedModel, TargetMix};
use super::write::preview;
use crate::budget::{self, Bench, Mix, Progress, Search};
use crate::cli::Global;
use crate::cli::common::{Loaded, TextArgs, bar, note, parse_blob, set};
use crate::cli::measured::Measuring;
use crate::corpus::Split;
use crate::error::{Error, Result};
use crate::eval;
use crate::eval::text::Tokens;
use crate::files;
use crate::importance::Importance;
use crate::quantize::calibration::Calibration;
use crate::quantize::{Origin, Source};
use crate::reference::Model;
use crate::tensors::Assignment;
use crate::tokenizer::Tokenizer;

/// Bisection steps over blob size in the search for `--max-kl`.
const HALVINGS: usize = 9;

/// Steps that a round of the search measures where the table is estimated.
const REMEASURED: usize = 64;

/// Quantizes to the target; a dry run prints the result and returns `None`.
pub(super) fn make(
    args: &QuantizeArgs,
    loaded: &Loaded,
    source: &mut Source,
    importance: Option<Importance>,
    dry_run: bool,
    global: Global,
) -> Result<Option<QuantizedModel>> {
    let tokenizer = loaded.tokenizer.as_ref();
    let (mut calibration, text) =
        args.text.calibrate(source, args.calibration_tokens, tokenizer, global)?;
    let folded = Model::from_checkpoint(&source.folded);
    let limit = Some(args.measured_on());
    let held_out = args.text.tokens(Split::Valid, limit, Some(&folded), tokenizer, global)?;
    let settings = args.settings(loaded, &text);
    let kept = args.kept.as_ref().filter(|_| args.importance.is_none());
    // Without a file, the path is not used in messages.
    let path = args.importance.as_deref().or(kept.map(KeptMeasurements::path));
    let path = path.unwrap_or(Path::new(""));
    let mut importance = match (importance, kept) {
        (Some(importance), _) => {
            importance.require(&settings, path)?;
            importance
        }
        (None, Some(kept)) => match kept.read(loaded, &settings)? {
            Some(before) => {
                note(global, &format!("resuming with the measurements in {}", path.display()));
                before
            }
            None => Importance::new(settings, BTreeMap::new()),
        },
        (None, None) => Importance::new(settings, BTreeMap::new()),
    };
    let save = |importance: &Importance| match (&args.importance, kept) {
        (Some(path), _) => files::write_atomically(path, &importance.to_bytes()),
        (None, Some(kept)) => kept.write(importance),
        (None, None) => Ok(()),
    };
    let measuring = Measuring {
        text: &args.text,
        held_out: &held_out,
        estimates: args.table.estimates(&source.folded.config),
        path,
        save: &save,
        global,
    };
    measuring.arrange(source, &mut calibration, &mut importance)?;
    let source = &*source;
    let bench = measuring.bench(source, &calibration);
    measuring.measure(&bench, &mut importance, None)?;
    let table = match measuring.estimates {
        true => budget::estimate(&bench, &importance.measured)?,
        false => importance.measured,
    };
    let mut search = Search::new(&bench, &table, args.limit.limit()?.as_ref())?;
    if measuring.estimates {
        search = search.remeasuring(REMEASURED);
    }
    let recorded = args.recorded(&folded, tokenizer, global)?;
    let origin = args.origin(&text, recorded.as_ref());
    let overhead = overhead(args, source, &origin)?;
    let Target { target_bytes, target_ratio, max_kl } = args.target;
    let search_for = TargetSearch { args, bench: &bench, held_out: &held_out, origin, global };
    let within = |bytes: usize| {
        let found = search_for.within(&search, bytes, overhead, loaded.bytes)?;
        Ok::<_, Error>((found, bytes.saturating_sub(overhead)))
    };
    let (found, capacity) = match (target_bytes, target_ratio, max_kl) {
        (Some(bytes), ..) => within(bytes)?,
        (_, Some(ratio), _) => within((loaded.bytes as f64 / ratio) as usize)?,
        (.., Some(limit)) => {
            let found = search_for.below(&search, limit)?;
            let bytes = found.bytes;
            (found, bytes)
        }
        (None, None, None) => {
            return Err(Error::Usage(
                "name --policy or a target: --target-bytes, --target-ratio or --max-kl".into(),
            ));
        }
    };
    note(
        global,
        &format!(
            "all weights together lose {:.5} nats a token; the losses of each alone sum to {:.5}",
            found.measured, found.predicted
        ),
    );
    let assignment = budget_assignment(args, &found.storage);
    if dry_run {
        preview(loaded, source, &assignment, &origin, global)?;
        return Ok(None);
    }
    let mut encoded = bench.encode_mix(&found.storage)?;
    let mut measured = found.measured;
    if source.steps.has(Step::Prefix) {
        let (refined, kl) = args.refine(&bench, &text, encoded, global)?;
        note(
            global,
            &format!(
                "with biases corrected for the inputs from quantized layers, they lose {kl:.5}"
            ),
        );
        (encoded, measured) = (refined, kl);
    }
    let mix =
        TargetMix { chosen_on: held_out, predicted: found.predicted, measured, capacity, table };
    Ok(Some(QuantizedModel { assignment, encoded, mix: Some(mix), text, recorded }))
}

impl QuantizeArgs {
    /// Requantizes changed weights with another mix of at most the same size, searched from the
    /// current mix and compared by KL divergence to `teacher`. `None` if the current mix stays best
    /// or was not chosen for a target.
    pub(in crate::cli) fn make_again(
        &self,
        source: &Source,
        before: &QuantizedModel,
        teacher: &Model,
        tokenizer: Option<&Tokenizer>,
        global: Global,
    ) -> Result<Option<QuantizedModel>> {
        let Some(TargetMix { capacity, table, .. }) = &before.mix else { return Ok(None) };
        let TextArgs { window, seed, .. } = self.text;
        let (text, folded) = (&before.text, Model::from_checkpoint(&source.folded));
        let progress = bar("calibrating", global);
        let calibration = Calibration::collect(&folded, &text.tokens, window, seed, |share| {
            set(&progress, share);
        })?;
        progress.finish_and_clear();
        let limit = Some(self.measured_on());
        let held_out = self.text.tokens(Split::Valid, limit, Some(teacher), tokenizer, global)?;
        let bench = Bench::towards(teacher, source, &calibration, &held_out.tokens, window);
        let storage = &before.assignment.storage;
        let progress = bar("searching", global);
        let limit = self.limit.limit()?;
        let found = Search::new(&bench, table, limit.as_ref())?.improve(storage, *capacity, |at| {
            if let Progress::Steps(share) = at {
                set(&progress, share);
            }
        });
        progress.finish_and_clear();
        let Some(found) = found?.filter(|found| found.storage != *storage) else { return Ok(None) };
        let Mix { predicted, measured, ref storage, .. } = found;
        let (assignment, encoded) = (budget_assignment(self, storage), bench.encode_mix(storage)?);
        let (capacity, table, recorded) = (*capacity, table.clone(), before.recorded.clone());
        let mix = TargetMix { chosen_on: held_out, predicted, measured, capacity, table };
        Ok(Some(QuantizedModel {
            assignment,
            encoded,
            mix: Some(mix),
            text: text.clone(),
            recorded,
        }))
    }
}

fn budget_assignment(args: &QuantizeArgs, storage: &[Storage]) -> Assignment {
    Assignment {
        name: format!("budget{}", args.suffix),
        storage: storage.to_vec(),
        potentials_int8: false,
    }
}

/// Bytes of a blob outside the aligned sections of its matrices.
fn overhead(args: &QuantizeArgs, source: &Source, origin: &Origin<'_>) -> Result<usize> {
    let storage = vec![Storage::INT8; source.dims.tensor_count()];
    let sections: usize = source
        .dims
        .tensors()
        .map(|id| resnet_bk_core::blob::align_up(source.section_len(id, Storage::INT8)))
        .sum();
    Ok(source.predict(&budget_assignment(args, &storage), origin)? - sections)
}

/// A search for the mix that meets a target.
struct TargetSearch<'a> {
    args: &'a QuantizeArgs,
    bench: &'a Bench<'a>,
    held_out: &'a Tokens,
    origin: Origin<'a>,
    global: Global,
}

impl TargetSearch<'_> {
    /// The best mix whose blob has at most `bytes`.
    fn within(&self, search: &Search<'_>, bytes: usize, overhead: usize, fp32: u64) -> Result<Mix> {
        let capacity = bytes.saturating_sub(overhead);
        self.best(search, capacity)?.ok_or_else(|| {
            let smallest = search.range().0 + overhead;
            if smallest <= bytes {
                return Error::Budget(format!(
                    "no mix of precisions fits {bytes} bytes with so few instructions"
                ));
            }
            Error::Budget(format!(
                "no mix of precisions fits {bytes} bytes: the smallest has {smallest}, {:.2}× \
                 smaller than the checkpoint",
                fp32 as f64 / smallest as f64
            ))
        })
    }

    fn best(&self, search: &Search<'_>, capacity: usize) -> Result<Option<Mix>> {
        let progress = bar("searching", self.global);
        let found = search.best(capacity, |at| match at {
            Progress::Mix(_) => set(&progress, 0.0),
            Progress::Steps(share) => set(&progress, share),
        });
        progress.finish_and_clear();
        found
    }

    /// The smallest mix that loses at most `limit` on the integer path, where rounding of
    /// activations adds to the loss of the weights.
    fn below(&self, search: &Search<'_>, limit: f64) -> Result<Mix> {
        let (smallest, largest) = search.range();
        let mut activations = 0.0;
        let mut closest = f64::INFINITY;
        for _ in 0..4 {
            let wanted = limit - activations;
            let (mut low, mut high) = (smallest, largest);
            for _ in 0..HALVINGS {
                let middle = low.midpoint(high);
                match search.first(middle)? {
                    Some(found) if found.measured <= wanted => high = middle,
                    _ => low = middle,
                }
            }
            let Some(found) = self.best(search, high)? else { break };
            let kl = self.integer_kl(&found.storage)?;
            if kl <= limit {
                return Ok(found);
            }
            closest = closest.min(kl);
            activations += (kl - limit).max(kl - found.measured - activations);
        }
        Err(Error::Budget(format!(
            "no mix of precisions loses at most {limit} nats a token; the closest loses {closest:.5}, \
             part of it by rounding activations"
        )))
    }

    /// KL divergence of a mix on the integer path, on the held-out text.
    fn integer_kl(&self, storage: &[Storage]) -> Result<f64> {
        let assignment = budget_assignment(self.args, storage);
        let (source, encoded) = (self.bench.source(), self.bench.encode_mix(storage)?);
        let blob = source.assemble(&encoded, &assignment, &self.origin)?;
        let reference = Model::from_checkpoint(&source.folded);
        let model = parse_blob(&blob, std::path::Path::new("the blob"))?;
        let quality = eval::evaluate(
            Some(&reference),
            &[eval::Subject::Blob(model)],
            &self.held_out.tokens,
            &self.held_out.blocks(self.args.text.window),
            None,
            |_| {},
        )?;
        Ok(quality[1].fidelity.as_ref().map_or(0.0, |fidelity| fidelity.kl))
    }
}
