//! `resnet-bk inspect`.

use std::path::{Path, PathBuf};

use resnet_bk_core as core;
use resnet_bk_core::blob::{Dimensions, TensorLayout};
use resnet_bk_core::kernels::{Core, Reason};
use resnet_bk_core::tokenizer::Rule;
use serde_json::{Value, json};

use super::common::{hex, is_blob, parse_blob, print_json};
use super::kernels::{Kernels, core_parser};
use super::pieces::Bounds;
use crate::checkpoint::{Block, Chain, Checkpoint, ModelConfig};
use crate::cli::Global;
use crate::error::{Error, Result};
use crate::files::Content;
use crate::policy::{REFERENCE_SIZE, published_estimate};
use crate::table::table;
use crate::tensors::{dimensions, weight_name};
use crate::terminal::Stdout;

const EXAMPLES: &str = "\
Examples:
  What is in a blob, and does it fit the board?
      resnet-bk inspect static.rbk

  Which kernels would a Cortex-M4F use for its matrices?
      resnet-bk inspect static.rbk --target cortex-m4f

  The published size estimate of a checkpoint:
      resnet-bk inspect model.safetensors --published-estimate

  The same for the published reference size, without a file:
      resnet-bk inspect --published-estimate";

/// Show what is in a blob or a checkpoint.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`inspect --help` shows examples.")]
pub(crate) struct Args {
    /// Blob or checkpoint.
    #[arg(required_unless_present = "published_estimate")]
    file: Option<PathBuf>,
    /// Print the published size estimate (Linear layers only, static policy) for the file's
    /// dimensions, or for the published reference size without a file.
    #[arg(long)]
    published_estimate: bool,
    /// For a blob, show the kernels of this microcontroller core instead of this machine's.
    #[arg(long, value_name = "CORE", value_parser = core_parser())]
    #[arg(conflicts_with = "published_estimate")]
    target: Option<Core>,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let Some(path) = &args.file else {
        return print_estimate(&REFERENCE_SIZE, global);
    };
    let bytes = Content::of(path)?;
    if is_blob(&bytes) {
        let model = parse_blob(&bytes, path)?;
        if args.published_estimate {
            print_estimate(model.dims(), global)
        } else {
            let kernels = Kernels::of(&model, &bytes, args.target)?;
            blob(&model, bytes.len(), &kernels, &Bounds::of(&bytes)?, global)
        }
    } else if args.target.is_some() {
        Err(Error::Usage(format!(
            "--target shows the kernels of a blob, but {} is a checkpoint: quantize it first",
            path.display()
        )))
    } else {
        let checkpoint = Checkpoint::from_bytes(&bytes, path)?;
        if args.published_estimate {
            print_estimate(&dimensions(&checkpoint.config), global)
        } else {
            self::checkpoint(&checkpoint, bytes.len(), path, global)
        }
    }
}

fn print_estimate(dims: &Dimensions, global: Global) -> Result<()> {
    let estimate = published_estimate(dims);
    if global.json {
        print_json(&json!({
            "fp32_bytes": estimate.fp32_bytes,
            "quantized_bytes": estimate.quantized_bytes,
            "ratio": estimate.ratio(),
        }))?;
        return Ok(());
    }
    writeln!(
        Stdout,
        "published estimate, static policy (Linear layers only; embeddings and norms uncounted)"
    )?;
    writeln!(Stdout, "FP32       {:>10.2} KiB", estimate.fp32_bytes / 1024.0)?;
    writeln!(Stdout, "quantized  {:>10.2} KiB", estimate.quantized_bytes / 1024.0)?;
    writeln!(Stdout, "ratio      {:>10.2}×", estimate.ratio())
}

/// Dimensions of a blob or a checkpoint, as both show them.
struct Shown {
    vocab: usize,
    width: usize,
    layers: usize,
    experts: usize,
    top_k: usize,
    hidden: usize,
    potentials: usize,
    positions: usize,
    chain: &'static str,
    /// Width of the memory of a gated chain.
    channels: Option<usize>,
}

impl Shown {
    fn of_blob(dims: &Dimensions) -> Self {
        Self {
            vocab: dims.vocab as usize,
            width: dims.width as usize,
            layers: dims.layers as usize,
            experts: dims.experts as usize,
            top_k: dims.top_k as usize,
            hidden: dims.hidden as usize,
            potentials: dims.potentials as usize,
            positions: dims.positions as usize,
            chain: match dims.chain {
                core::blob::Chain::Full => "full",
                core::blob::Chain::Half => "half",
            },
            channels: match dims.block {
                core::blob::Block::Resolvent => None,
                core::blob::Block::Gated { channels } => Some(channels as usize),
            },
        }
    }

