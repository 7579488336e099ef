//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::qemu::{self, Event, Report};
use xtask::terminal::{CLOSED_PIPE, ClosedPipe, Stderr, Stdout, checked};
use xtask::{Board, bench, checks, demo, frontier, reproducible, setup, unicode};

/// Set-up, demo and tests of resnet-bk.
///
/// On a machine with Rust, two commands do everything, set-up included:
///
///     cargo xtask demo    quantize the shipped model, run it on an emulated microcontroller
///     cargo xtask test    every check that continuous integration runs
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    verbatim_doc_comment,
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Install missing prerequisites: Rust's embedded targets, QEMU. `demo` and `test` run it
    /// automatically.
    Setup,
    /// From the FP32 checkpoint to text generated on a microcontroller.
    ///
    /// Analyses the importance of each layer, quantizes under each policy, evaluates every blob
    /// through the integer path, builds the firmware with the shipped blob (or, for a model without
    /// one, the `static` blob), runs it in QEMU, and compares every logit of the device with the
    /// host's. Blobs stay in `target/demo/`.
    ///
    /// Examples:
    ///     cargo xtask demo
    ///     cargo xtask demo --corpus ~/wikitext-2
    ///     cargo xtask demo --json > demo.json
    #[command(verbatim_doc_comment)]
    Demo(demo::Args),
    /// Size against quality, from scratch: budgets, uniform precisions, published policies, general
    /// quantizers, and an ablation of the steps of quantization.
    ///
    /// Everything is made from the FP32 checkpoint and evaluated on the same text. Blobs, the table
    /// as JSON and a report stay in `target/frontier/`. An interrupted run resumes unless model,
    /// corpus or program has changed.
    ///
    /// Examples:
    ///     cargo xtask frontier --corpus ~/wikitext-2
    ///     cargo xtask frontier --quick
    ///     cargo xtask frontier --model models/small-seed2 --json > frontier.json
    #[command(verbatim_doc_comment)]
    Frontier(frontier::Args),
    /// Instruction counts of kernels and tokens, and code size, on every emulated target.
    ///
    /// Builds `bench-firmware/` for Cortex-M4F, M3, M0 and RV32IMC, and runs it in QEMU:
    /// matrix-vector products of every precision, each compared with the portable kernel bit for
    /// bit, and whole tokens of the shipped model. Instructions are not cycles, but reproducible.
    ///
    /// Examples:
    ///     cargo xtask bench
    ///     cargo xtask bench --kernels --check
    ///     cargo xtask bench --update
    ///     cargo xtask bench --json > bench.json
    #[command(verbatim_doc_comment)]
    Bench(bench::Args),
    /// Build the firmware in two directories and compare every byte that goes to flash.
    Reproducible,
    /// Write the table of characters by which the core divides texts, from the Unicode data of the
    /// tools; needed after these have changed.
    Unicode {
        /// Only compare it.
        #[arg(long)]
        check: bool,
    },
    /// Every check: format, lints, docs, tests, targets, firmware, QEMU.
    ///
    /// All checks run even if an earlier one fails; failures are summarized at the end and the exit
    /// code is 1.
    ///
    /// Examples:
    ///     cargo xtask test
    ///     cargo xtask test --list
    ///     cargo xtask test lints docs
    #[command(verbatim_doc_comment)]
    Test(checks::Args),
    /// Run a firmware ELF in QEMU and decode its logs; `cargo run` in firmware-example/ does this.
    ///
    /// Generated text and the summary go to standard output, logs to standard error. The exit code
    /// is the firmware's: 0 after success, 1 after an error, 101 after a panic, 134 after a fault.
    Qemu(QemuArgs),
}

#[derive(Debug, clap::Args)]
struct QemuArgs {
    /// Firmware ELF.
    elf: PathBuf,
    /// Print one JSON object with all output of the firmware, and nothing else.
    #[arg(long)]
    json: bool,
    /// The board that it was built for.
    #[arg(long, value_enum, default_value_t)]
    board: Board,
    /// Time limit of the run in seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    time_limit: u64,
}

/// Runs the command line of the process. The exit code is 0 on success, 1 on failure, 2 for a wrong
/// command line and [`CLOSED_PIPE`] if standard output was closed; `qemu` returns the firmware's.
pub(crate) fn main() -> ExitCode {
    let result = match Cli::try_parse() {
        Ok(cli) => run(cli.command),
        Err(answer) => refuse(&answer),
    };
    result.unwrap_or_else(|error| {
        if error.is::<ClosedPipe>() {
            return CLOSED_PIPE.into();
        }
        writeln!(Stderr, "error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Prints clap's answer instead of a parsed command line: requested help to standard output, errors
/// to standard error.
fn refuse(answer: &clap::Error) -> Result<ExitCode> {
    if answer.use_stderr() {
        // A failure to write to standard error cannot be reported.
        let _ = answer.print();
        return Ok(ExitCode::from(2));
    }
    checked(answer.print().and_then(|()| std::io::stdout().flush()))?;
    Ok(ExitCode::SUCCESS)
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Setup => setup::run_setup().map(|()| {
            writeln!(Stderr, "setup: Rust targets and QEMU are in place");
            ExitCode::SUCCESS
        }),
        Command::Demo(args) => demo::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Frontier(args) => frontier::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Reproducible => reproducible::run().map(|()| ExitCode::SUCCESS),
        Command::Unicode { check } => unicode::run(check).map(|()| ExitCode::SUCCESS),
        Command::Test(args) => checks::run(&args),
        Command::Qemu(args) => run_qemu(&args),
    }
}

fn run_qemu(args: &QemuArgs) -> Result<ExitCode> {
    let time_limit = Duration::from_secs(args.time_limit);
    let options = qemu::Options { board: args.board, time_limit };
    let report = if args.json {
        qemu::run(&args.elf, options)?
    } else {
        let report = qemu::run_with(&args.elf, options, show)?;
        conclude(&report)?;
        report
    };
    if args.json {
        writeln!(Stdout, "{}", serde_json::to_string_pretty(&report)?)?;
    }
    // Exit codes of emulator and firmware are below 256.
    Ok(ExitCode::from(u8::try_from(report.exit_code).unwrap_or(1)))
}

/// Prints an event as it arrives.
fn show(event: &Event) -> Result<()> {
    match event {
        Event::Log { level, message } => writeln!(Stderr, "{level:5} {message}"),
        Event::Prompt(bytes) | Event::Text(bytes) => Stdout.write_all(bytes)?,
        Event::Line(line) => writeln!(Stdout, "{line}")?,
        Event::Malformed => writeln!(Stderr, "warn  bytes that are not a log frame"),
        // Tokens are shown as text, the summary at the end.
        Event::Token(_) | Event::Summary(_) => {}
    }
    Ok(())
}

/// Prints the summary of a run.
fn conclude(report: &Report) -> Result<()> {
    write!(Stderr, "{}", report.emulator_messages);
    if report.text.is_empty() && !report.tokens.is_empty() {
        // The blob has no tokenizer.
        writeln!(Stdout, "{:?}", report.tokens)?;
    }
    if let Some(summary) = &report.summary {
        writeln!(Stdout, "\n\n{summary}")?;
    }
    if report.exit_code != 0 {
        writeln!(Stderr, "error: the firmware ended with exit code {}", report.exit_code);
    }
    Ok(())
}
