//! The command line. Each subcommand is a module with an `Args` struct and a `run` function.

mod analyze;
mod common;
mod eval;
mod finetune;
mod generate;
mod import;
mod inspect;
mod measured;
mod quantize;
mod report;
mod train;

use crate::error::{Error, Result};
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

const OUTPUTS: &str = "\
Outputs:
  No command replaces a file that it reads, a file of another kind than it writes (by content, not
  by name) or a model that `train` has finished, unless it is told so by --force. Where an output
  goes is checked before the work begins. Files are replaced at once, when all of the new content
  is on the disk; links are followed and modes are kept. What is no file (/dev/stdout, /dev/null,
  a pipe) is written to; a command whose output is standard output prints nothing else there.";

/// Train, analyse, quantize and evaluate ResNet-BK language models.
#[derive(Debug, Parser)]
#[command(name = "resnet-bk", version, max_term_width = 100, after_long_help = OUTPUTS)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every subcommand.
#[derive(Clone, Copy, Debug, Args)]
pub struct Global {
    /// Print the result as JSON on standard output.
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress.
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model on text.
    Train(train::Args),
    /// Read a published checkpoint (PyTorch or safetensors).
    Import(import::Args),
    /// Find out which layers matter.
    Analyze(analyze::Args),
    /// Quantize a checkpoint and write the blob.
    Quantize(quantize::Args),
    /// Fine-tune a quantized model towards its checkpoint.
    Finetune(finetune::Args),
    /// Measure perplexity and fidelity of a checkpoint and of blobs.
    Eval(eval::Args),
    /// Show what is in a blob or a checkpoint.
    Inspect(inspect::Args),
    /// Show what was found about a model: a page, plots, and text.
    Report(report::Args),
    /// Write text with a checkpoint or a blob.
    Generate(generate::Args),
}

/// Runs the command that the process was started with. The exit code is 0 on success, 1 on failure
/// and 2 where the command line itself is wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("help: {}", error.help());
            // As clap does for arguments that it can judge by itself.
            if matches!(error, Error::Usage(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(args) => train::run(args, cli.global),
        Command::Import(args) => import::run(args, cli.global),
        Command::Analyze(args) => analyze::run(args, cli.global),
        Command::Quantize(args) => quantize::run(args, cli.global),
        Command::Finetune(args) => finetune::run(args, cli.global),
        Command::Eval(args) => eval::run(args, cli.global),
        Command::Inspect(args) => inspect::run(args, cli.global),
        Command::Report(args) => report::run(args, cli.global),
        Command::Generate(args) => generate::run(args, cli.global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
