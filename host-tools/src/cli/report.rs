//! `resnet-bk report`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::common::{Force, escaped, parse_blob, print_json};
use crate::cli::Global;
use crate::error::{Error, Result};
use crate::files::{self, Content};
use crate::importance::Importance;
use crate::output::{Kind, Output, Plan};
use crate::report::{self, Findings, Plot};
use crate::terminal::Stdout;

const EXAMPLES: &str = "\
Examples:
  What `cargo xtask frontier` found, with the sensitivities and two blobs:
      resnet-bk report target/frontier/wikitext2/frontier.json \\
          --importance target/frontier/wikitext2/importance.json \\
          --blob static.rbk --blob 7x.rbk --out report.html

The page is self-contained; its plots are also written as SVG and PNG to a directory beside it
with the page's name. The same figures are printed to the terminal.";

/// Report on a model: a page, plots, and text.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, after_help = "`report --help` shows examples.")]
pub(crate) struct Args {
    /// Size and quality of blobs, as printed by `cargo xtask frontier --json`.
    frontier: PathBuf,
    /// Importance file, for the heat map of sensitivities.
    #[arg(long, value_name = "FILE")]
    importance: Option<PathBuf>,
    /// Blob whose bytes per part are shown; may be repeated.
    #[arg(long, value_name = "FILE")]
    blob: Vec<PathBuf>,
    /// HTML page to write; an older page and its plots are replaced.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    force: Force,
}

pub(crate) fn run(args: Args, global: Global) -> Result<()> {
    let inputs = [&args.frontier].into_iter().chain(&args.importance).chain(&args.blob);
    let mut plan = args.force.plan(inputs);
    let directory = args.plots()?;
    let page = plan.writes(&args.out, Kind::Page)?;
    let findings = args.findings()?;
    let plots = report::plots(&findings);
    files::create_directory(&directory)?;
    // Check all outputs before writing the first.
    let places = plots.iter().map(|plot| Places::new(&mut plan, &directory, plot));
    let places: Vec<Places> = places.collect::<Result<_>>()?;
    let mut written = Vec::new();
    for (plot, place) in plots.iter().zip(&places) {
        place.svg.write(plot.svg.as_bytes())?;
        written.push(place.svg.path());
        if let Some(png) = report::png(&plot.svg) {
            place.png.write(&png)?;
            written.push(place.png.path());
        }
    }
    page.write(report::page(&findings, &plots).as_bytes())?;
    if global.json {
        let plots: Vec<_> = written.iter().map(escaped).collect();
        print_json(&json!({ "out": escaped(&args.out), "plots": plots }))?;
    } else {
        writeln!(Stdout, "{}\n\n{} has the plots", report::text(&findings), args.out.display())?;
    }
    Ok(())
}

/// Output files of a plot.
struct Places {
    svg: Output,
    png: Output,
}

impl Places {
    fn new(plan: &mut Plan, directory: &Path, plot: &Plot) -> Result<Self> {
        let path = directory.join(plot.name);
        Ok(Self {
            svg: plan.writes(&path.with_extension("svg"), Kind::Svg)?,
            png: plan.writes(&path.with_extension("png"), Kind::Png)?,
        })
    }
}

impl Args {
    /// The directory of the plots.
    fn plots(&self) -> Result<PathBuf> {
        let directory = self.out.with_extension("");
        if directory == self.out {
            return Err(Error::Usage(format!(
                "--out {} needs an extension, such as .html: plots go to a directory without it",
                self.out.display()
            )));
        }
        if directory.exists() && !directory.is_dir() {
            return Err(Error::io("create", &directory)(ErrorKind::NotADirectory.into()));
        }
        Ok(directory)
    }

    /// Everything that the report shows.
    fn findings(&self) -> Result<Findings> {
        let frontier = report::read_frontier(&self.frontier)?;
        let importance = self.importance.as_deref().map(Importance::read_any).transpose()?;
        let mut blobs = Vec::new();
        for path in &self.blob {
            let bytes = Content::of(path)?;
            let model = parse_blob(&bytes, path)?;
            let parts = report::bytes_by_part(&model, bytes.len());
            let stem = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
            blobs.push((stem.into_owned(), parts));
        }
        let sensitivities = importance.map(|importance| importance.measured).unwrap_or_default();
        Ok(Findings { frontier, sensitivities, blobs })
    }
}