    fn of_checkpoint(config: &ModelConfig) -> Self {
        Self {
            vocab: config.vocab,
            width: config.width,
            layers: config.layers,
            experts: config.experts,
            top_k: config.top_k,
            hidden: config.hidden,
            potentials: config.potentials,
            positions: config.positions.unwrap_or(0),
            chain: match config.chain {
                Chain::Full => "full",
                Chain::Half => "half",
            },
            channels: match config.block {
                Block::Resolvent => None,
                Block::Gated { channels } => Some(channels),
            },
        }
    }

    fn json(&self) -> Value {
        let mut json = json!({
            "vocab": self.vocab, "width": self.width, "layers": self.layers,
            "experts": self.experts, "top_k": self.top_k, "hidden": self.hidden,
            "potentials": self.potentials, "positions": self.positions, "chain": self.chain,
        });
        if let Some(channels) = self.channels {
            json["channels"] = channels.into();
        }
        json
    }

    fn print(&self) -> Result<()> {
        writeln!(
            Stdout,
            "vocab {}, width {}, {} blocks, {} experts (top {}), hidden {}, {} potentials, {} \
             chain{}, {}",
            self.vocab,
            self.width,
            self.layers,
            self.experts,
            self.top_k,
            self.hidden,
            self.potentials,
            self.chain,
            match self.channels {
                None => String::new(),
                Some(channels) => format!(" gating {channels} channels"),
            },
            match self.positions {
                0 => "no position table".to_string(),
                positions => format!("{positions} positions"),
            }
        )
    }
}

/// Bytes of RAM for running a model, besides its weights: a session, or for a full chain a window
/// of its position table (64 tokens without one).
fn ram_bytes(dims: &Dimensions) -> (String, usize) {
    match dims.chain {
        core::blob::Chain::Half => ("session".into(), 4 * dims.session_words()),
        core::blob::Chain::Full => {
            let tokens = if dims.positions == 0 { 64 } else { dims.positions as usize };
            (format!("window of {tokens}"), 4 * dims.window_words(tokens, 1))
        }
    }
}

