//! `resnet-bk eval`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use resnet_bk_core as core;
use resnet_bk_schema::outputs::{Evaluation, Quality, Scored};

use super::common::{
    Loaded, TextArgs, bar, carried, check_tokenizer, escaped, hex, is_blob, parse_blob, print_json,
    set,
};
use crate::checkpoint::Chain;
use crate::cli::Global;
use crate::cli::numbers;
use crate::corpus::Split;
use crate::error::{Error, Result};
use crate::eval::{self, Subject};
use crate::files::Content;
use crate::memory::Copies;
use crate::quantize::substitute::substitute;
use crate::reference::Model;
use crate::table::table;
use crate::terminal::Stdout;
use crate::tokenizer::Tokenizer;
use resnet_bk_schema::statistics::with_error;

const EXAMPLES: &str = "\
Examples:
  A checkpoint and its blobs on the test split of a corpus:
      resnet-bk eval model.safetensors static.rbk int8.rbk --corpus data/wikitext-2

  Without a corpus, on text sampled from the FP32 model with a seed:
      resnet-bk eval model.safetensors static.rbk --tokens 32768 --seed 7

  On any text file:
      resnet-bk eval model.safetensors static.rbk --text book.txt

  A model of another program on its own tokenizer, or on token ids that its tokenizer wrote:
      resnet-bk eval model.safetensors int8.rbk --tokenizer gpt2/tokenizer.json --text book.txt
      resnet-bk eval model.safetensors int8.rbk --text book.npy

  A blob alone, with the tokenizer that it contains:
      resnet-bk eval static.rbk --text book.txt

  The loss from quantized weights alone, with activations in FP32:
      resnet-bk eval model.safetensors static.rbk --weights-only

Protocol: consecutive windows, each with a fresh state; every token predicts the next one.
Blobs run through the integer path that also runs on devices.

Bits per byte count the bytes of the text as it is in the file, whatever a tokenizer replaces or
leaves out; for token ids without a tokenizer that knows their bytes there are bits per token.

Standard errors (±): windows of one article are correlated, so errors are computed over blocks, by a
jackknife that leaves out one block at a time. Blocks are the articles of a text, if it has several
(lines ` = Title = ` between blank ones, as in WikiText); the streams of a text sampled from the
model; otherwise runs of 8,192 tokens, or an eighth of a shorter text. A window belongs to the
article of its first token. The errors of rise and KL compare each block with FP32. A text of one
block has none (–). `--json` says what the blocks are; its kl_replicates, the KL divergence without
each block, give the error of any comparison of two blobs.";

/// Measure perplexity and fidelity of a checkpoint and of blobs.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`eval --help` shows examples and the protocol.")]
pub(crate) struct Args {
    /// Checkpoint (safetensors) and blobs, in any order; KL needs the checkpoint.
    #[arg(required = true)]
    models: Vec<PathBuf>,
    /// Split of the corpus.
    #[arg(long, value_enum, default_value_t = SplitArg::Test)]
    split: SplitArg,
    /// Score at most this many tokens, from the middle of the text [default: all; 16384 where
    /// sampled].
    #[arg(long, value_parser = numbers::tokens(1), value_name = "N")]
    tokens: Option<usize>,
    /// Tokenizer, if there is no tokenizer.json beside the checkpoint and none in the blobs; must
    /// be the one that the models were trained with.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Put the dequantized weights and biases of each blob into the FP32 model instead of running
    /// the blob: the loss without rounding of activations.
    #[arg(long)]
    weights_only: bool,
    #[command(flatten)]
    text: TextArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SplitArg {
    Train,
    Valid,
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Valid => Self::Valid,
            SplitArg::Test => Self::Test,
        }
    }
}

