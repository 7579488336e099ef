//! Flags of `resnet-bk finetune`, and the files that they name.

use std::path::PathBuf;

use super::recipe::RecipeArgs;
use crate::cli::Global;
use crate::cli::common::{Force, Loaded, check_tokenizer, parse_blob};
use crate::cli::quantize::{QuantizeArgs, QuantizedModel};
use crate::corpus::{Corpus, Split};
use crate::error::{Error, Result};
use crate::eval::text::Tokens;
use crate::files;
use crate::finetune::Recipe;
use crate::output::{Kind, Output};
use crate::quantize::Source;
use crate::reference::Model;

const EXAMPLES: &str = "\
Examples:
  The best blob that is 8 times smaller, with weights trained on the quantization grid; run the
  same command again to resume after an interruption:
      resnet-bk finetune model.safetensors --target-ratio 8 --importance importance.json \\
          --corpus data/wikitext-2 --out 8x.rbk

  Any policy, or a blob that `quantize` wrote before from the same checkpoint:
      resnet-bk finetune model.safetensors --policy uniform-int3 --corpus data/wikitext-2 \\
          --out 3.rbk
      resnet-bk finetune model.safetensors --blob budget.rbk --corpus data/wikitext-2 \\
          --out tuned.rbk

  On a text of your own, of which a tenth chooses the best step and the last tenth measures:
      resnet-bk finetune model.safetensors --policy uniform-int4 --text book.txt --out tuned.rbk

  Towards the average of several models, which predicts better than each of them:
      resnet-bk finetune model.safetensors --teacher other.rbk --blob budget.rbk \\
          --corpus data/wikitext-2 --out tuned.rbk

  A run of a few minutes, to see what it gains:
      resnet-bk finetune model.safetensors --policy uniform-int4 --corpus data/wikitext-2 \\
          --out quick.rbk --train-tokens 500000

What happens:
  Training starts from the blob of the policy, the target or --blob. Every step computes with the
  values that the blob would store, rounds activations as the integer path does, compares all
  logits with those of the FP32 checkpoint (with --teacher, the average of several models'
  predictions), and updates the parameters behind the stored values:
  first scales, biases and chains, then codes too. Some input tokens are random, so that tokens
  missing from the text are not forgotten. Precisions and size stay. The step with the smallest
  KL divergence on the validation split is written; its quality is measured on the test split.

  With --rounds 2 a target's precisions are chosen a second time, for the weights after half of
  the tokens, and the better of both rounds is written.

  While a run lasts, FILE.state holds what it needs to resume, FILE.jsonl its log, and FILE.lock
  keeps out other runs, FILE being --out.
  The same seed, text and settings give the same bytes on the same machine, whatever --threads.";

/// Fine-tune a quantized model by distillation from its checkpoint and write the blob.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`finetune --help` shows examples.")]
pub(crate) struct Args {
    /// Checkpoint (safetensors) with its tokenizer.json beside it: the teacher.
    pub(super) model: PathBuf,
    /// Blob of this checkpoint to start from, instead of a policy or target.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["policy", "targets"])]
    pub(super) blob: Option<PathBuf>,
    /// Another checkpoint or blob of the same tokenizer, whose predictions are averaged with the
    /// teacher's; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(super) teacher: Vec<PathBuf>,
    /// Blob to write; an older blob is replaced.
    #[arg(long, value_name = "FILE")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) force: Force,
    #[command(flatten, next_help_heading = "Quantization")]
    pub(super) making: QuantizeArgs,
    #[command(flatten, next_help_heading = "Training")]
    pub(super) recipe: RecipeArgs,
}

/// A blob to fine-tune, with the model that it was assembled from, unless given as a file.
pub(super) struct Start {
    pub(super) blob: Vec<u8>,
    pub(super) made: Option<(Source, QuantizedModel)>,
}

impl Args {
    /// Training, validation and test text.
    pub(super) fn texts(
        &self,
        recipe: &Recipe,
        loaded: &Loaded,
        teacher: &Model,
        global: Global,
    ) -> Result<[Tokens; 3]> {
        let text = &self.making.text;
        let windows = (self.recipe.validation_tokens / text.window).max(1);
        let held_out = windows * text.window + 1;
        let sampled = text.text.is_none()
            && matches!(Corpus::find(text.corpus.as_deref()), Err(Error::CorpusMissing));
        let tokenizer = loaded.tokenizer.as_ref();
        let tokens = |split, limit| text.tokens(split, limit, Some(teacher), tokenizer, global);
        // A corpus has a fixed size; from a checkpoint, sample what the run needs.
        let count = sampled.then(|| {
            let training = &recipe.training;
            let wanted = training.steps.saturating_mul((training.batch * training.window) as u64);
            (wanted as usize).min(SAMPLED_TOKENS).max(text.window + 1)
        });
        let train = tokens(Split::Train, count)?;
        let valid = tokens(Split::Valid, Some(held_out))?;
        Ok([train, valid, text.reported(held_out, teacher, tokenizer, global)?])
    }

    /// The blob to write, if it and the files beside it may be written.
    pub(super) fn output(&mut self) -> Result<Output> {
        let inputs = self.making.inputs(&self.model);
        let mut plan = self.force.plan(inputs).reads(&self.blob).reads(&self.teacher);
        let out = plan.writes(&self.out, Kind::Blob)?;
        if !out.is_file() {
            return Err(Error::Usage(format!(
                "--out {} must be a regular file: a run keeps its state and log beside it",
                self.out.display()
            )));
        }
        self.making.keep(&out, &mut plan)?;
        for round in 0..self.recipe.rounds {
            plan.writes(&self.beside(round, "state"), Kind::State)?;
            plan.writes(&self.beside(round, "jsonl"), Kind::Log)?;
        }
        Ok(out)
    }

    /// A file of a round, beside the output blob.
    pub(super) fn beside(&self, round: usize, extension: &str) -> PathBuf {
        match round {
            0 => files::beside(&self.out, extension),
            _ => files::beside(&self.out, &format!("round{}.{extension}", round + 1)),
        }
    }

    /// The blob given to start from, if any.
    pub(super) fn given(&self, loaded: &Loaded) -> Result<Option<Vec<u8>>> {
        let Some(path) = &self.blob else { return Ok(None) };
        let blob = files::read(path)?;
        let model = parse_blob(&blob, path)?;
        if model.provenance().source_sha256 != loaded.sha256 {
            let path = path.display();
            return Err(Error::Usage(format!("{path} was made from another checkpoint")));
        }
        if let Some(tokenizer) = &loaded.tokenizer {
            check_tokenizer(tokenizer, "the checkpoint's tokenizer", &model, path)?;
        }
        Ok(Some(blob))
    }

    /// The blob of the policy or the target.
    pub(super) fn start(&self, loaded: &Loaded, global: Global) -> Result<Start> {
        let made = self.making.make(loaded, false, global)?;
        let made = made.expect("this is not a dry run");
        let blob = self.assemble(&made.0, &made.1)?;
        Ok(Start { blob, made: Some(made) })
    }

    pub(super) fn assemble(&self, source: &Source, made: &QuantizedModel) -> Result<Vec<u8>> {
        let origin = self.making.origin(&made.text, None);
        source.assemble(&made.encoded, &made.assignment, &origin)
    }
}

/// Suffix of the policy's name in a fine-tuned blob.
pub(super) const TUNED: &str = " fine-tuned";
/// Maximum number of training tokens sampled from the checkpoint if there is no corpus.
const SAMPLED_TOKENS: usize = 1 << 18;
