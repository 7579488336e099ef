//! The command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::qemu::{self, Event, Report};
use xtask::{bench, checks, demo, frontier, reproducible, setup};

/// Set-up, demo and tests of resnet-bk.
///
/// On a fresh machine with Rust, two commands do everything, set-up included:
///
///     cargo xtask demo    quantize the shipped model, run it on an emulated microcontroller
///     cargo xtask test    every check that continuous integration makes
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
    /// Install what is missing: Rust's embedded targets, QEMU. `demo` and `test` do it by themselves.
    Setup,
    /// From the FP32 checkpoint to text generated on a microcontroller.
    ///
    /// Analyses the importance of each layer, quantizes under each policy, evaluates every blob
    /// through the integer path, builds the firmware with the `static` one, runs it in QEMU, and
    /// compares every logit of the device with the host's. Blobs stay in `target/demo/`.
    ///
    /// Examples:
    ///     cargo xtask demo
    ///     cargo xtask demo --corpus ~/wikitext-2
    ///     cargo xtask demo --json > demo.json
    #[command(verbatim_doc_comment)]
    Demo(demo::Args),
    /// Size against quality, from scratch: budgets, uniform precisions, published policies, general
    /// quantizers, and what each step of quantization gives.
    ///
    /// Everything is made from the FP32 checkpoint and evaluated on the same text. Blobs, the table as
    /// JSON and a report stay in `target/frontier/`. An interrupted run goes on where it was, as long as
    /// neither model, corpus nor program has changed.
    ///
    /// Examples:
    ///     cargo xtask frontier --corpus ~/wikitext-2
    ///     cargo xtask frontier --quick
    ///     cargo xtask frontier --model models/small-seed2 --json > frontier.json
    #[command(verbatim_doc_comment)]
    Frontier(frontier::Args),
    /// Instructions of kernels and tokens on every emulated target, and the code that they take.
    ///
    /// Builds `bench-firmware/` for Cortex-M4F, M3, M0 and RV32IMC, and runs it in QEMU: matrix-vector
    /// products of every precision, each compared with the portable kernel bit for bit, and whole tokens of
    /// the shipped model. Instructions are not cycles, but the same in every run.
    ///
    /// Examples:
    ///     cargo xtask bench
    ///     cargo xtask bench --kernels --check
    ///     cargo xtask bench --update
    ///     cargo xtask bench --json > bench.json
    #[command(verbatim_doc_comment)]
    Bench(bench::Args),
    /// Build the firmware's image from two directories and compare every byte that goes to flash.
    Reproducible,
    /// Every check: format, lints, docs, tests, targets, firmware, QEMU.
    ///
    /// All checks run, whether or not an earlier one fails; the failures are shown together at the
    /// end and the exit code is 1.
    ///
    /// Examples:
    ///     cargo xtask test
    ///     cargo xtask test --list
    ///     cargo xtask test lints docs
    #[command(verbatim_doc_comment)]
    Test(checks::Args),
    /// Run a firmware ELF in QEMU and decode its logs; `cargo run` in firmware-example/ does this.
    ///
    /// The text that the firmware generates and its summary go to standard output, logs to standard
    /// error. The exit code is the firmware's: 0 after success, 1 after an error, 101 after a panic,
    /// 134 after a fault.
    Qemu(QemuArgs),
}

#[derive(Debug, clap::Args)]
struct QemuArgs {
    /// The firmware.
    elf: PathBuf,
    /// Print one JSON object with everything the firmware said, and nothing else.
    #[arg(long)]
    json: bool,
    /// End a run that takes longer, in seconds.
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    time_limit: u64,
}

/// Runs the command that the process was started with. The exit code is 0 on success, 1 on failure
/// and 2 where the command line itself is wrong; `qemu` passes on the firmware's.
pub(crate) fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Setup => setup::run_setup().map(|()| {
            eprintln!("setup: Rust targets and QEMU are in place");
            ExitCode::SUCCESS
        }),
        Command::Demo(args) => demo::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Frontier(args) => frontier::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Reproducible => reproducible::run().map(|()| ExitCode::SUCCESS),
        Command::Test(args) => checks::run(&args),
        Command::Qemu(args) => run_qemu(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run_qemu(args: &QemuArgs) -> Result<ExitCode> {
    let options = qemu::Options { time_limit: Duration::from_secs(args.time_limit) };
    let report = if args.json {
        qemu::run(&args.elf, options)?
    } else {
        let report = qemu::run_with(&args.elf, options, show)?;
        conclude(&report);
        report
    };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    // Emulator and firmware give codes below 256.
    Ok(ExitCode::from(u8::try_from(report.exit_code).unwrap_or(1)))
}

/// Shows an event as it comes.
fn show(event: &Event) {
    let mut stdout = std::io::stdout();
    // Where standard output is closed there is nobody to show it to.
    let _ = match event {
        Event::Log { level, message } => {
            eprintln!("{level:5} {message}");
            Ok(())
        }
        Event::Prompt(bytes) | Event::Text(bytes) => {
            stdout.write_all(bytes).and_then(|()| stdout.flush())
        }
        Event::Line(line) => writeln!(stdout, "{line}"),
        Event::Malformed => {
            eprintln!("warn  bytes that are no log frame");
            Ok(())
        }
        // Tokens show as their text, the summary at the end.
        Event::Token(_) | Event::Summary(_) => Ok(()),
    };
}

/// Shows what the run amounted to.
fn conclude(report: &Report) {
    eprint!("{}", report.emulator_messages);
    if report.text.is_empty() && !report.tokens.is_empty() {
        // The blob has no tokenizer.
        println!("{:?}", report.tokens);
    }
    if let Some(summary) = &report.summary {
        println!("\n\n{summary}");
    }
    if report.exit_code != 0 {
        eprintln!("error: the firmware ended with exit code {}", report.exit_code);
    }
}
