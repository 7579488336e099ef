//! `resnet-bk upgrade`.

use crate::cli::Global;
use crate::cli::common::{Force, escaped};
use crate::error::Result;
use crate::files;
use crate::output::Kind;
use crate::terminal::Stdout;
use crate::upgrade::upgrade;
use resnet_bk_core::blob::FORMAT_VERSION;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  A blob that an older version of the tools has written, for firmware of this version:
      resnet-bk upgrade old.rbk --out model.rbk

The logits are the same, bit for bit; only the header changes. Firmware reads the newest format
only: update the blob and the firmware together.";

/// Convert a blob of an older format to the current one, with the same logits.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`upgrade --help` shows an example.")]
pub(crate) struct Args {
    /// Blob of format version 2.
    #[arg(value_name = "BLOB")]
    blob: PathBuf,
    /// Blob to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let out = args.force.plan([&args.blob]).writes(&args.out, Kind::Blob)?;
    let old = files::read(&args.blob)?;
    let new = upgrade(&old, &args.blob)?;
    out.write(&new)?;
    if out.is_standard_output() {
        return Ok(());
    }
    if global.json {
        let result = serde_json::json!({
            "blob": escaped(&args.out), "format": FORMAT_VERSION, "bytes": new.len(),
        });
        writeln!(Stdout, "{result}")?;
    } else {
        let (path, bytes) = (args.out.display(), new.len());
        writeln!(Stdout, "{path}: format {FORMAT_VERSION}, {bytes} bytes")?;
    }
    Ok(())
}
