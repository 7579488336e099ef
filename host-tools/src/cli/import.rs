//! `resnet-bk import`.

use crate::checkpoint::{Chain, Checkpoint, ModelConfig};
use crate::cli::Global;
use crate::cli::common::{Force, escaped, note, print_json};
use crate::cli::numbers;
use crate::error::{Error, Result};
use crate::import::{self, Dimensions, Ignored, Imported, LEFT_OUT_KEY, Options, Reason, Survey};
use crate::output::Kind;
use crate::table::words;
use crate::terminal::Stdout;
use clap::ValueEnum;
use serde_json::json;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  What is in a file, and what would become of it? Nothing is written:
      resnet-bk import last.pt --dry-run

  A model in PyTorch with our names of tensors, saved with torch.save(model.state_dict(), path):
      resnet-bk import gated.pt --out model.safetensors

  A published checkpoint whose tokens were routed to two experts:
      resnet-bk import resnet_bk.pt --top-k 2 --out model.safetensors

  From safetensors, with dense gating: --top-k is the number of experts:
      resnet-bk import resnet_bk.safetensors --top-k 4 --out model.safetensors

  A model in several files, by its index or the folder:
      resnet-bk import run/model.safetensors.index.json --out model.safetensors
      resnet-bk import run --out model.safetensors

  The averaged weights of a training script that saved {'model': ..., 'ema': ...}:
      resnet-bk import last.pt --top-k 2 --state ema --out model.safetensors

  A head that shares the weight of the embedding:
      resnet-bk import tied.pt --tied --out model.safetensors

  What the file does not record, from JSON, such as {\"top_k\": 2, \"eta_floor\": 0.01}:
      resnet-bk import last.pt --config dimensions.json --out model.safetensors

What can be read:
  .pt, .pth, .bin, .ckpt  as torch.save writes them, also before PyTorch 1.6: a state_dict, also
                          within dictionaries, lists and objects, or a whole module; nothing in the
                          file is executed
  .safetensors            with the same names
  .index.json             the index of several such files; or a folder with one checkpoint

Names may have any prefix (`net.`), and any module may be wrapped (`blocks.0._orig_mod.`). Weights
may be F64, F32, F16 or BF16, in any memory layout. Tensors outside of the model, and those that it
does not know, are left out and listed.

Dimensions are derived from the tensors; missing and misshapen ones are named. What no tensor tells
is taken from the file's metadata, the flags, --config, settings or arguments of the training script
that were saved in the same .pt under the names of docs/checkpoint.md (top_k, chain, eta_floor,
off_diagonal), or else assumed: a model with trained `diagonal` and `log_eta` has a half chain,
off-diagonals of 1 and an --eta-floor of 1/256; the published one, of commit 518528f in its default
form, a full chain. --top-k is needed if there are several experts and nothing tells it. Files of
other revisions are refused by name.";

/// Convert a checkpoint of PyTorch or safetensors to our format.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`import --help` shows examples.")]
pub(crate) struct Args {
    /// Checkpoint: .pt, .pth, .bin, .ckpt, .safetensors, the .index.json of several, or a folder.
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,
    /// Experts that each token is routed to, if the file does not record it; the number of experts
    /// means dense gating.
    #[arg(long, value_parser = numbers::within(1..=64), value_name = "N")]
    top_k: Option<usize>,
    /// Which part of the chain a position sees [default: half, or full of a published model].
    #[arg(long, value_enum)]
    chain: Option<ChainArg>,
    /// Lower bound of η [default: 1/256, or the η of a published model].
    #[arg(long, value_parser = numbers::not_negative::<f32>, value_name = "X")]
    eta_floor: Option<f32>,
    /// Product of the two off-diagonals of the chain [default: 1, or that of a published model].
    #[arg(long, value_parser = numbers::not_negative::<f32>, value_name = "X")]
    off_diagonal: Option<f32>,
    /// JSON object of dimensions that the file does not record, as in docs/checkpoint.md; any may
    /// be absent, and flags come first.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The head has the weight of the embedding: the file may have only one of them, and no bias.
    #[arg(long)]
    tied: bool,
    /// Which model, if the file holds several: its keys and prefix, joined by dots, as listed in
    /// the error message.
    #[arg(long, value_name = "NAME")]
    state: Option<String>,
    /// List what is in the file and what would become of it, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// Checkpoint to write; an imported one is replaced, a trained one is not.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ChainArg {
    /// Past and future positions, as published.
    Full,
    /// Past positions only.
    Half,
}

impl Args {
    fn options(&self) -> Result<Options> {
        let chain = self.chain.map(|chain| match chain {
            ChainArg::Full => Chain::Full,
            ChainArg::Half => Chain::Half,
        });
        let flags = Dimensions {
            top_k: self.top_k,
            chain,
            eta_floor: self.eta_floor,
            off_diagonal: self.off_diagonal,
            ..Dimensions::default()
        };
        let mut options =
            Options { state: self.state.clone(), tied: self.tied, ..Options::with(flags) };
        if let Some(path) = &self.config {
            options.given.push((path.display().to_string(), Dimensions::read(path)?));
        }
        Ok(options)
    }
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let out = match &args.out {
        Some(path) if !args.dry_run => {
            let inputs = import::files(&args.checkpoint).into_iter().chain(args.config.clone());
            Some(args.force.plan(inputs).writes(path, Kind::Imported)?)
        }
        _ => None,
    };
    let imported = import::import(&args.checkpoint, &args.options()?);
    if args.dry_run && matches!(imported, Err(Error::Import { .. })) {
        refused(&args.checkpoint, global)?;
    }
    let Imported { checkpoint, survey } = imported?;
    warn(&checkpoint, &survey, global);
    if let Some(out) = &out {
        out.write_by(|file| checkpoint.write_to(file))?;
        if out.is_standard_output() {
            return Ok(());
        }
    }
    if global.json {
        return print_json(&json!({
            "model": args.out.filter(|_| !args.dry_run).map(escaped),
            "config": checkpoint.config,
            "tensors": checkpoint.tensors.len(),
            "parameters": checkpoint.config.parameters(),
            "provenance": checkpoint.provenance,
            "survey": survey,
        }));
    }
    if args.dry_run {
        list(&survey)?;
    }
    let name =
        if args.dry_run { &args.checkpoint } else { args.out.as_ref().unwrap_or(&args.checkpoint) };
    report(&checkpoint, &name.display().to_string(), &survey)
}

/// Notes what the model does without, and what the user should check.
fn warn(checkpoint: &Checkpoint, survey: &Survey, global: Global) {
    if let Some(names) = checkpoint.provenance.get(LEFT_OUT_KEY) {
        note(global, &format!("left out, because they are not part of the model: {names}"));
    }
    let unknown = survey.ignored.iter().filter(|ignored| ignored.reason == Reason::Unknown);
    let unknown: Vec<&str> = unknown.map(|ignored| ignored.name.as_str()).collect();
    if !unknown.is_empty() {
        note(
            global,
            &format!(
                "the model's own modules have them, so if it computes with them, the imported one \
                 computes something else: {}",
                unknown.join(" ")
            ),
        );
    }
    let others = survey.states.iter().filter(|state| **state != survey.state);
    let others: Vec<&str> = others.map(String::as_str).collect();
    if !others.is_empty() {
        let (state, others) = (&survey.state, others.join(", "));
        note(global, &format!("of several models in it, `{state}` is imported, not {others}"));
    }
}

/// Lists what is in a file that is refused, if its tensors can be found at all.
fn refused(path: &Path, global: Global) -> Result<()> {
    let Ok(found) = import::contents(path) else { return Ok(()) };
    if global.json {
        return print_json(&json!({ "refused": found }));
    }
    let mut rows = words(&HEADER);
    rows.add_rows(found.iter().map(ignored));
    writeln!(Stdout, "{rows}")
}

const HEADER: [&str; 4] = ["tensor in the file", "shape", "type", "becomes"];

/// The row of a tensor that is not used.
fn ignored(tensor: &Ignored) -> [String; 4] {
    let shape = tensor.shape.as_ref().map_or("?".into(), |shape| format!("{shape:?}"));
    let reason = format!("ignored: {}", tensor.reason.name());
    [tensor.name.clone(), shape, tensor.dtype.unwrap_or("?").to_owned(), reason]
}

/// A table of what was found.
fn list(survey: &Survey) -> Result<()> {
    let mut rows = words(&HEADER);
    for mapped in &survey.mapped {
        let shape = format!("{:?}", mapped.shape);
        rows.add_row([&mapped.name, &shape, mapped.dtype, &mapped.becomes]);
    }
    for added in &survey.added {
        rows.add_row(["–", "", "", &format!("{}: {}", added.name, added.from)]);
    }
    rows.add_rows(survey.ignored.iter().map(ignored));
    writeln!(Stdout, "{rows}")?;
    writeln!(
        Stdout,
        "files {}; models {}; imported {}",
        survey.files.join(", "),
        survey.states.join(", "),
        survey.state
    )
}

fn report(checkpoint: &Checkpoint, name: &str, survey: &Survey) -> Result<()> {
    let config = &checkpoint.config;
    let (parameters, tensors) = (config.parameters(), checkpoint.tensors.len());
    writeln!(Stdout, "{name}: {parameters} parameters in {tensors} tensors")?;
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
    if !survey.origins.is_empty() {
        let origins = survey.origins.iter();
        let origins =
            origins.map(|(key, origin)| format!("{key} {} ({origin})", value(config, key)));
        let origins = origins.collect::<Vec<_>>().join(", ");
        writeln!(Stdout, "not in the tensors: {origins}")?;
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

/// A dimension by its name.
fn value(config: &ModelConfig, key: &str) -> String {
    let config = serde_json::to_value(config).expect("a plain struct serialises");
    config[key].as_str().map_or_else(|| config[key].to_string(), String::from)
}
