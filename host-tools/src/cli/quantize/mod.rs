//! `resnet-bk quantize`.

mod budget;
mod write;

use std::path::{Path, PathBuf};

use resnet_bk_core::blob::Measured;

use crate::budget::{Bench, Sensitivities, refine};
use crate::cli::Global;
use crate::cli::common::{Force, Loaded, TextArgs, bar, model_files, set};
use crate::cli::measured::StepArgs;
use crate::cli::numbers;
use crate::corpus::Split;
use crate::error::{Error, Result};
use crate::eval::text::Tokens;
use crate::importance::{self, Importance, Settings};
use crate::output::{Kind, Output};
use crate::policy::{Assignment, Policy};
use crate::quantize::encode::{Encoded, Storage};
use crate::quantize::{Origin, Source};
use crate::reference::Model;
use crate::tokenizer::Tokenizer;
use write::{preview, write};

const EXAMPLES: &str = "\
Examples:
  The static policy: experts INT4, BK-core INT8, output layers and embeddings FP16:
      resnet-bk quantize model.safetensors --policy static --out static.rbk

  By importance that `analyze` found before:
      resnet-bk analyze model.safetensors --out importance.json
      resnet-bk quantize model.safetensors --policy dynamic --importance importance.json \\
          --out dynamic.rbk

  The best model that fits 750,000 bytes, or is 7 times smaller, or loses 0.02 nats a token; with
  the measured sensitivities of `analyze`, a target takes seconds:
      resnet-bk quantize model.safetensors --target-bytes 750000 --importance importance.json \\
          --out budget.rbk
      resnet-bk quantize model.safetensors --target-ratio 7 --importance importance.json --out 7x.rbk
      resnet-bk quantize model.safetensors --max-kl 0.02 --importance importance.json --out kl.rbk

  How large would it be?
      resnet-bk quantize model.safetensors --policy policies/compact.toml --dry-run

Policies:
  static        by kind of layer, as published
  dynamic       by published importance: top 20 % FP16, next 40 % INT8, bottom 40 % INT4
  uniform-int8  everything INT8, one scale per row
  uniform-int4  everything INT4 in groups of 32; likewise uniform-int2 to uniform-int6, uniform-fp16 and,
                with another group size, uniform-int4/16
                static and dynamic take other precisions too, high to low: static:int8,int6,int4
  FILE.toml     a base policy and overrides by tensor name (`*` stands for any characters, the last
                match wins, a pattern that matches nothing is an error):
                    name = \"mine\"
                    base = \"uniform-int8\"
                    potentials = \"full\"               # or \"int8\"
                    [[override]]
                    tensors = \"blocks.*.experts.*\"
                    precision = \"int4\"                # int2 to int6, int8 or fp16
                    group = 32                        # int2 to int6 only
  budget        what --target-bytes, --target-ratio and --max-kl ask for: the mix of int2 to int6,
                int8 and fp16 that loses least, from the measured rise in KL divergence of every
                tensor in every precision and an exact knapsack over the bytes of the blob

The same model, text and seed give the same bytes on the same kind of processor. On another kind the
FP32 sums of calibration may round differently, and some codes with them; a blob, once made, computes
the same everywhere.";

