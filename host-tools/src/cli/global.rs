//! Flags of every subcommand.

use crate::cli::numbers;

/// Flags of every subcommand.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Global {
    /// Print the result as JSON on standard output. Bytes of a path that are not UTF-8 show as
    /// \xNN.
    #[arg(long, global = true)]
    pub json: bool,
    /// Show no progress: neither a bar on a terminal nor, elsewhere, a line every ten seconds.
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// Threads to compute on; results do not depend on it [default: as many as the machine has
    /// cores].
    #[arg(long, global = true, value_parser = numbers::parts(), value_name = "N")]
    pub threads: Option<usize>,
}
