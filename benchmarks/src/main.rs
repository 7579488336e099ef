//! Comparison of resnet-bk with general quantizers, quality on the same weights and text and speed,
//! of its block with others, and of its codec with other compressors.

mod blocks;
mod endurance;
mod kernels;
mod messages;
mod page;
mod quantizers;
mod scale;
mod suggestions;
mod tokens;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Compare resnet-bk with general quantizers, and its block with others.
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
    /// Every matrix whose rows are whole blocks is quantized and dequantized; everything else stays
    /// FP32. The types with blocks of 256 inputs, Q2_K to Q6_K, would leave rows of 128 in FP32, so
    /// those with blocks of 32 are compared. candle rounds to nearest, without calibration.
    /// Activations stay FP32, too, as with `resnet-bk eval --weights-only`. Bytes are those of the
    /// blocks and of FP32 tensors, without any header.
    Quantizers(quantizers::Args),
    /// Speed of this host's kernels: products against candle's, windows and generation against the
    /// FP32 reference, each a median of ratios, both sides alternating on one thread.
    ///
    /// Build it for the processor it runs on, RUSTFLAGS="-C target-cpu=native": candle chooses its
    /// kernels at compile time.
    Kernels(kernels::Args),
    /// Bits per byte of trained models with different blocks, in FP32 and quantized alike.
    ///
    /// Models come from benchmarks/blocks and, for the gated chain, from `resnet-bk train`; see
    /// benchmarks/README.md. Scores are kept beside each model: another call computes only what is
    /// missing.
    Blocks(blocks::Args),
    /// Short messages, cut from the test split: compressed bytes beside the model's cross-entropy.
    ///
    /// benchmarks/messages/compare.py puts other compressors beside it.
    Messages(messages::Args),
    /// The codec under random texts, random codes and flipped bits: all texts come back, whatever
    /// is decoded ends, and damage is noticed.
    ///
    /// Examples:
    ///     resnet-bk-benchmarks endurance models/16k/model.rbk --strings 1000000 --inputs 10000000
    ///     resnet-bk-benchmarks endurance models/wikitext2/model.rbk --flips 1000
    #[command(verbatim_doc_comment)]
    Endurance(endurance::Args),
    /// Words of the test split that suggestions offer, and the keystrokes that they save.
    Suggestions(suggestions::Args),
    /// A page of plots from tables of models: bits per byte against bytes, memory and work.
    Page(page::Args),
    /// Time and peak memory of every command for models of 1.4, 8, 25 and 81 million parameters,
    /// made for it, and how they grow.
    ///
    /// Takes hours. What is measured is kept, and another call goes on; run nothing else meanwhile.
    Scale(scale::Args),
    /// The tokens of a corpus as plain files, for training in benchmarks/blocks.
    Tokens(tokens::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Quantizers(args) => quantizers::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Blocks(args) => blocks::run(&args).map_err(|error| error as _),
        Command::Messages(args) => messages::run(&args),
        Command::Endurance(args) => endurance::run(&args),
        Command::Scale(args) => scale::run(&args),
        Command::Suggestions(args) => suggestions::run(&args),
        Command::Page(args) => page::run(&args),
        Command::Tokens(args) => tokens::run(&args),
    };
    result.map_or_else(
        |error| {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}
