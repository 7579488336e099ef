//! The command line. Each subcommand is a module with an `Args` struct and a `run` function.

mod analyze;
mod common;
mod compress;
mod decompress;
mod eval;
mod finetune;
mod generate;
mod global;
mod hex;
mod import;
mod inspect;
mod kernels;
mod measured;
mod numbers;
mod optimizer;
mod pieces;
mod pipe;
mod progress;
mod quantize;
mod report;
mod suggest;
mod teachers;
mod train;
mod upgrade;

pub use global::Global;

use crate::error::{Error, Result};
use crate::memory;
use crate::terminal::{CLOSED_PIPE, Stderr};
use crate::threads;
use clap::{Parser, Subcommand};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

const EXIT_CODES: &str = "\
Exit codes: 0 success, 1 failure, 2 wrong command line, 141 standard output was closed.";

const OUTPUTS: &str = "\
Outputs:
  Without --force, no command replaces a file that it reads, a file of another kind than it writes
  (judged by content, not by name) or a model that `train` has finished. Output paths are checked
  before the work begins. Files are replaced atomically, once all of the new content is on disk;
  links are followed and modes are kept. Devices and pipes (/dev/stdout, /dev/null) are written to
  directly; a command whose output is standard output prints nothing else there.

Exit codes: 0 success, 1 failure, 2 wrong command line, 141 standard output was closed.";

/// Train, analyse, quantize and evaluate ResNet-BK language models.
#[derive(Debug, Parser)]
#[command(
    name = "resnet-bk",
    version,
    max_term_width = 100,
    after_help = EXIT_CODES,
    after_long_help = OUTPUTS
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model on text.
    Train(train::Args),
    /// Convert a checkpoint of PyTorch or safetensors.
    Import(import::Args),
    /// Measure the importance of layers.
    Analyze(analyze::Args),
    /// Quantize a checkpoint and write the blob.
    Quantize(quantize::Args),
    /// Fine-tune a quantized model towards its checkpoint.
    Finetune(Box<finetune::Args>),
    /// Measure perplexity and fidelity of a checkpoint and of blobs.
    Eval(eval::Args),
    /// Show what is in a blob or a checkpoint.
    Inspect(inspect::Args),
    /// Report on a model: a page, plots, and text.
    Report(report::Args),
    /// Generate text with a checkpoint or a blob.
    Generate(generate::Args),
    /// Suggest how a text goes on.
    Suggest(suggest::Args),
    /// Compress text with a blob.
    Compress(compress::Args),
    /// Decompress what `compress` wrote.
    Decompress(decompress::Args),
    /// Convert a blob of an older format.
    Upgrade(upgrade::Args),
}