/// Quantize a checkpoint under a policy and write the blob.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`quantize --help` shows examples and policies.")]
pub(crate) struct Args {
    /// Checkpoint (safetensors) with its tokenizer.json beside it.
    model: PathBuf,
    #[command(flatten)]
    making: Making,
    /// Blob to write; an older blob is replaced.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Print the exact size and the precision of every tensor, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Flags that say how a checkpoint becomes a blob.
#[derive(Debug, clap::Args)]
pub(super) struct Making {
    /// static, dynamic, uniform-int8, uniform-int4 (and so on) or a policy file.
    #[arg(long, value_name = "POLICY")]
    pub(super) policy: Option<String>,
    #[command(flatten)]
    pub(super) target: budget::Target,
    /// Importance file that `analyze` wrote, for the dynamic policy and for targets, and for the
    /// arrangement of experts under any policy. What a target needs and the file lacks is measured
    /// and added to it, so an interrupted run goes on where it was; a target needs a file of the
    /// same calibration, window, seed and steps.
    #[arg(long, value_name = "FILE")]
    importance: Option<PathBuf>,
    /// Tokenizer, if not the tokenizer.json beside the checkpoint.
    #[arg(long, value_name = "FILE")]
    pub(super) tokenizer: Option<PathBuf>,
    /// Leave the tokenizer out of the blob.
    #[arg(long)]
    no_tokenizer: bool,
    #[command(flatten)]
    steps: StepArgs,
    /// Calibration tokens, from the training split.
    #[arg(long, value_parser = numbers::tokens(1), default_value_t = 65_536, value_name = "N")]
    calibration_tokens: usize,
    /// Tokens of the validation split by which precisions are chosen, and of the test split on which the
    /// blob's perplexity is measured and recorded in it; 0 records none.
    #[arg(long, value_parser = numbers::tokens(0), default_value_t = 8_192, value_name = "N")]
    pub(super) measure_tokens: usize,
    #[command(flatten)]
    pub(super) text: TextArgs,
    /// What is added to the policy's name in the blob: it counts where a target is met to the byte.
    #[arg(skip)]
    pub(super) suffix: &'static str,
    /// The text that the blob will be measured on, if not --measure-tokens of the test split: its name
    /// and length are part of the blob's bytes, too.
    #[arg(skip)]
    pub(super) recorded: Option<Tokens>,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let Args { model, mut making, out, force, dry_run } = args;
    let out = match (dry_run, out) {
        (true, _) => None,
        (false, Some(out)) => Some(force.plan(making.inputs(&model)).writes(&out, Kind::Blob)?),
        (false, None) => return Err(Error::Usage("--out is missing".into())),
    };
    let loaded = making.load(&model, global)?;
    let Some((source, made)) = making.make(&loaded, dry_run, global)? else { return Ok(()) };
    let out: Output = out.expect("a dry run makes nothing");
    write(&making, &out, &loaded, &source, &made, global)
}

impl Making {
    /// Whether precisions are chosen for a target.
    pub(super) fn has_target(&self) -> bool {
        self.target.is_some()
    }

    /// The files that quantizing this checkpoint reads.
    pub(super) fn inputs(&self, model: &Path) -> Vec<PathBuf> {
        let mut inputs = self.text.files();
        inputs.extend(model_files(model, self.tokenizer.as_deref()));
        inputs.extend(self.importance.clone());
        // Of policies, some are files; no file has the name of another.
        inputs.extend(self.policy.as_ref().map(PathBuf::from));
        inputs
    }

    /// What importance depends on here.
    fn settings(&self, loaded: &Loaded, text: &Tokens) -> Settings {
        loaded.settings(text, &self.text, self.steps.methods())
    }

    /// Reads the checkpoint and settles what depends on it.
    pub(super) fn load(&mut self, model: &Path, global: Global) -> Result<Loaded> {
        let loaded = Loaded::read(model, self.tokenizer.as_deref(), global)?;
        self.text.fit(loaded.checkpoint.config.positions)?;
        Ok(loaded)
    }

    /// Quantizes a checkpoint, or prints what would come out and returns nothing.
    pub(super) fn make(
        &self,
        loaded: &Loaded,
        dry_run: bool,
        global: Global,
    ) -> Result<Option<(Source, Made)>> {
        let policy = self.policy.as_deref().map(Policy::parse).transpose()?;
        let mut source = loaded.source(!self.no_tokenizer)?;
        source.methods = self.steps.methods();
        let importance =
            self.importance.as_deref().map(|path| loaded.importance(path)).transpose()?;
        let Some(policy) = policy else {
            let made = budget::make(self, loaded, &mut source, importance, dry_run, global)?;
            return Ok(made.map(|made| (source, made)));
        };
        if dry_run {
            self.dry_run(&policy, loaded, &source, importance.as_ref(), global)?;
            return Ok(None);
        }
        let tokenizer = loaded.tokenizer.as_ref();
        let (mut calibration, text) =
            self.text.calibrate(&source, self.calibration_tokens, tokenizer, global)?;
        let importance = match importance {
            None if policy.needs_importance() => Some(publish(self, loaded, &text, global)),
            given => given,
        };
        if let Some(symmetries) = importance.as_ref().and_then(|i| i.symmetries.as_ref()) {
            source.rearrange(symmetries, &mut calibration);
        }
        let mut assignment = policy.assign(&source.dims, importance.as_ref())?;
        assignment.name.push_str(self.suffix);
        let mut encoded = source.encode_all(&assignment, &calibration)?;
        if source.methods.prefix {
            let folded = Model::from_checkpoint(&source.folded);
            let limit = Some(FALLBACK_TOKENS);
            let held_out =
                self.text.tokens(Split::Valid, limit, Some(&folded), tokenizer, global)?;
            let bench = Bench::new(&source, &calibration, &held_out.tokens, self.text.window);
            (encoded, _) = self.refine(&bench, &text, &assignment.storage, encoded, global)?;
        }
        let recorded =
            self.recorded(&Model::from_checkpoint(&loaded.checkpoint), tokenizer, global)?;
        Ok(Some((source, Made { assignment, encoded, mix: None, text, recorded })))
    }

