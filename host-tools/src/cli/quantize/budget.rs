//! `resnet-bk quantize --target-bytes | --target-ratio | --max-kl`.

use crate::budget::{self, Bench, Found, Progress, Search};
use crate::cli::Global;
use crate::cli::common::{Loaded, bar, note, parse_blob, set};
use crate::corpus::Split;
use crate::error::{Error, Result};
use crate::eval;
use crate::eval::text::Tokens;
use crate::importance::Importance;
use crate::policy::Assignment;
use crate::quantize::encode::Storage;
use crate::quantize::{Origin, Source};
use crate::reference::Model;

use super::{Args, Made, preview, write};

/// What a budget is for.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(id = "targets", multiple = false, conflicts_with = "policy")]
pub(super) struct Target {
    /// The best blob of at most so many bytes, everything counted.
    #[arg(long, value_name = "N")]
    target_bytes: Option<usize>,
    /// The best blob that is at least so many times smaller than the checkpoint file.
    #[arg(long, value_name = "R")]
    target_ratio: Option<f64>,
    /// The smallest blob that loses at most this KL divergence, in nats per token, on the text that
    /// it is measured on, through the integer path.
    #[arg(long, value_name = "X")]
    max_kl: Option<f64>,
}

/// Tokens that sensitivities are measured on where `--measure-tokens` asks for none.
const FALLBACK_TOKENS: usize = 8_192;
/// Halvings of the range of sizes in search of the smallest one within a KL divergence.
const HALVINGS: usize = 9;

pub(super) fn run(args: &Args, loaded: &Loaded, source: &Source, global: Global) -> Result<()> {
    let tokenizer = loaded.tokenizer.as_ref();
    let (calibration, text) =
        args.text.calibrate(source, args.calibration_tokens, tokenizer, global)?;
    let folded = Model::from_checkpoint(&source.folded);
    let tokens = if args.measure_tokens > 0 { args.measure_tokens } else { FALLBACK_TOKENS };
    let held_out =
        args.text.tokens(Split::Valid, Some(tokens), Some(&folded), tokenizer, global)?;
    let bench = Bench::new(source, &calibration, &held_out.tokens, args.text.window);
    let table = sensitivities(args, loaded, &bench, (&text, &held_out), global)?;
    let search = Search::new(&bench, &table)?;
    let origin = Origin {
        calibration: &text.name,
        calibration_tokens: text.tokens.len() as u32,
        seed: args.text.seed,
        measured: (args.measure_tokens > 0).then(|| resnet_bk_core::blob::Measured {
            corpus: &held_out.name,
            tokens: held_out.tokens.len() as u32 - 1,
            perplexity_fp32: 0.0,
            perplexity: 0.0,
        }),
    };
    let overhead = overhead(source, &origin)?;
    let Target { target_bytes, target_ratio, max_kl } = args.target;
    let job = Job { args, bench: &bench, held_out: &held_out, origin, global };
    let found = match (target_bytes, target_ratio, max_kl) {
        (Some(bytes), ..) => job.within(&search, bytes, overhead, loaded.bytes)?,
        (_, Some(ratio), _) if ratio.is_finite() && ratio > 0.0 => {
            let bytes = (loaded.bytes as f64 / ratio) as usize;
            job.within(&search, bytes, overhead, loaded.bytes)?
        }
        (_, Some(ratio), _) => {
            return Err(Error::Usage(format!("--target-ratio {ratio} is not a positive number")));
        }
        (.., Some(limit)) => job.below(&search, limit)?,
        (None, None, None) => return Err(Error::Usage("name a policy or a target".into())),
    };
    note(
        global,
        &format!(
            "the weights lose {:.5} nats a token together; one by one they sum to {:.5}",
            found.measured, found.predicted
        ),
    );
    let assignment = budget_assignment(&found.storage);
    if args.dry_run {
        return preview(loaded, source, &assignment, &job.origin, global);
    }
    let encoded = bench.encode_mix(&found.storage)?;
    write(args, loaded, source, &Made { assignment, encoded, text: text.clone() }, global)
}