/// Runs the command given on the command line. The exit code is 0 on success, 1 on failure, 2 for
/// an invalid command line and [`CLOSED_PIPE`], without a message, if standard output was closed.
pub fn main() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => run(cli).map(|()| ExitCode::SUCCESS),
        Err(answer) => refuse(&answer),
    };
    match result {
        Ok(code) => code,
        Err(Error::Stdout(error)) if error.kind() == ErrorKind::BrokenPipe => CLOSED_PIPE.into(),
        Err(error) => {
            writeln!(Stderr, "error: {error}");
            writeln!(Stderr, "help: {}", error.help());
            // The exit code that clap uses for invalid arguments.
            if error.is_usage() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Prints clap's answer: requested help on standard output, errors on standard error.
fn refuse(answer: &clap::Error) -> Result<ExitCode> {
    if answer.use_stderr() {
        // Write errors on standard error cannot be reported.
        let _ = answer.print();
        return Ok(ExitCode::from(2));
    }
    answer.print().and_then(|()| std::io::stdout().flush()).map_err(Error::Stdout)?;
    Ok(ExitCode::SUCCESS)
}

fn run(cli: Cli) -> Result<()> {
    cli.global.threads.map_or(Ok(()), threads::set)?;
    cli.global.memory.into_iter().for_each(|limit| memory::set(limit.as_u64()));
    match cli.command {
        Command::Train(args) => train::run(args, cli.global),
        Command::Import(args) => import::run(args, cli.global),
        Command::Analyze(args) => analyze::run(args, cli.global),
        Command::Quantize(args) => quantize::run(args, cli.global),
        Command::Finetune(args) => finetune::run(*args, cli.global),
        Command::Eval(args) => eval::run(args, cli.global),
        Command::Inspect(args) => inspect::run(args, cli.global),
        Command::Report(args) => report::run(args, cli.global),
        Command::Generate(args) => generate::run(args, cli.global),
        Command::Suggest(args) => suggest::run(args, cli.global),
        Command::Compress(args) => compress::run(args, cli.global),
        Command::Decompress(args) => decompress::run(args, cli.global),
        Command::Upgrade(args) => upgrade::run(args, cli.global),
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

    /// Fine-tuning overrides defaults that it shares with training.
    #[test]
    fn training_and_fine_tuning_have_their_own_defaults() {
        let command = Cli::command();
        let default = |subcommand: &str, flag: &str| {
            let sub = command.find_subcommand(subcommand).expect("a subcommand");
            let found = sub.get_arguments().find(|argument| argument.get_long() == Some(flag));
            let [value] = found.expect("a flag").get_default_values() else {
                panic!("--{flag} has no single default")
            };
            value.to_str().expect("UTF-8").to_owned()
        };
        for (flag, train, finetune) in [
            ("final-lr", "0.01", "0.01"),
            ("warmup", "200", "50"),
            ("beta1", "0.9", "0.9"),
            ("beta2", "0.95", "0.99"),
            ("clip", "1", "1"),
            ("batch", "32", "32"),
            ("shards", "8", "8"),
            ("validate-every", "250", "100"),
            ("save-every", "250", "100"),
            ("log-every", "20", "20"),
        ] {
            let found = ["train", "finetune"].map(|subcommand| default(subcommand, flag));
            assert_eq!(found, [train, finetune], "--{flag}");
        }
    }

    /// Every flag that takes a number, with its subcommand.
    fn numeric_flags() -> Vec<(String, String)> {
        let command = Cli::command();
        let flags = command.get_subcommands().flat_map(|sub| {
            sub.get_arguments().filter_map(|argument| {
                let numeric = |name: &clap::builder::Str| ["N", "K", "X", "R"].contains(&&**name);
                let names = argument.get_value_names()?;
                let flag = argument.get_long().filter(|_| names.iter().any(numeric))?;
                Some((sub.get_name().to_owned(), flag.to_owned()))
            })
        });
        flags.collect()
    }

    /// Why a command line with this flag is rejected, if it is.
    fn refused(subcommand: &str, flag: &str, value: &str) -> Option<String> {
        let command = Cli::command();
        let sub = command.find_subcommand(subcommand).expect("a subcommand");
        let needed = sub.get_arguments().filter(|argument| argument.is_required_set());
        let needed = needed.flat_map(|argument| {
            let long = argument.get_long().filter(|long| *long != flag);
            let is_flag = argument.get_long() == Some(flag);
            let value = if argument.get_long() == Some("top-k") { "1" } else { "file" };
            let words = [long.map(|long| format!("--{long}")), Some(value.to_owned())];
            words.into_iter().flatten().filter(move |_| !is_flag)
        });
        let words = ["resnet-bk".to_owned(), subcommand.to_owned()].into_iter().chain(needed);
        let mut words: Vec<String> = words.chain([format!("--{flag}={value}")]).collect();
        if ["quantize", "import"].contains(&subcommand) {
            words.push("--dry-run".into());
        }
        if flag == "max-per-mac" {
            // It limits the mixes of a target.
            words.push("--target-ratio=8".into());
        }
        Cli::try_parse_from(words).err().map(|error| error.to_string())
    }

    #[test]
    fn numbers_are_bounded_before_any_work() {
        let flags = numeric_flags();
        assert!(flags.len() > 50, "{flags:?}");
        // Unrestricted, or checked with the model's dimensions.
        let free = ["seed", "target-bytes", "train-tokens", "warmup", "patience"];
        let dimensions = [
            "vocab",
            "width",
            "layers",
            "experts",
            "hidden",
            "potentials",
            "channels",
            "positions",
        ];
        for (subcommand, flag) in &flags {
            let refused = |value| refused(subcommand, flag, value);
            for value in ["", "x", "--", "99999999999999999999999999999999", "1e400"] {
                // Not a number of this kind, or out of range; infinite ones are rejected later.
                if let Some(error) = refused(value) {
                    assert!(error.contains(flag.as_str()), "{subcommand} --{flag}: {error}");
                }
            }
            let one = refused("1").unwrap_or_default();
            if one.contains("arguments were not provided") {
                // Means nothing without another flag.
                continue;
            }
            assert!(one.is_empty() || one.contains("cannot be used"), "{flag}: {one}");
            let is_whole = refused("0.5").is_some();
            let known = [&free[..], &dimensions].concat();
            let is_known = known.contains(&&**flag) || (subcommand == "train" && flag == "top-k");
            if is_whole && !is_known {
                let error = refused(&u64::MAX.to_string()).unwrap_or_default();
                assert!(error.contains("is not in"), "{subcommand} --{flag}: {error}");
            }
        }
    }
}