pub(crate) fn run(mut args: Args, global: Global) -> Result<()> {
    let mut loaded: Option<Loaded> = None;
    let mut blobs: Vec<(PathBuf, Content)> = Vec::new();
    for path in &args.models {
        let bytes = Content::of(path)?;
        if is_blob(&bytes) {
            blobs.push((path.clone(), bytes));
        } else if loaded.is_some() {
            return Err(Error::Usage(
                "`eval` compares blobs with one checkpoint, but two were given".into(),
            ));
        } else {
            loaded = Some(Loaded::read(path, args.tokenizer.as_deref(), global)?);
        }
    }
    if let Some(loaded) = &loaded {
        Copies::EVAL.require(loaded.checkpoint.config.parameters())?;
    }
    let models =
        blobs.iter().map(|(path, bytes)| parse_blob(bytes, path)).collect::<Result<Vec<_>>>()?;
    if let Some(loaded) = &loaded {
        for (model, (path, _)) in models.iter().zip(&blobs) {
            if model.provenance().source_sha256 != loaded.sha256 {
                return Err(Error::Usage(format!(
                    "{} was made from another checkpoint ({}…, this one is {}…)",
                    path.display(),
                    &hex(model.provenance().source_sha256).get(..12).unwrap_or(""),
                    &loaded.sha256_hex()[..12]
                )));
            }
        }
    }
    let tables = models.iter().map(|model| model.dims().positions as usize).filter(|&n| n > 0);
    let of_checkpoint = loaded.as_ref().and_then(|loaded| loaded.checkpoint.config.positions);
    let vocabularies = models.iter().map(|model| model.dims().vocab as usize);
    let vocabularies = vocabularies.chain(loaded.as_ref().map(|l| l.checkpoint.config.vocab));
    args.text.fit(tables.chain(of_checkpoint).min(), vocabularies.min().unwrap_or(0))?;
    let tokenizer = tokenizer(args.tokenizer.as_deref(), loaded.as_mut(), &models, &blobs)?;
    let tokenizer = tokenizer.as_ref();
    let reference = loaded.as_ref().map(|loaded| Model::from_checkpoint(&loaded.checkpoint));
    let source = args.text.source(args.split.into())?.whole();
    let text = args.text.read(&source, args.tokens, reference.as_ref(), tokenizer, global)?;
    let blocks = text.blocks(args.text.window);
    let progress = bar("evaluating", global);
    let subjects = match &loaded {
        Some(loaded) if args.weights_only => {
            let source = loaded.source()?;
            models.iter().map(|model| Subject::Weights(substitute(&source, model))).collect()
        }
        None if args.weights_only => {
            return Err(Error::Usage(
                "--weights-only needs the checkpoint that the blobs were made from".into(),
            ));
        }
        _ => models.iter().cloned().map(Subject::Blob).collect::<Vec<_>>(),
    };
    let qualities = eval::evaluate(
        reference.as_ref(),
        &subjects,
        &text.tokens,
        &blocks,
        text.bytes.as_deref(),
        |share| set(&progress, share),
    )?;
    progress.finish_and_clear();

    let sees_targets = loaded.as_ref().is_some_and(|l| l.checkpoint.config.chain == Chain::Full)
        || models.iter().any(|model| !model.is_causal());
    let fp32_bytes = loaded.as_ref().map(|loaded| loaded.bytes);
    let (fp32, of_blobs) = qualities.split_at(usize::from(loaded.is_some()));
    if global.json {
        let row =
            |((model, (path, bytes)), quality): ((&core::Model<'_>, &(_, Content)), &Quality)| {
                Scored {
                    path: Some(escaped(path)),
                    policy: Some(model.provenance().policy.to_owned()),
                    name: None,
                    blob_bytes: bytes.len() as u64,
                    quality: quality.clone(),
                }
            };
        print_json(&Evaluation {
            corpus: text.name,
            window: args.text.window,
            weights_only: args.weights_only,
            fp32_bytes,
            errors_by: blocks.describe(),
            blocks,
            fp32: fp32.first().cloned(),
            blobs: models.iter().zip(&blobs).zip(of_blobs).map(row).collect(),
        })?;
    } else {
        let mut names: Vec<(String, Option<usize>)> =
            fp32.iter().map(|_| ("fp32".into(), None)).collect();
        names.extend(
            models.iter().zip(&blobs).map(|(model, (_, bytes))| {
                (model.provenance().policy.to_string(), Some(bytes.len()))
            }),
        );
        print(&names, &qualities, fp32_bytes)?;
        writeln!(
            Stdout,
            "{} predictions on {} in windows of {} with the state reset; ± are standard errors by {}",
            qualities.first().map_or(0, |quality| quality.tokens),
            text.name,
            args.text.window,
            blocks.describe()
        )?;
        if sees_targets {
            writeln!(
                Stdout,
                "full chains see the tokens that they predict: their perplexity is none of a \
                 language model, KL and top-1 are what compares a blob"
            )?;
        }
    }
    Ok(())
}

/// The tokenizer of the checkpoint, otherwise the given one, otherwise that of the blobs. Every
/// blob with a tokenizer must contain the same one.
fn tokenizer(
    named: Option<&Path>,
    loaded: Option<&mut Loaded>,
    models: &[core::Model<'_>],
    blobs: &[(PathBuf, Content)],
) -> Result<Option<Tokenizer>> {
    let of_checkpoint = loaded.and_then(|loaded| loaded.tokenizer.take());
    let blobs = || models.iter().zip(blobs.iter().map(|(path, _)| path));
    let of_blobs = || {
        let name = |path: &Path| format!("the tokenizer of {}", path.display());
        let first = |(model, path): (_, &PathBuf)| match carried(model) {
            Ok(tokenizer) => Some(Ok((name(path), tokenizer?))),
            Err(error) => Some(Err(error)),
        };
        blobs().find_map(first).transpose()
    };
    let found = match (of_checkpoint, named) {
        (Some(tokenizer), Some(path)) => Some((path.display().to_string(), tokenizer)),
        (Some(tokenizer), None) => Some(("the checkpoint's tokenizer".into(), tokenizer)),
        (None, Some(path)) => Some((path.display().to_string(), Tokenizer::load(path)?)),
        (None, None) => of_blobs()?,
    };
    if let Some((name, tokenizer)) = &found {
        for (model, path) in blobs() {
            check_tokenizer(tokenizer, name, model, path)?;
        }
    }
    Ok(found.map(|(_, tokenizer)| tokenizer))
}

fn print(
    names: &[(String, Option<usize>)],
    qualities: &[Quality],
    fp32_bytes: Option<u64>,
) -> Result<()> {
    let in_bytes = qualities.iter().any(|quality| quality.bits_per_byte.is_some());
    let mut rows = table(&[
        "model",
        "bytes",
        "ratio",
        "perplexity",
        "rise %",
        if in_bytes { "bits/byte" } else { "bits/token" },
        "KL",
        "KL p99",
        "KL max",
        "top-1 %",
        "thread s",
    ]);
    for ((name, bytes), quality) in names.iter().zip(qualities) {
        let dash = || "–".to_string();
        let fidelity = quality.fidelity.as_ref();
        let of = |value: Option<String>| value.unwrap_or_else(dash);
        let ratio = bytes.zip(fp32_bytes).map(|(blob, fp32)| fp32 as f64 / blob as f64);
        rows.add_row([
            name.clone(),
            of(bytes.map(|b| b as u64).or(fp32_bytes).map(|b| b.to_string())),
            of(ratio.map(|r| format!("{r:.2}"))),
            with_error(format!("{:.3}", quality.perplexity), quality.perplexity_se, 3),
            of(fidelity.map(|f| {
                with_error(format!("{:+.2}", f.ppl_rise_percent), f.ppl_rise_percent_se, 2)
            })),
            match quality.bits_per_byte {
                Some(bits) => with_error(format!("{bits:.4}"), quality.bits_per_byte_se, 4),
                None if in_bytes => dash(),
                None => {
                    let bits = format!("{:.4}", quality.bits_per_token);
                    with_error(bits, quality.bits_per_token_se, 4)
                }
            },
            of(fidelity.map(|f| with_error(format!("{:.5}", f.kl), f.kl_se, 5))),
            of(fidelity.map(|f| format!("{:.4}", f.kl_p99))),
            of(fidelity.map(|f| format!("{:.3}", f.kl_max))),
            of(fidelity.map(|f| {
                with_error(format!("{:.2}", 100.0 * f.top1), f.top1_se.map(|e| 100.0 * e), 2)
            })),
            format!("{:.1}", quality.seconds),
        ]);
    }
    writeln!(Stdout, "{rows}")
}
