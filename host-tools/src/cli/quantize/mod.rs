//! `resnet-bk quantize`.

mod flags;
mod kept;
mod make;
mod model;
mod target;
mod write;

pub(super) use flags::QuantizeArgs;
pub(super) use model::QuantizedModel;

use std::path::PathBuf;

use crate::cli::Global;
use crate::cli::common::Force;
use crate::error::{Error, Result};
use crate::memory::Copies;
use crate::output::{Kind, Output};
use write::write;

const EXAMPLES: &str = "\
Examples:
  The static policy: experts INT4, BK-core INT8, output layers and embeddings FP16:
      resnet-bk quantize model.safetensors --policy static --out static.rbk

  By importance, as measured by `analyze`:
      resnet-bk analyze model.safetensors --out importance.json
      resnet-bk quantize model.safetensors --policy dynamic --importance importance.json \\
          --out dynamic.rbk

  The best model that fits 750,000 bytes, or is 7 times smaller, or loses 0.02 nats a token; with
  the measured sensitivities of `analyze`, a target takes seconds:
      resnet-bk quantize model.safetensors --target-bytes 750000 --importance importance.json \\
          --out budget.rbk
      resnet-bk quantize model.safetensors --target-ratio 7 --importance importance.json \\
          --out 7x.rbk
      resnet-bk quantize model.safetensors --max-kl 0.02 --importance importance.json --out kl.rbk

  The same size, of storages that a Cortex-M0 multiplies fast:
      resnet-bk quantize model.safetensors --target-bytes 750000 --max-per-mac 3.5 \\
          --core cortex-m0 --importance importance.json --out fast.rbk

  How large would it be?
      resnet-bk quantize model.safetensors --policy policies/compact.toml --dry-run

Policies:
  static        by kind of layer, as published
  dynamic       by published importance: top 20 % FP16, next 40 % INT8, bottom 40 % INT4
                both also with other precisions, from high to low: static:int8,int6,int4
  uniform-int8  everything INT8, one scale per row
  uniform-int4  everything INT4 in groups of 32; likewise uniform-int2 to uniform-int6,
                uniform-fp16 and, with another group size, uniform-int4/16; the taps of gated
                chains have no less than INT8
  FILE.toml     a base policy and overrides by tensor name (`*` stands for any characters, the last
                match wins, an override that matches nothing is an error):
                    name = \"mine\"
                    base = \"uniform-int8\"
                    potentials = \"full\"               # or \"int8\"
                    [[override]]
                    tensors = \"blocks.*.experts.*\"    # or a list of patterns
                    precision = \"int4\"                # int2 to int6, int8 or fp16
                    group = 32                        # int2 to int6 only
  budget        for --target-bytes, --target-ratio and --max-kl: the mix of int2 to int6, int8 and
                fp16 with the smallest loss, from the measured rise in KL divergence of every
                tensor in every precision and an exact knapsack over the bytes of the blob

The same model, text and seed give the same bytes on the same kind of processor. On another kind the
FP32 sums of calibration may round differently, and some codes may differ; a blob, once made,
computes the same everywhere.";

/// Quantize a checkpoint under a policy and write the blob.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`quantize --help` shows examples and policies.")]
pub(crate) struct Args {
    /// Checkpoint (safetensors) with its tokenizer.json beside it.
    model: PathBuf,
    #[command(flatten)]
    making: QuantizeArgs,
    /// Blob to write; an older blob is replaced.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Print the exact size and the precision of every tensor, without writing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let Args { model, mut making, out, force, dry_run } = args;
    let out = match (dry_run, out) {
        (true, _) => None,
        (false, Some(out)) => {
            let mut plan = force.plan(making.inputs(&model));
            let out = plan.writes(&out, Kind::Blob)?;
            making.keep(&out, &mut plan)?;
            Some(out)
        }
        (false, None) => return Err(Error::Usage("--out is missing".into())),
    };
    let loaded = making.load(&model, global)?;
    Copies::QUANTIZE.require(loaded.checkpoint.config.parameters())?;
    let Some((source, made)) = making.make(&loaded, dry_run, global)? else { return Ok(()) };
    let out: Output = out.expect("a dry run makes nothing");
    write(&making, &out, &loaded, &source, &made, global)?;
    making.remove_kept()
}