fn budget_assignment(storage: &[Storage]) -> Assignment {
    Assignment { name: "budget".into(), storage: storage.to_vec(), potentials_int8: false }
}

/// The table, from the importance file as far as it has it, and written there as it grows.
fn sensitivities(
    args: &Args,
    loaded: &Loaded,
    bench: &Bench<'_>,
    (text, held_out): (&Tokens, &Tokens),
    global: Global,
) -> Result<budget::Sensitivities> {
    let path = args.importance.as_deref();
    let mut importance = match path.filter(|path| path.exists()) {
        Some(path) => loaded.importance(path)?,
        None => super::publish(args, loaded, text, global),
    };
    if importance.measured.is_empty() {
        importance.measured_on.clone_from(&held_out.name);
        importance.measured_tokens = held_out.tokens.len();
    }
    let progress = bar("measured importance", global);
    let known = importance.measured.clone();
    let table = budget::measure(bench, &known, |table, share| {
        set(&progress, share);
        let importance = Importance { measured: table.clone(), ..importance.clone() };
        path.map_or(Ok(()), |path| importance.write(path))
    })?;
    progress.finish_and_clear();
    Ok(table)
}

/// Bytes of a blob beside the aligned sections of its matrices.
fn overhead(source: &Source, origin: &Origin<'_>) -> Result<usize> {
    let storage = vec![Storage::INT8; source.dims.tensor_count()];
    let sections: usize = source
        .dims
        .tensors()
        .map(|id| resnet_bk_core::blob::align_up(source.section_len(id, Storage::INT8)))
        .sum();
    Ok(source.predict(&budget_assignment(&storage), origin)? - sections)
}

struct Job<'a> {
    args: &'a Args,
    bench: &'a Bench<'a>,
    held_out: &'a Tokens,
    origin: Origin<'a>,
    global: Global,
}

impl Job<'_> {
    /// The best mix whose blob has at most `bytes`.
    fn within(
        &self,
        search: &Search<'_>,
        bytes: usize,
        overhead: usize,
        fp32: u64,
    ) -> Result<Found> {
        let capacity = bytes.saturating_sub(overhead);
        self.best(search, capacity)?.ok_or_else(|| {
            let smallest = search.range().0 + overhead;
            Error::Budget(format!(
                "no mix of precisions fits {bytes} bytes: the smallest has {smallest}, {:.2}× \
                 smaller than the checkpoint",
                fp32 as f64 / smallest as f64
            ))
        })
    }

    fn best(&self, search: &Search<'_>, capacity: usize) -> Result<Option<Found>> {
        let progress = bar("searching", self.global);
        let found = search.best(capacity, |at| match at {
            Progress::Mix(_) => set(&progress, 0.0),
            Progress::Steps(share) => set(&progress, share),
        });
        progress.finish_and_clear();
        found
    }

    /// The smallest mix that loses at most `limit` through the integer path, whose rounding of
    /// activations comes on top of what the weights lose.
    fn below(&self, search: &Search<'_>, limit: f64) -> Result<Found> {
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

    /// KL divergence of a mix through the integer path, on the text that is measured on.
    fn integer_kl(&self, storage: &[Storage]) -> Result<f64> {
        let assignment = budget_assignment(storage);
        let (source, encoded) = (self.bench.source(), self.bench.encode_mix(storage)?);
        let blob = source.assemble(&encoded, &assignment, &self.origin)?;
        let reference = Model::from_checkpoint(&source.folded);
        let model = parse_blob(&blob, std::path::Path::new("the blob"))?;
        let quality = eval::evaluate(
            Some(&reference),
            &[model],
            &self.held_out.tokens,
            self.args.text.window,
            None,
            |_| {},
        )?;
        Ok(quality[1].fidelity.as_ref().map_or(0.0, |fidelity| fidelity.kl))
    }
}