    /// The text that the blob will be measured on, if any.
    fn recorded(
        &self,
        model: &Model,
        tokenizer: Option<&Tokenizer>,
        global: Global,
    ) -> Result<Option<Tokens>> {
        match (&self.recorded, self.measure_tokens) {
            (Some(text), _) => Ok(Some(text.clone())),
            (None, 0) => Ok(None),
            (None, limit) => self.text.reported(limit, model, tokenizer, global).map(Some),
        }
    }
}

/// What a header says of a text that its blob will be measured on, the figures still unknown.
fn unmeasured(text: &Tokens) -> Measured<'_> {
    let tokens = text.tokens.len() as u32 - 1;
    Measured { corpus: &text.name, tokens, perplexity_fp32: 0.0, perplexity: 0.0 }
}

/// Tokens that a mix is measured on where `--measure-tokens` asks for none.
const FALLBACK_TOKENS: usize = 8_192;

/// Tokens on which the inputs of quantized layers are compared with the exact ones.
const PREFIX_TOKENS: usize = 16_384;

impl Making {
    /// Quantizes again for the inputs that the quantized layers give.
    fn refine(
        &self,
        bench: &Bench<'_>,
        text: &Tokens,
        storage: &[Storage],
        encoded: Vec<Encoded>,
        global: Global,
    ) -> Result<(Vec<Encoded>, f64)> {
        let tokens = &text.tokens[..text.tokens.len().min(PREFIX_TOKENS)];
        let text = (tokens, self.text.window);
        let progress = bar("quantized prefix", global);
        let refined = refine(bench, text, storage, encoded, |share| set(&progress, share));
        progress.finish_and_clear();
        refined
    }
}

/// A quantized model before it is a blob.
pub(super) struct Made {
    pub(super) assignment: Assignment,
    pub(super) encoded: Vec<Encoded>,
    /// How the precisions were found, for a target.
    mix: Option<Mix>,
    /// The calibration text.
    pub(super) text: Tokens,
    /// The text to measure the blob on.
    recorded: Option<Tokens>,
}

/// The mix of a target.
struct Mix {
    /// The text that it was chosen on.
    chosen_on: Tokens,
    /// What it was predicted to lose there.
    predicted: f64,
    /// What its weights lose there.
    measured: f64,
    /// Aligned bytes that its matrices may take.
    capacity: usize,
    /// What it was chosen by.
    table: Sensitivities,
}

/// The published importance, for a policy that needs it where no file was given.
fn publish(args: &Making, loaded: &Loaded, text: &Tokens, global: Global) -> Importance {
    let model = Model::from_checkpoint(&loaded.checkpoint);
    let progress = bar("published importance", global);
    let published =
        importance::publish(&model, &text.tokens, args.text.window, |share| set(&progress, share));
    progress.finish_and_clear();
    Importance::new(args.settings(loaded, text), published)
}

impl Making {
    fn dry_run(
        &self,
        policy: &Policy,
        loaded: &Loaded,
        source: &Source,
        importance: Option<&Importance>,
        global: Global,
    ) -> Result<()> {
        let tokenizer = loaded.tokenizer.as_ref();
        // Names and counts of texts are part of the header, so the size needs them, not the texts'
        // statistics.
        let reference = Model::from_checkpoint(&loaded.checkpoint);
        let limit = Some(self.calibration_tokens);
        let text = self.text.tokens(Split::Train, limit, Some(&reference), tokenizer, global)?;
        let computed = match importance {
            None if policy.needs_importance() => Some(publish(self, loaded, &text, global)),
            _ => None,
        };
        let assignment = policy.assign(&source.dims, importance.or(computed.as_ref()))?;
        let recorded = self.recorded(&reference, tokenizer, global)?;
        let origin = Origin {
            calibration: &text.name,
            calibration_tokens: text.tokens.len() as u32,
            seed: self.text.seed,
            measured: recorded.as_ref().map(unmeasured),
        };
        preview(loaded, source, &assignment, &origin, global)
    }
}