fn blob(
    model: &core::Model<'_>,
    len: usize,
    kernels: &Kernels,
    bounds: &Bounds,
    global: Global,
) -> Result<()> {
    let dims = model.dims();
    let tensors: Vec<_> = dims
        .tensors()
        .map(|id| {
            let tensor = model.tensor(id);
            let layout: TensorLayout = tensor.layout();
            (
                weight_name(id),
                tensor.precision.name(),
                tensor.group,
                tensor.rows,
                tensor.cols,
                layout.len(),
            )
        })
        .collect();
    let weights: usize = tensors.iter().map(|t| t.5).sum();
    let provenance = model.provenance();
    let tokenizer = model.header().tokenizer.map_or(0, |section| section.len as usize);
    let rule = model.tokenizer().ok().map(|tokenizer| tokenizer.rule());
    let (ram_kind, ram) = ram_bytes(dims);
    if global.json {
        let tensors: Vec<_> = tensors
            .iter()
            .zip(kernels.choices())
            .map(|((name, precision, group, rows, cols, bytes), choice)| {
                json!({
                    "name": name, "precision": precision, "group": group, "rows": rows,
                    "cols": cols, "bytes": bytes, "kernel": choice.kernel,
                    "fallback": choice.fallback.map(Reason::name),
                })
            })
            .collect();
        print_json(&json!({
            "kind": "blob", "bytes": len, "dimensions": Shown::of_blob(dims).json(), "tensors": tensors,
            "chain_bytes": model.header().chain.len, "tokenizer_bytes": tokenizer, "tokenizer": rule.map(kind_of_tokenizer),
            "ram_bytes": ram, "ram_for": ram_kind, "macs_per_token": dims.macs_per_token(),
            "kernels": kernels.json(), "pieces": bounds.json(),
            "potentials_int8": model.header().potentials_int8,
            "provenance": {
                "source_sha256": hex(provenance.source_sha256),
                "source_bytes": provenance.source_bytes, "tool": provenance.tool,
                "policy": provenance.policy, "calibration": provenance.calibration,
                "calibration_tokens": provenance.calibration_tokens, "seed": provenance.seed,
                "measured": provenance.measured.map(|m| json!({
                    "corpus": m.corpus, "tokens": m.tokens,
                    "perplexity_fp32": m.perplexity_fp32, "perplexity": m.perplexity,
                })),
            },
        }))?;
        return Ok(());
    }
    Shown::of_blob(dims).print()?;
    let mut rows = table(&["tensor", "shape", "precision", "group", "bytes", "kernel"]);
    for ((name, precision, group, out, cols, bytes), choice) in
        tensors.into_iter().zip(kernels.choices())
    {
        let group = if group == 0 { "–".into() } else { group.to_string() };
        let shape = format!("{out} × {cols}");
        let kernel = match choice.fallback {
            None => choice.kernel.to_owned(),
            Some(reason) => format!("{} ({})", choice.kernel, reason.name()),
        };
        rows.add_row([name, shape, precision.into(), group, bytes.to_string(), kernel]);
    }
    writeln!(Stdout, "{rows}")?;
    writeln!(
        Stdout,
        "flash {len} bytes: weights {weights}, chains {}, tokenizer {tokenizer}, header and padding {}",
        model.header().chain.len,
        len - weights - model.header().chain.len as usize - tokenizer
    )?;
    if let Some(rule) = rule.filter(|rule| *rule != Some(Rule::Words)) {
        writeln!(Stdout, "tokenizer: {}", kind_of_tokenizer(rule))?;
    }
    writeln!(Stdout, "RAM   {ram} bytes for a {ram_kind}, besides the stack")?;
    writeln!(Stdout, "kernels {}", kernels.summary())?;
    writeln!(Stdout, "work  {} multiply-accumulates per token", dims.macs_per_token())?;
    if let Some(longest) = bounds.summary() {
        writeln!(Stdout, "piece at most {longest}")?;
    }
    writeln!(
        Stdout,
        "made  by {} under policy {} from checkpoint {}… ({} bytes, {:.2}×)",
        provenance.tool,
        provenance.policy,
        &hex(provenance.source_sha256).get(..12).unwrap_or(""),
        provenance.source_bytes,
        provenance.source_bytes as f64 / len as f64
    )?;
    writeln!(
        Stdout,
        "      calibrated on {} tokens of {}, seed {}",
        provenance.calibration_tokens, provenance.calibration, provenance.seed
    )?;
    if let Some(measured) = provenance.measured {
        writeln!(
            Stdout,
            "      perplexity {:.3} → {:.3} on {} tokens of {}",
            measured.perplexity_fp32, measured.perplexity, measured.tokens, measured.corpus
        )?;
    }
    Ok(())
}

/// What a blob's tokenizer does, by its rule.
fn kind_of_tokenizer(rule: Option<Rule>) -> &'static str {
    match rule {
        Some(Rule::Words) => "encodes and decodes, by this project's rule",
        Some(Rule::Gpt2) => "encodes and decodes, by GPT-2's rule",
        None => "only decodes",
    }
}

fn checkpoint(checkpoint: &Checkpoint, len: usize, path: &Path, global: Global) -> Result<()> {
    let config = &checkpoint.config;
    match dimensions(config).validate() {
        // Only a blob has so few.
        Ok(()) | Err(core::Error::Dimension { name: "vocab", .. }) => {}
        Err(error) => return Err(Error::BlobFile { path: path.to_path_buf(), error }),
    }
    let specs = config.tensors();
    if global.json {
        let tensors: Vec<_> = specs
            .iter()
            .map(|spec| {
                let count: usize = spec.shape.iter().product();
                json!({ "name": spec.name, "shape": spec.shape, "precision": "fp32", "bytes": 4 * count })
            })
            .collect();
        print_json(&json!({
            "kind": "checkpoint", "bytes": len, "dimensions": Shown::of_checkpoint(config).json(),
            "parameters": config.parameters(), "tensors": tensors,
            "macs_per_token": config.macs_per_token(), "provenance": checkpoint.provenance,
        }))?;
        return Ok(());
    }
    Shown::of_checkpoint(config).print()?;
    let mut rows = table(&["tensor", "shape", "bytes"]);
    for spec in &specs {
        let count: usize = spec.shape.iter().product();
        rows.add_row([spec.name.clone(), format!("{:?}", spec.shape), (4 * count).to_string()]);
    }
    writeln!(Stdout, "{rows}")?;
    writeln!(Stdout, "{len} bytes, {} parameters, FP32", config.parameters())?;
    writeln!(Stdout, "work  {} multiply-accumulates per token", config.macs_per_token())?;
    for (key, value) in &checkpoint.provenance {
        writeln!(Stdout, "{key}: {value}")?;
    }
    Ok(())
}
