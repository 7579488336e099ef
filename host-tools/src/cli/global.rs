//! Flags of every subcommand.

use bytesize::ByteSize;

use crate::cli::numbers;

/// Flags of every subcommand.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Global {
    /// Print the result as JSON on standard output. Non-UTF-8 bytes of a path show as \xNN.
    #[arg(long, global = true)]
    pub json: bool,
    /// Do not report progress (a bar on a terminal, otherwise a line every ten seconds).
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Number of threads; does not affect results [default: the number of cores].
    #[arg(long, global = true, value_parser = numbers::parts(), value_name = "N")]
    pub threads: Option<usize>,
    /// Memory to stay within where there is a choice, such as 4GB; does not affect results. Fewer
    /// threads and computing again what would be kept save some; a model that is too large for it
    /// is refused.
    #[arg(long, global = true, value_name = "SIZE")]
    pub memory: Option<ByteSize>,
}
