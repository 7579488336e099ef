//! `resnet-bk import`.

use crate::checkpoint::{Chain, Checkpoint};
use crate::cli::Global;
use crate::cli::common::{Force, escaped};
use crate::cli::numbers;
use crate::error::Result;
use crate::import::{LEFT_OUT_KEY, Options, import};
use crate::output::Kind;
use crate::terminal::Stdout;
use clap::ValueEnum;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  A published checkpoint whose tokens were routed to two experts:
      resnet-bk import resnet_bk.pt --top-k 2 --out model.safetensors

  From safetensors, with dense gating: --top-k is the number of experts:
      resnet-bk import resnet_bk.safetensors --top-k 4 --out model.safetensors

  The averaged weights of a training script that saved {'model': ..., 'ema': ...}:
      resnet-bk import last.pt --top-k 2 --state ema --out model.safetensors

What can be read:
  .pt, .pth     as torch.save(model.state_dict(), path) writes it (PyTorch 1.6 or later), also
                within dictionaries and lists, such as {'model': ..., 'epoch': 3}
  .safetensors  with the same names

Names may have the prefixes of enclosing modules (`net.`) and, anywhere, the parts that wrappers add
(`module`, `_orig_mod`). Tensors outside of the model are left out and listed.

The model has to be the ResNet-BK of commit 518528f in its default form. Dimensions are derived from
the tensors; missing, surplus and misshapen tensors are named, and so are buffers that belong to
other revisions.";

/// Convert a published ResNet-BK checkpoint (PyTorch or safetensors) to our format.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`import --help` shows examples.")]
pub(crate) struct Args {
    /// Published checkpoint: .pt, .pth or .safetensors.
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// Experts that each token is routed to, which the file does not record; the number of experts
    /// means dense gating.
    #[arg(long, value_parser = numbers::within(1..=64), value_name = "N")]
    top_k: usize,
    /// Which model, if the file holds several: its keys and prefix, joined by dots, as listed in
    /// the error message.
    #[arg(long, value_name = "NAME")]
    state: Option<String>,
    /// Which part of the chain a position sees.
    #[arg(long, value_enum, default_value_t = ChainArg::Full)]
    chain: ChainArg,
    /// Checkpoint to write; an imported one is replaced, a trained one is not.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChainArg {
    /// Past and future positions, as published.
    Full,
    /// Past positions only, if the model was trained that way.
    Half,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let out = args.force.plan([&args.checkpoint]).writes(&args.out, Kind::Imported)?;
    let chain = match args.chain {
        ChainArg::Full => Chain::Full,
        ChainArg::Half => Chain::Half,
    };
    let checkpoint =
        import(&args.checkpoint, Options { top_k: args.top_k, chain, state: args.state })?;
    out.write(&checkpoint.to_bytes())?;
    if out.is_standard_output() {
        return Ok(());
    }
    report(&checkpoint, &args.out, global)
}

fn report(checkpoint: &Checkpoint, path: &Path, global: Global) -> Result<()> {
    let config = &checkpoint.config;
    if global.json {
        let result = serde_json::json!({
            "model": escaped(path),
            "config": config,
            "tensors": checkpoint.tensors.len(),
            "parameters": config.parameters(),
            "provenance": checkpoint.provenance,
        });
        writeln!(Stdout, "{result}")?;
        return Ok(());
    }
    writeln!(
        Stdout,
        "{}: {} parameters in {} tensors",
        path.display(),
        config.parameters(),
        checkpoint.tensors.len()
    )?;
    writeln!(
        Stdout,
        "vocabulary {}, width {}, layers {}, experts {} of width {} (top {}), potentials per layer \
         {}, positions {}",
        config.vocab,
        config.width,
        config.layers,
        config.experts,
        config.hidden,
        config.top_k,
        config.potentials,
        config.positions.map_or("unlimited".into(), |positions| positions.to_string())
    )?;
    if let Some(names) = checkpoint.provenance.get(LEFT_OUT_KEY) {
        writeln!(Stdout, "left out, because they are not part of the model: {names}")?;
    }
    if config.chain == Chain::Full {
        writeln!(
            Stdout,
            "the full chain sees the tokens that it predicts: the model can be scored and \
             compared, but its perplexity is not that of a language model"
        )?;
    }
    Ok(())
}
