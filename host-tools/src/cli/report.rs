//! `resnet-bk report`.

use std::path::PathBuf;

use serde_json::json;

use super::common::{escaped, parse_blob, print_json};
use crate::cli::Global;
use crate::error::{Error, Result};
use crate::files;
use crate::importance::Importance;
use crate::report::{self, Findings, Frontier};
use crate::terminal::Stdout;

const EXAMPLES: &str = "\
Examples:
  What `cargo xtask frontier` found, with the sensitivities and two blobs:
      resnet-bk report target/frontier/wikitext2/frontier.json \\
          --importance target/frontier/wikitext2/importance.json \\
          --blob static.rbk --blob 7x.rbk --out report.html

The page stands alone; its plots are also written beside it as SVG and PNG, to a directory with the page's
name. The same figures go to the terminal.";

/// Show what was found about a model: a page, plots, and text.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`report --help` shows examples.")]
pub(crate) struct Args {
    /// Points of size against quality, as `cargo xtask frontier --json` prints them.
    frontier: PathBuf,
    /// Importance file, for the heat map of sensitivities.
    #[arg(long, value_name = "FILE")]
    importance: Option<PathBuf>,
    /// Blob whose bytes are shown; may be repeated.
    #[arg(long, value_name = "FILE")]
    blob: Vec<PathBuf>,
    /// Page to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let frontier = Frontier::read(&args.frontier)?;
    let importance = args.importance.as_deref().map(Importance::read_any).transpose()?;
    let mut blobs = Vec::new();
    for path in &args.blob {
        let bytes = files::read(path)?;
        let model = parse_blob(&bytes, path)?;
        let parts = report::bytes_by_part(&model, bytes.len());
        let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        blobs.push((stem.into_owned(), parts));
    }
    let sensitivities = importance.map(|importance| importance.measured).unwrap_or_default();
    let findings = Findings { frontier, sensitivities, blobs };
    let plots = report::plots(&findings);
    let directory = args.out.with_extension("");
    if directory == args.out {
        return Err(Error::Usage(format!(
            "--out {} needs an ending, such as .html: plots go to a directory without it",
            args.out.display()
        )));
    }
    files::create_directory(&directory)?;
    let mut written = Vec::new();
    for plot in &plots {
        let path = directory.join(plot.name);
        files::write_atomically(&path.with_extension("svg"), plot.svg.as_bytes())?;
        written.push(path.with_extension("svg"));
        if let Some(png) = report::png(&plot.svg) {
            files::write_atomically(&path.with_extension("png"), &png)?;
            written.push(path.with_extension("png"));
        }
    }
    files::write_atomically(&args.out, report::page(&findings, &plots).as_bytes())?;
    if global.json {
        let plots: Vec<_> = written.iter().map(escaped).collect();
        print_json(&json!({ "out": escaped(&args.out), "plots": plots }))?;
    } else {
        writeln!(Stdout, "{}\n\n{} has the plots", report::text(&findings), args.out.display())?;
    }
    Ok(())
}
