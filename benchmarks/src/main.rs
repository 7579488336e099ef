//! resnet-bk beside general quantizers: quality on the same weights and the same text, and speed.

mod kernels;
mod quantizers;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// resnet-bk beside general quantizers: quality and speed.
#[derive(Debug, Parser)]
#[command(name = "resnet-bk-benchmarks", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Quality of a checkpoint under the block types of candle (those of GGUF files).
    ///
    /// Every matrix whose rows are whole blocks is quantized and decoded again; everything else
    /// stays FP32: the types of 256 inputs, Q2_K to Q6_K, would leave rows of 128 as they are, so
    /// those of 32 are compared. candle rounds to nearest, without calibration. Activations stay
    /// FP32 too, as `resnet-bk eval --weights-only` leaves them. Bytes are those of the blocks and
    /// of what stays, without any header.
    Quantizers(quantizers::Args),
    /// Speed of this host's kernels: products beside candle's, windows and generation beside the
    /// FP32 reference, each a median of ratios of two things that take turns on one thread.
    ///
    /// Build it for the processor that it runs on, RUSTFLAGS="-C target-cpu=native": candle chooses
    /// its kernels when it is compiled.
    Kernels(kernels::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Quantizers(args) => quantizers::run(&args),
        Command::Kernels(args) => kernels::run(&args),
    };
    result.map_or_else(
        |error| {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
